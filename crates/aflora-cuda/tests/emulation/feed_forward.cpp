// kernels/feed_forward.cu on a CPU, in T, of paths of rank R around the activation ACT.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/feed_forward.cu"

// Where tests/paths puts them.
struct Tensors {
    T* a;
    const float *h, *g;
    T* d;
    float* part_down;
};

unsigned divided(unsigned n, unsigned by) { return (n + by - 1) / by; }

// The layer in front by the path at 0, the layer behind by that at 1.
extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, const KernelPaths* paths, int n, int slab, unsigned order) {
    const KernelPath &first = paths->at[0], &second = paths->at[1];
    unsigned slabs = divided(n, slab);
    run({divided(first.m, WIDTH), slabs}, 256, order, [&] { up_activated({first}, of->a, of->h, n, slab); }, 8);
    run({divided(first.m, 32 * DOWN_COLS), slabs}, 256, order,
        [&] { grad_down_activated(of->d, (const T*)first.y, of->g, {second}, of->part_down, n, first.m, slab); }, 8);
}
