// The passes of low_rank.cu on the tensor cores, for bf16 and GPUs of compute capability 8.0 or later: the same sums, of the same
// tensors, of up to 24 components together. What is read is multiplied where it lies, so that a pass takes little more than
// reading and writing does.
//
// A lane reads eight neighbours of a row. In `down` they are what a product sums over, whose order does not matter so long as
// A's is the same; where a fragment must have tokens along its other side, tiles pass through shared memory.

#include "path_tiles.cuh"
#include "path_sums.cuh"

// Tokens of a block of `down`, whose warps share out columns, 32 of them in turn.
#define DOWN_TOKENS 16
// Stretches of columns that a warp has in flight at once.
#define FLIGHT 3

extern "C" __global__ void BOUNDS down(const T* x, const __grid_constant__ KernelPaths paths, float* h, int n, int k) {
    next_may_begin();
    constexpr int TILES = DOWN_TOKENS / 16, COMPONENTS = 8 * GROUPS;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, first = blockIdx.x * DOWN_TOKENS;
    const float* a[GROUPS];
#pragma unroll
    for (int q = 0; q < GROUPS; q++) {
        int component = 8 * q + (lane >> 2);
        a[q] = component < ALL ? paths.at[component / R].a + (u64)(component % R) * k : nullptr;
    }
    float sums[TILES][GROUPS][4] = {};
    for (int start = 32 * warp; start < k; start += 32 * WARPS * FLIGHT) {
        uint4 in[FLIGHT][TILES][2];
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) {
            int c = start + 32 * WARPS * f + 8 * (lane & 3);
#pragma unroll
            for (int i = 0; i < TILES; i++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int row = first + 16 * i + 8 * half + (lane >> 2);
                    in[f][i][half] = row < n && c < k ? *(const uint4*)(x + (u64)row * k + c) : make_uint4(0, 0, 0, 0);
                }
        }
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) {
            int c = start + 32 * WARPS * f + 8 * (lane & 3);
#pragma unroll
            for (int q = 0; q < GROUPS; q++) {
                float v[8] = {};
                if (a[q] && c < k) load_float(a[q] + c, v);
                uint4 upper, lower;
                split(v, upper, lower);
#pragma unroll
                for (int i = 0; i < TILES; i++) {
                    uint4 one = in[f][i][0], other = in[f][i][1];
                    u32 front[4] = {one.x, other.x, one.y, other.y}, back[4] = {one.z, other.z, one.w, other.w};
                    multiply(sums[i][q], front, upper.x, upper.y);
                    multiply(sums[i][q], front, lower.x, lower.y);
                    multiply(sums[i][q], back, upper.z, upper.w);
                    multiply(sums[i][q], back, lower.z, lower.w);
                }
            }
        }
    }
    float* all = (float*)shared;  // [WARPS, DOWN_TOKENS, COMPONENTS]
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int q = 0; q < GROUPS; q++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int token = 16 * i + 8 * (e >> 1) + (lane >> 2), component = 8 * q + 2 * (lane & 3) + (e & 1);
                all[(warp * DOWN_TOKENS + token) * COMPONENTS + component] = sums[i][q][e];
            }
    __syncthreads();
    for (int i = threadIdx.x; i < DOWN_TOKENS * COMPONENTS; i += 32 * WARPS) {
        int row = first + i / COMPONENTS, component = i % COMPONENTS;
        if (row >= n || component >= ALL) continue;
        float sum = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += all[w * DOWN_TOKENS * COMPONENTS + i];
        h[((u64)(component / R) * n + row) * R + component % R] = sum;
    }
}

extern "C" __global__ void BOUNDS up(const __grid_constant__ KernelPaths paths, const float* h, int n, int slab) {
    T* y = (T*)paths.at[PATH].y;
    up_of(paths, h, n, slab, [&](u64 at, const float (&v)[8]) { store(y + at, v); });
}

// Of one path: g's share of a block's columns, part_g [PATHS, blocks across, n, R]; and of its tokens Σ ∂y[·, c] h[·, r] as
// part_up [slabs, R, m], or, where B does not train, Σ ∂y[·, c] Σ_r d B h[·, r] as [slabs, m].
extern "C" __global__ void BOUNDS grad_up(const __grid_constant__ KernelPaths paths, const float* h, float* part_g, int n,
                                                                int slab) {
    next_may_begin();
    const KernelPath& path = paths.at[PATH];
    GradUpTile& tile = *(GradUpTile*)shared;
    const T* dy = (const T*)path.y;
    int m = path.m, c0 = blockIdx.x * WIDTH, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int begin = blockIdx.y * slab, end = min(path.rows, begin + slab);
    if (c0 >= m) return;
    h += (u64)PATH * n * R;
    part_g += ((u64)PATH * gridDim.x + blockIdx.x) * n * R;
    float sums[2][4] = {};
    for (int first = begin; first < end; first += HEIGHT) {
        int rows = tokens_at(first, end);
        copy_tile(tile.dy, dy, first, end, rows, c0, m);
        if (first == begin) put_up<false, false>(tile.weights, path, c0);
        put_tokens<1>(&tile.tokens, h, n, first, end, rows);
        copied();
        __syncthreads();
        for (int task = warp; task < rows / 8; task += WARPS) {
            int token = task / 2 * 16, half = task & 1;
            float g[2][4] = {};
#pragma unroll
            for (int step = 0; step < WIDTH / 32; step++) {
                int column = half * (WIDTH / 2) + 16 * step;
                u32 tokens[4], weights[4];
                load_blocks(tokens, tile.dy + at(token + (lane & 15), column / 8 + (lane >> 4)));
                load_rows(weights, tile.weights, column, lane);
                multiply(g[0], tokens, weights[0], weights[1]);
                multiply(g[1], tokens, weights[2], weights[3]);
            }
#pragma unroll
            for (int e = 0; e < 4; e++) tile.g[half][(token + (lane >> 2) + 8 * (e >> 1)) * 8 + 2 * (lane & 3) + (e & 1)] = g[0][e] + g[1][e];
        }
        for (int token = 0; token < rows; token += 16) {
            u32 columns[4], tokens[4];
            load_columns(columns, tile.dy, token, warp, lane);
            load_rows(tokens, tile.tokens, token, lane);
            add_tokens(sums, columns, tokens);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < 8 * rows; i += 32 * WARPS) {
            int row = first + i / 8, r = i % 8;
            if (row < end && r < R) part_g[(u64)row * R + r] = tile.g[0][i] + tile.g[1][i];
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int c = c0 + 16 * warp + (lane >> 2) + 8 * half;
        float product = 0.f;
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int r = 2 * (lane & 3) + e;
            if (r >= R || c >= m) continue;
            float sum = sums[0][2 * half + e] + sums[1][2 * half + e];
            if (path.dup) {
                path.part_up[((u64)blockIdx.y * R + r) * m + c] = sum;
            } else {
                product += sum * path.up[(u64)c * R + r] * (path.d ? path.d[r] : 1.f);
            }
        }
        if (path.dup) continue;
        product += __shfl_xor_sync(~0u, product, 1);
        product += __shfl_xor_sync(~0u, product, 2);
        if ((lane & 3) == 0 && c < m) path.part_up[(u64)blockIdx.y * m + c] = product;
    }
}

extern "C" __global__ void BOUNDS grad_down(T* dx, const T* x, const float* g, const __grid_constant__ KernelPaths paths,
                                                                  float* part_down, int n, int k, int slab) {
    grad_down_of<false>(dx, x, g, paths, part_down, n, k, slab, [](float (&)[8], float (&)[8]) {});
}
