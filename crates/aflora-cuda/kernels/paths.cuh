// What kernels of low-rank paths share: passes over x, over y and over their gradients, of PATHS paths of rank R each. See
// low_rank.cu for what they compute.

#include "components.cuh"

// Columns a thread: what it keeps in registers is COLS × R, and where it keeps all paths' DOWN_COLS × ALL.
#define COLS (R <= 4 ? 8 : 4)
#define DOWN_COLS (ALL <= 4 ? 8 : ALL <= 8 ? 4 : 2)
// To the next power of two.
#define POWER(N) (N <= 1 ? 1 : N <= 2 ? 2 : N <= 4 ? 4 : N <= 8 ? 8 : 16)
#define RP POWER(R)

// A warp takes ROWS tokens, so that what it reads of A serves all of them.
#define ROWS (ALL <= 8 ? 4 : 2)

// Tokens that a thread has in flight at once: one after the other it would wait for memory.
#define U 4
// Columns of a block of (32, 8) threads.
#define WIDTH (32 * COLS)
// A thread's COLS rows of B in shared memory; odd, so that 32 threads read 32 banks.
#define STRIDE (COLS * R + 1)
#define SHARED (32 * STRIDE > 8 * WIDTH ? 32 * STRIDE : 8 * WIDTH)

// A thread's own rows of B, [COLS, R]. They are fetched by the whole block, since rows of
// neighbours lie far apart.
__device__ __forceinline__ void own_up(float (&w)[COLS][R], float* shared, const float* up, int c0, int m) {
    int count = min(WIDTH, m - c0) * R;
    for (int i = (threadIdx.y * 32 + threadIdx.x) * 4; i < count; i += 1024) {
        float v[4];
        load_float(up + (u64)c0 * R + i, v);
#pragma unroll
        for (int e = 0; e < 4; e++) shared[(i + e) / (COLS * R) * STRIDE + (i + e) % (COLS * R)] = v[e];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < COLS; j++)
#pragma unroll
        for (int r = 0; r < R; r++) w[j][r] = shared[threadIdx.x * STRIDE + j * R + r];
}

// s b[c] of a thread's columns.
__device__ __forceinline__ void own_scales(float (&sb)[COLS], const float* b, float s, int c) {
    if (b) load_float(b + c, sb);
#pragma unroll
    for (int j = 0; j < COLS; j++) sb[j] = b ? s * sb[j] : s;
}

__device__ __forceinline__ void own_d(float (&dr)[R], const float* d) {
#pragma unroll
    for (int r = 0; r < R; r++) dr[r] = d ? d[r] : 1.f;
}

// y += s b ⊙ B (d ⊙ h) of a block's path, whose numbers `write` puts to their place, eight or four at a time.
// Blocks of (32, 8): 32 stretches of columns, tokens in turn. There are as many across as the widest path asks for.
template <typename Write> __device__ __forceinline__ void up_of(const KernelPaths& paths, const float* h, int n, int slab, float* shared, Write write) {
    const KernelPath& path = paths.at[PATH];
    T* y = (T*)path.y;
    int m = path.m, c = blockIdx.x * WIDTH + threadIdx.x * COLS;
    if (blockIdx.x * WIDTH >= m) return;
    h += (u64)PATH * n * R;
    float w[COLS][R], sb[COLS], dr[R];
    own_up(w, shared, path.up, blockIdx.x * WIDTH, m);
    if (c >= m) return;
    own_scales(sb, path.b, path.s, c);
    own_d(dr, path.d);
#pragma unroll
    for (int j = 0; j < COLS; j++)
#pragma unroll
        for (int r = 0; r < R; r++) w[j][r] *= sb[j] * dr[r];
    int end = min(path.rows, (int)(blockIdx.y + 1) * slab);
    for (int row = blockIdx.y * slab + threadIdx.y; row < end; row += 8 * U) {
        float v[U][COLS], hr[U][R];
#pragma unroll
        for (int u = 0; u < U; u++) {
            int at = min(row + 8 * u, end - 1);
            load(y + (u64)at * m + c, v[u]);
            load_components(h + (u64)at * R, hr[u]);
        }
#pragma unroll
        for (int u = 0; u < U; u++) {
#pragma unroll
            for (int j = 0; j < COLS; j++)
#pragma unroll
                for (int r = 0; r < R; r++) v[u][j] += w[j][r] * hr[u][r];
            if (row + 8 * u < end) write((u64)(row + 8 * u) * m + c, v[u]);
        }
    }
}

// Sums what the eight warps of a block have for its columns, N a thread, and writes it.
template <int N> __device__ __forceinline__ void write_columns(const float (&own)[N], float* shared, float* out, int c0, int columns) {
    __syncthreads();
    store_float(shared + threadIdx.y * 32 * N + threadIdx.x * N, own);
    __syncthreads();
    for (int i = threadIdx.y * 32 + threadIdx.x; i < 32 * N; i += 256) {
        if (c0 + i >= columns) break;
        float sum = 0.f;
#pragma unroll
        for (int y = 0; y < 8; y++) sum += shared[y * 32 * N + i];
        out[c0 + i] = sum;
    }
}

// ∂x += Σ Aᵀ (d ⊙ g) over all paths, and per slab part_down, Σ g[·, r] x[·, c] as [slabs, ALL, k], where an A trains. In between
// `change` may turn a stretch of ∂x and of x into others; it is what reads x where READS.
// Blocks of (32, 8), of DOWN_COLS columns a thread.
template <bool READS, typename Change>
__device__ __forceinline__ void grad_down_of(T* dx, const T* x, const float* g, const KernelPaths& paths, float* part_down, int n, int k, int slab,
                                             float* shared, Change change) {
    constexpr int V = 2;
    int c0 = blockIdx.x * 32 * DOWN_COLS, c = c0 + threadIdx.x * DOWN_COLS;
    bool inside = c < k;
    float w[ALL][DOWN_COLS] = {}, acc[ALL][DOWN_COLS] = {};
    if (inside && dx) {
#pragma unroll
        for (int r = 0; r < ALL; r++) {
            const KernelPath& path = paths.at[r / R];
            load_float(path.a + (u64)(r % R) * k + c, w[r]);
            float of_d = path.d ? path.d[r % R] : 1.f;
#pragma unroll
            for (int j = 0; j < DOWN_COLS; j++) w[r][j] *= of_d;
        }
    }
    int end = min(n, (int)(blockIdx.y + 1) * slab);
    for (int row = blockIdx.y * slab + threadIdx.y; inside && row < end; row += 8 * V) {
        float gr[V][PATHS][R], out[V][DOWN_COLS], in[V][DOWN_COLS];
#pragma unroll
        for (int u = 0; u < V; u++) {
            bool there = row + 8 * u < end;
            int at = min(row + 8 * u, end - 1);
#pragma unroll
            for (int i = 0; i < PATHS; i++) {
                load_components(g + ((u64)i * n + at) * R, gr[u][i]);
#pragma unroll
                for (int r = 0; r < R; r++) gr[u][i][r] = there ? gr[u][i][r] : 0.f;
            }
            if (dx) load(dx + (u64)at * k + c, out[u]);
            if (READS || part_down) load(x + (u64)at * k + c, in[u]);
        }
#pragma unroll
        for (int u = 0; u < V; u++) {
            if (dx) {
#pragma unroll
                for (int j = 0; j < DOWN_COLS; j++)
#pragma unroll
                    for (int r = 0; r < ALL; r++) out[u][j] += w[r][j] * gr[u][r / R][r % R];
            }
            change(out[u], in[u]);
            if (dx && row + 8 * u < end) store(dx + (u64)(row + 8 * u) * k + c, out[u]);
            if (part_down) {
#pragma unroll
                for (int r = 0; r < ALL; r++)
#pragma unroll
                    for (int j = 0; j < DOWN_COLS; j++) acc[r][j] += in[u][j] * gr[u][r / R][r % R];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ALL; r++)
        if (paths.at[r / R].da) write_columns(acc[r], shared, part_down + ((u64)blockIdx.y * ALL + r) * k, c0, k);
}
