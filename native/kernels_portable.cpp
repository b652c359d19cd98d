// The kernels for any processor.
#include "kernel_table.hpp"
#include "simd_portable.hpp"

namespace gpt2kit {

extern const Kernels kernels_portable = table<Portable>(Isa::portable);

}  // namespace gpt2kit
