// The kernels for processors with AVX-512, VNNI, BF16, and tiles of AMX.
#include "kernel_table.hpp"
#include "matmul_amx.hpp"

namespace gpt2kit {

extern const Kernels kernels_amx = table<Amx>(Isa::amx);

}  // namespace gpt2kit
