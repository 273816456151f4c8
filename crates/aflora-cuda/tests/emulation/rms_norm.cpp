// kernels/rms_norm.cu on a CPU, for rows of H elements in T.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/rms_norm.cu"

// Where tests/decoders/emulated.rs puts them.
struct Tensors {
    const T *x, *delta, *weight;
    T *sum, *y, *again;
    float* rstd;
    const T *dy, *dsum;
    T* dx;
};

extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, float plus, float eps, int n, unsigned order) {
    int rows = 256 / THREADS;
    dim3 grid = {unsigned((n + rows - 1) / rows)};
    const T* sum = of->delta ? of->sum : of->x;
    run(grid, 256, order, [&] { rms_norm(of->x, of->delta, of->weight, plus, eps, of->sum, of->y, of->rstd, n); });
    run(grid, 256, order, [&] { rms_norm_again(sum, of->weight, plus, of->rstd, of->again, n); });
    run(grid, 256, order, [&] { rms_norm_grad(of->dy, of->dsum, sum, of->weight, plus, of->rstd, of->dx, n); });
}
