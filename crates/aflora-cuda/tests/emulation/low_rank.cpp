// kernels/low_rank.cu, or kernels/low_rank_tiled.cu, on a CPU.
#include "paths.h"
#if TILED
#include "../../kernels/low_rank_tiled.cu"
static_assert(sizeof(UpTile) == SHAPE.up && sizeof(GradUpTile) == SHAPE.grad_up && sizeof(GradDownTile) == SHAPE.grad_down, "");
static_assert(sizeof(float) * WARPS * DOWN_TOKENS * 8 * GROUPS == SHAPE.down && DOWN_TOKENS == SHAPE.tokens_down && WIDTH == SHAPE.width_down, "");
#else
#include "../../kernels/low_rank.cu"
static_assert(8 * ROWS == SHAPE.tokens_down && 32 * DOWN_COLS == SHAPE.width_down, "");
#endif
static_assert(WIDTH == SHAPE.width && TURNS == aflora::FINISH_TURNS, "");

// Where tests/paths puts them.
struct Tensors {
    const T* x;
    T* dx;
    float *h, *part_g, *g, *part_d, *part_down;
};

// One pass forward over the y of `paths`, and one backward over those of `gradients`, by slabs of so many tokens.
extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, const KernelPaths* paths, const KernelPaths* gradients, int n, int k,
                                                               int slab, unsigned order) {
    unsigned across = 0, slabs = divided(n, slab), sums = divided(n, 256 / R);
    for (int i = 0; i < PATHS; i++) across = max(across, divided(paths->at[i].m, WIDTH));
    run({divided(n, SHAPE.tokens_down)}, 256, order, [&] { down(of->x, *paths, of->h, n, k); });
    run({across, slabs, PATHS}, 256, order, [&] { up(*paths, of->h, n, slab); }, TALL);
#if TILED
    auto kernel = grad_up;
#else
    int training = 0;
    for (int i = 0; i < PATHS; i++) training += gradients->at[i].dup != nullptr;
    auto kernel = training == PATHS ? grad_up_training : training == 0 ? grad_up_frozen : grad_up_mixed;
#endif
    run({across, slabs, PATHS}, 256, order, [&] { kernel(*gradients, of->h, of->part_g, n, slab); }, TALL);
    run({sums, 1, PATHS}, 256, order, [&] { sum_g(*gradients, of->part_g, of->h, of->g, of->part_d, n, int(across)); });
    run({divided(k, SHAPE.width_down), slabs}, 256, order, [&] { grad_down(of->dx, of->x, of->g, *gradients, of->part_down, n, k, slab); }, TALL);
    // More blocks than any path needs, as where another needs more.
    unsigned blocks = divided(R * k, 64) + divided(across * WIDTH * R, 64 / R * R) + 3;
    run({blocks, 1, PATHS}, 64 * TURNS, order, [&] { finish(*gradients, of->part_down, of->part_d, k, int(slabs), int(slabs), int(sums)); }, TURNS);
}
