// Paths beside frozen weights, y += s · b ⊙ B (d ⊙ (A x)), and their gradients: PATHS of them that read one x,
// each of a rank R of at most 8; for more, libtorch's products on the tensor cores are as fast or faster.
//
// What costs at such a rank is reading x and y. So each pass over one of them does everything that needs it:
//
//   down       h = A x, of all paths                      reads x
//   up         y += s b ⊙ B (d ⊙ h)                       reads and writes y
//   grad_up    g = Bᵀ (s b ⊙ ∂y), a stretch of columns at a time;  ∂y ⊙ h, a slab of tokens at a time      reads ∂y
//   sum_g      sums the stretches of g
//   grad_down  ∂x += Σ Aᵀ (d ⊙ g) over all paths;   g ⊙ x, a slab of tokens at a time       reads x, reads and writes ∂x
//   finish     sums the slabs: the gradients of A, B, d, b
//
// Sums over tokens go slab by slab in a fixed order, so that a run repeats to the bit.
//
// x [n, k] and y [rows, m] are wide (T); A [R, k], B [m, R], d [R], b [m], h and g [PATHS, n, R] are fp32.
// d and b may be null (LoRA). Blocks that are of one path have its number as z.
//
// Here sums are made in fp32 by every thread. Where wide tensors are bf16 and the GPU multiplies them on tensor cores,
// low_rank_tiled.cu has the same passes.

#include "paths.cuh"
#include "path_sums.cuh"

extern "C" __global__ void __launch_bounds__(256) down(const T* x, const __grid_constant__ KernelPaths paths, float* h, int n, int k) {
    int lane = threadIdx.x & 31;
    int first = (blockIdx.x * 8 + (threadIdx.x >> 5)) * ROWS;
    if (first >= n) return;
    float acc[ROWS][POWER(ALL)] = {};
    for (int c = lane * 8; c < k; c += 256) {
        float v[ROWS][8];
#pragma unroll
        for (int i = 0; i < ROWS; i++) load(x + (u64)min(first + i, n - 1) * k + c, v[i]);
#pragma unroll
        for (int r = 0; r < ALL; r++) {
            float w[8];
            load_float(paths.at[r / R].a + (u64)(r % R) * k + c, w);
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int e = 0; e < 8; e++) acc[i][r] += v[i][e] * w[e];
        }
    }
    int r = warp_sums_index<POWER(ALL)>(lane);
    bool writes = (lane & (32 / POWER(ALL) - 1)) == 0 && r < ALL;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        warp_sums(acc[i], lane);
        if (writes && first + i < n) h[((u64)(r / R) * n + first + i) * R + r % R] = acc[i][0];
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) up(const __grid_constant__ KernelPaths paths, const float* h, int n, int slab) {
    __shared__ __align__(16) float shared[SHARED];
    T* y = (T*)paths.at[PATH].y;
    up_of(paths, h, n, slab, shared, [&](u64 at, const float (&v)[COLS]) { store(y + at, v); });
}

// Of one path: g's share of a block's columns, part_g [blocks across, n, R]; and of
// its tokens Σ ∂y[·, c] h[·, r] as part_up [slabs, R, m], or, where B does not train,
// Σ ∂y[·, c] Σ_r d B h[·, r] as [slabs, m], which is all that b's gradient needs.
template <bool TRAINS_UP>
__device__ __forceinline__ void grad_up_of(const KernelPath& path, const float* h, float* part_g, int n, int slab, float* shared) {
    constexpr int SUMS = TRAINS_UP ? R : 1;
    const T* dy = (const T*)path.y;
    int m = path.m, lane = threadIdx.x, c0 = blockIdx.x * WIDTH, c = c0 + lane * COLS;
    bool inside = c < m;
    float w[COLS][R], sb[COLS], dr[R], acc[SUMS][COLS] = {};
    own_up(w, shared, path.up, c0, m);
    own_d(dr, path.d);
    if (inside) own_scales(sb, path.b, path.s, c);
    int end = min(path.rows, (int)(blockIdx.y + 1) * slab);
    int own = warp_sums_index<U * RP>(lane);
    bool writes = (lane & (32 / (U * RP) - 1)) == 0 && own % RP < R;
    for (int row = blockIdx.y * slab + threadIdx.y; row < end; row += 8 * U) {
        float v[U][COLS] = {}, hr[U][R], sums[U * RP] = {};
#pragma unroll
        for (int u = 0; u < U; u++) {
            int at = min(row + 8 * u, end - 1);
            if (inside && row + 8 * u < end) load(dy + (u64)at * m + c, v[u]);
            load_components(h + (u64)at * R, hr[u]);
#pragma unroll
            for (int r = 0; r < R; r++)
                if (!TRAINS_UP) hr[u][r] *= dr[r];
        }
        if (inside) {
#pragma unroll
            for (int u = 0; u < U; u++)
#pragma unroll
                for (int j = 0; j < COLS; j++) {
                    float path = 0.f, scaled = v[u][j] * sb[j];
#pragma unroll
                    for (int r = 0; r < R; r++) {
                        sums[u * RP + r] += scaled * w[j][r];
                        if (TRAINS_UP) acc[r % SUMS][j] += v[u][j] * hr[u][r];
                        else path += w[j][r] * hr[u][r];
                    }
                    if (!TRAINS_UP) acc[0][j] += v[u][j] * path;
                }
        }
        warp_sums(sums, lane);
        int at = row + 8 * (own / RP);
        if (writes && at < end) part_g[((u64)blockIdx.x * n + at) * R + own % RP] = sums[0];
    }
#pragma unroll
    for (int r = 0; r < SUMS; r++) write_columns(acc[r], shared, path.part_up + ((u64)blockIdx.y * SUMS + r) * m, c0, m);
}

// Blocks as of `up`. part_g is [PATHS, blocks across, n, R]. Of paths whose B trains, of such whose B does not, or of both: what
// does for both has no registers for all that it holds.
template <bool TRAINING, bool FROZEN>
__device__ __forceinline__ void grad_up_of_paths(const KernelPaths& paths, const float* h, float* part_g, int n, int slab, float* shared) {
    const KernelPath& path = paths.at[PATH];
    if (blockIdx.x * WIDTH >= path.m) return;
    h += (u64)PATH * n * R;
    part_g += (u64)PATH * gridDim.x * n * R;
    if (TRAINING && (!FROZEN || path.dup)) {
        grad_up_of<true>(path, h, part_g, n, slab, shared);
    } else {
        grad_up_of<false>(path, h, part_g, n, slab, shared);
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) grad_up_training(const __grid_constant__ KernelPaths paths, const float* h, float* part_g, int n,
                                                                      int slab) {
    __shared__ __align__(16) float shared[SHARED];
    grad_up_of_paths<true, false>(paths, h, part_g, n, slab, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) grad_up_frozen(const __grid_constant__ KernelPaths paths, const float* h, float* part_g, int n,
                                                                    int slab) {
    __shared__ __align__(16) float shared[SHARED];
    grad_up_of_paths<false, true>(paths, h, part_g, n, slab, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) grad_up_mixed(const __grid_constant__ KernelPaths paths, const float* h, float* part_g, int n,
                                                                   int slab) {
    __shared__ __align__(16) float shared[SHARED];
    grad_up_of_paths<true, true>(paths, h, part_g, n, slab, shared);
}

extern "C" __global__ void __launch_bounds__(256, 2) grad_down(T* dx, const T* x, const float* g, const __grid_constant__ KernelPaths paths,
                                                            float* part_down, int n, int k, int slab) {
    __shared__ __align__(16) float shared[8 * 32 * DOWN_COLS];
    grad_down_of<false>(dx, x, g, paths, part_down, n, k, slab, shared, [](float (&)[DOWN_COLS], float (&)[DOWN_COLS]) {});
}
