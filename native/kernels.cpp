#include "kernels.hpp"

namespace gpt2kit {

extern const Kernels kernels_portable;
#if defined(GPT2KIT_X86)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512_bf16, kernels_amx;
#endif

const Kernels& kernels_of(Isa isa) {
    switch (isa) {
#if defined(GPT2KIT_X86)
        case Isa::avx2: return kernels_avx2;
        case Isa::avx512: return kernels_avx512;
        case Isa::avx512_bf16: return kernels_avx512_bf16;
        case Isa::amx: return kernels_amx;
#endif
        default: return kernels_portable;
    }
}

}  // namespace gpt2kit
