// kernels/low_rank.cu on a CPU, in T, of paths of rank R.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/low_rank.cu"

// Where tests/paths puts them.
struct Tensors {
    const T* x;
    T* dx;
    float *h, *part_g, *g, *part_d, *part_down;
};

unsigned divided(unsigned n, unsigned by) { return (n + by - 1) / by; }

// One pass forward over the y of `paths`, and one backward over those of `gradients`, by slabs of so many tokens.
extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, const KernelPaths* paths, const KernelPaths* gradients, int n, int k,
                                                               int slab, unsigned order) {
    unsigned across = 0, slabs = divided(n, slab), sums = divided(n, 256 / R);
    for (int i = 0; i < PATHS; i++) across = max(across, divided(paths->at[i].m, WIDTH));
    run({divided(n, 8 * ROWS)}, 256, order, [&] { down(of->x, *paths, of->h, n, k); });
    run({across, slabs, PATHS}, 256, order, [&] { up(*paths, of->h, n, slab); }, 8);
    int training = 0;
    for (int i = 0; i < PATHS; i++) training += gradients->at[i].dup != nullptr;
    auto kernel = training == PATHS ? grad_up_training : training == 0 ? grad_up_frozen : grad_up_mixed;
    run({across, slabs, PATHS}, 256, order, [&] { kernel(*gradients, of->h, of->part_g, n, slab); }, 8);
    run({sums, 1, PATHS}, 256, order, [&] { sum_g(*gradients, of->part_g, of->h, of->g, of->part_d, n, int(across)); });
    run({divided(k, 32 * DOWN_COLS), slabs}, 256, order, [&] { grad_down(of->dx, of->x, of->g, *gradients, of->part_down, n, k, slab); }, 8);
    // More blocks than any path needs, as where another needs more.
    unsigned blocks = divided(R * k, 64) + divided(across * WIDTH * R, 64 / R * R) + 3;
    run({blocks, 1, PATHS}, 256, order, [&] { finish(*gradients, of->part_down, of->part_d, k, int(slabs), int(slabs), int(sums)); }, 4);
}
