// The kernels for processors with AVX-512 and VNNI.
#include "kernel_table.hpp"
#include "simd_avx512.hpp"

namespace gpt2kit {

extern const Kernels kernels_avx512 = table<Avx512>(Isa::avx512);

}  // namespace gpt2kit
