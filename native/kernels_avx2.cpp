// The kernels for processors with AVX2.
#include "kernel_table.hpp"
#include "simd_avx2.hpp"

namespace gpt2kit {

extern const Kernels kernels_avx2 = table<Avx2>(Isa::avx2);

}  // namespace gpt2kit
