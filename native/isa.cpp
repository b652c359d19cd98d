#include "isa.hpp"

#include <stdexcept>
#include <utility>

namespace gpt2kit {

std::string_view name_of(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::avx512_bf16: return "avx512_bf16";
        default: return "portable";
    }
}

std::vector<Isa> usable() {
    std::vector<Isa> found{Isa::portable};
#if defined(GPT2KIT_X86)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vnni");
    if (avx2) found.push_back(Isa::avx2);
    if (avx512) found.push_back(Isa::avx512);
    if (avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(Isa::avx512_bf16);
    // Intel's bfloat16 products take longer than widening to floats: 78 tokens/s against 94 on a Sapphire Rapids.
    if (found.back() == Isa::avx512_bf16 && __builtin_cpu_is("intel")) std::swap(found.back(), found[found.size() - 2]);
#endif
    return found;
}

Isa choose_isa(std::string_view name) {
    const auto found = usable();
    if (name.empty()) return found.back();
    std::string names;
    for (const Isa isa : found) {
        if (name_of(isa) == name) return isa;
        names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
    }
    throw std::invalid_argument("GPT2KIT_ISA=" + std::string(name) + ": not here; this machine has " + names);
}

}  // namespace gpt2kit
