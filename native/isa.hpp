// Instruction sets the kernels are compiled for, and which of them this processor has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gpt2kit {

// avx512 needs VNNI too (Cascade Lake, Zen 4); what has AVX-512 without it gets avx2. amx is all of avx512_bf16 and tiles.
enum class Isa { portable, avx2, avx512, avx512_bf16, amx };

std::string_view name_of(Isa isa);

// Those this processor can run and this build holds, the fastest last.
std::vector<Isa> usable();

// The one of this name; of the empty name, the fastest. Throws std::invalid_argument where it cannot be used.
Isa choose_isa(std::string_view name);

}  // namespace gpt2kit
