// The one symbol that an instruction set's file gives away.

namespace ekmfast {
extern const KernelTable EKMFAST_KERNEL_TABLE;
const KernelTable EKMFAST_KERNEL_TABLE = {kernels_for<F32>(), kernels_for<F64>()};
}  // namespace ekmfast
