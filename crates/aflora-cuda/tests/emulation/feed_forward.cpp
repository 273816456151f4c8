// kernels/feed_forward.cu, or kernels/feed_forward_tiled.cu, on a CPU, around the activation ACT.
#include "paths.h"
#if TILED
#include "../../kernels/feed_forward_tiled.cu"
#else
#include "../../kernels/feed_forward.cu"
#endif

// Where tests/paths puts them.
struct Tensors {
    T* a;
    const float *h, *g;
    T* d;
    float* part_down;
};

// The layer in front by the path at 0, the layer behind by that at 1.
extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, const KernelPaths* paths, int n, int slab, unsigned order) {
    const KernelPath &first = paths->at[0], &second = paths->at[1];
    unsigned slabs = divided(n, slab);
    run({divided(first.m, SHAPE.width), slabs}, 256, order, [&] { up_activated({first}, of->a, of->h, n, slab); }, TALL);
    run({divided(first.m, SHAPE.width_down), slabs}, 256, order,
        [&] { grad_down_activated(of->d, (const T*)first.y, of->g, {second}, of->part_down, n, first.m, slab); }, TALL);
}
