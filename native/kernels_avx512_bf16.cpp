// The kernels for processors with AVX-512, VNNI and BF16.
#include "kernel_table.hpp"
#include "simd_avx512.hpp"

namespace gpt2kit {

extern const Kernels kernels_avx512_bf16 = table<Avx512Bf16>(Isa::avx512_bf16);

}  // namespace gpt2kit
