// kernels/wide_path.cu on a CPU, in T.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/wide_path.cu"

// Where tests/paths puts them.
struct Tensors {
    const float *a, *up, *d, *b;
    T *wide_a, *wide_up;
    float* du;
    const T* x;
    T *dropped, *sum;
};

extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, float s, unsigned of_a, unsigned of_up, unsigned r, unsigned groups,
                                                               unsigned threshold, float keep, unsigned order) {
    dim3 grid = {(of_a + of_up + 255) / 256};
    run(grid, 256, order, [&] { fold(of->a, of->up, of->d, of->b, s, of->wide_a, of->wide_up, of_a, of_up, r); });
    run(grid, 256, order, [&] { unfold(of->du, of->d, of->b, s, of_up, r); });
    Random where = {nullptr, nullptr, 0x0123456789abcdef, 8};
    grid = {(groups + 255) / 256};
    run(grid, 256, order, [&] { drop(of->x, of->dropped, groups, threshold, keep, where); });
    run(grid, 256, order, [&] { add_dropped(of->sum, of->x, groups, threshold, keep, where); });
}
