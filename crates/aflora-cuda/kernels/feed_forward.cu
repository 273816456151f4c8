// What stands between two layers with low-rank paths of one rank R, z = W2 a + .. of a = act(y), y = W1 x + ..: the activation in
// the same pass as the first layer's path forward, and as the second layer's path backward. Beside these, low_rank.cu's
// kernels do what there is to do.
//
//   up_activated          y += s b ⊙ B (d ⊙ h), a = act(y)                  reads and writes y, writes a
//   grad_down_activated   ∂y = (∂a + Aᵀ (d ⊙ g)) ⊙ act'(y);  g ⊙ act(y), a slab of tokens at a time      reads y, reads ∂a and writes ∂y
//
// y [n, m] is kept for the gradient, a is made of it again. feed_forward_tiled.cu has both by tiles.

#include "paths.cuh"
#include "activation.cuh"

extern "C" __global__ void __launch_bounds__(256, 2) up_activated(const __grid_constant__ KernelPaths paths, T* activated, const float* h, int n,
                                                                  int slab) {
    __shared__ __align__(16) float shared[SHARED];
    T* y = (T*)paths.at[PATH].y;
    up_of(paths, h, n, slab, shared, [&](u64 at, float (&v)[COLS]) {
        store(y + at, v);
        // Of y as it is read again.
        float slope;
#pragma unroll
        for (int j = 0; j < COLS; j++) v[j] = activate(rounded(v[j]), slope);
        store(activated + at, v);
    });
}

// `d` is ∂a on the way in and ∂y on the way out.
extern "C" __global__ void __launch_bounds__(256, 2) grad_down_activated(T* d, const T* y, const float* g, const __grid_constant__ KernelPaths paths,
                                                                         float* part_down, int n, int k, int slab) {
    __shared__ __align__(16) float shared[8 * 32 * DOWN_COLS];
    grad_down_of<true>(d, y, g, paths, part_down, n, k, slab, shared, [](float (&out)[DOWN_COLS], float (&in)[DOWN_COLS]) {
#pragma unroll
        for (int j = 0; j < DOWN_COLS; j++) {
            float slope;
            in[j] = rounded(activate(in[j], slope));
            out[j] *= slope;
        }
    });
}
