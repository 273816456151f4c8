// The passes of feed_forward.cu on the tensor cores, as low_rank_tiled.cu has those of low_rank.cu.

#include "path_tiles.cuh"
#include "activation.cuh"

extern "C" __global__ void BOUNDS up_activated(const __grid_constant__ KernelPaths paths, T* activated, const float* h, int n,
                                                                     int slab) {
    T* y = (T*)paths.at[PATH].y;
    up_of(paths, h, n, slab, [&](u64 at, float (&v)[8]) {
        store(y + at, v);
        // Of y as it is read again.
        float slope;
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = activate(rounded(v[j]), slope);
        store(activated + at, v);
    });
}

// `d` is ∂a on the way in and ∂y on the way out.
extern "C" __global__ void BOUNDS grad_down_activated(T* d, const T* y, const float* g, const __grid_constant__ KernelPaths paths,
                                                                            float* part_down, int n, int k, int slab) {
    grad_down_of<true>(d, y, g, paths, part_down, n, k, slab, [](float (&out)[8], float (&in)[8]) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float slope;
            in[j] = activate(in[j], slope);
            out[j] *= slope;
        }
    });
}
