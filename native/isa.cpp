#include "isa.hpp"

#include <stdexcept>
#include <utility>

#if defined(GPT2KIT_X86)
#include <cpuid.h>
#endif
#if defined(GPT2KIT_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gpt2kit {

namespace {

// Linux hands out the tiles' registers on demand only.
bool may_use_tiles() {
#if defined(GPT2KIT_X86) && defined(__linux__) && defined(SYS_arch_prctl)
    constexpr unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25;
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned all = AMX_BF16 | AMX_TILE | AMX_INT8;
    return (d & all) == all && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

}  // namespace

std::string_view name_of(Isa isa) {
    switch (isa) {
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::avx512_bf16: return "avx512_bf16";
        case Isa::amx: return "amx";
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
    const bool bf16 = found.back() == Isa::avx512_bf16;
    // Intel's bfloat16 products take longer than widening to floats: 78 tokens/s against 94 on a Sapphire Rapids.
    if (bf16 && __builtin_cpu_is("intel")) std::swap(found.back(), found[found.size() - 2]);
    if (bf16 && may_use_tiles()) found.push_back(Isa::amx);
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
