// kernels/gated.cu on a CPU, for the activation ACT in T.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/gated.cu"

// Where tests/decoders/emulated.rs puts them.
struct Tensors {
    const T *gate, *up;
    T* y;
    const T* dy;
    T *dgate, *dup;
};

extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, unsigned rows, unsigned wide, unsigned stride, unsigned order) {
    u32 groups = wide / 8, total = rows * groups;
    dim3 grid = {(total + 255) / 256};
    run(grid, 256, order, [&] { gated(of->gate, of->up, of->y, total, groups, stride); });
    run(grid, 256, order, [&] { gated_grad(of->dy, of->gate, of->up, of->dgate, of->dup, total, groups, stride); });
}
