// What kernels of low-rank paths share on the tensor cores, for wide tensors in bf16: as paths.cuh, by tiles of HEIGHT × WIDTH.
// See low_rank_tiled.cu.
//
// Eight components are just as wide as a tile of the tensor cores. They multiply bf16, and the paths' own numbers are fp32:
// each is taken as a sum of two in bf16, which leaves 2^-18 of it behind.

#include "components.cuh"
#include "tensor_cores.cuh"

#define WARPS 8
// A multiprocessor is to hold three blocks.
#define BOUNDS __launch_bounds__(32 * WARPS, 3)
// Columns of a block, sixteen a warp where warps share them out.
#define WIDTH (16 * WARPS)
// Tokens of a block at a time.
#define HEIGHT 96
// Where warps share out both, each has 32 columns, and every other sixteen tokens: so many times.
#define OWN (HEIGHT / 16 / (WARPS / (WIDTH / 32)))
// Vectors of 16 bytes in a row of a tile.
#define UNITS (WIDTH / 8)
// Eights of components of all paths.
#define GROUPS ((ALL + 7) / 8)

// Rows of eight components in two halves.
template <int N> struct Rows {
    uint4 upper[N], lower[N];
};

// The weights of WIDTH columns and components of HEIGHT tokens.
struct UpTile {
    Rows<WIDTH> weights;
    Rows<HEIGHT> tokens;
};

struct GradUpTile {
    uint4 dy[HEIGHT * UNITS];
    Rows<WIDTH> weights;
    Rows<HEIGHT> tokens;
    float g[2][HEIGHT * 8];  // of either half of the columns
};

struct GradDownTile {
    uint4 x[HEIGHT * UNITS];
    Rows<WIDTH> weights[GROUPS];
    Rows<HEIGHT> tokens[GROUPS];
};

#ifndef EMULATED
extern __shared__ uint4 shared[];
#endif

// Tiles are swizzled: eight neighbouring rows of a column of vectors lie in all banks.
__device__ __forceinline__ int at(int row, int unit) { return row * UNITS + (unit ^ (row & 7)); }

// Where the weights of a column lie: the columns of a fragment one after the other. Out of each 32 columns, of four fragments, a
// lane has eight neighbours.
__device__ __forceinline__ int place_of(int column) { return (column & ~31) | (column & 6) << 2 | (column & 24) >> 2 | (column & 1); }

__device__ __forceinline__ float lower_of(u32 word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float upper_of(u32 word) { return __uint_as_float(word & 0xffff0000u); }

__device__ __forceinline__ void split(const float (&v)[8], uint4& upper, uint4& lower) {
    u32 u[4], l[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u[i] = to_bf16(v[2 * i], v[2 * i + 1]);
        l[i] = to_bf16(v[2 * i] - lower_of(u[i]), v[2 * i + 1] - upper_of(u[i]));
    }
    upper = make_uint4(u[0], u[1], u[2], u[3]);
    lower = make_uint4(l[0], l[1], l[2], l[3]);
}

__device__ __forceinline__ void widen(uint4 words, float (&v)[8]) {
    u32 word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = lower_of(word[i]);
        v[2 * i + 1] = upper_of(word[i]);
    }
}

__device__ __forceinline__ uint4 narrow8(const float (&v)[8]) {
    return make_uint4(to_bf16(v[0], v[1]), to_bf16(v[2], v[3]), to_bf16(v[4], v[5]), to_bf16(v[6], v[7]));
}

// Components of `count` tokens from `first` on, of OF_PATHS paths' `from` [OF_PATHS, n, R]; zeros from `end` on.
template <int OF_PATHS> __device__ __forceinline__ void put_tokens(Rows<HEIGHT>* rows, const float* from, int n, int first, int end, int count) {
    constexpr int OF = OF_PATHS * R, EIGHTS = (OF + 7) / 8;
    for (int i = threadIdx.x; i < EIGHTS * count; i += 32 * WARPS) {
        int eight = i / count, token = i % count;
        float v[8] = {};
        if (first + token < end) {
            constexpr int N = R % 4 == 0 ? 4 : 1;
#pragma unroll
            for (int e = 0; e < 8; e += N) {
                int component = 8 * eight + e;
                if (component >= OF) continue;
                const float* p = from + ((u64)(component / R) * n + first + token) * R + component % R;
                if constexpr (N == 4) {
                    float4 four = *(const float4*)p;
                    v[e] = four.x; v[e + 1] = four.y; v[e + 2] = four.z; v[e + 3] = four.w;
                } else {
                    v[e] = *p;
                }
            }
        }
        split(v, rows[eight].upper[token], rows[eight].lower[token]);
    }
}

// s b[c] B[c, ·], and times d where TIMES_D, of a block's columns; where SPREAD, in the order of `place_of`.
template <bool TIMES_D, bool SPREAD> __device__ __forceinline__ void put_up(Rows<WIDTH>& rows, const KernelPath& path, int c0) {
    for (int i = threadIdx.x; i < WIDTH; i += 32 * WARPS) {
        int c = c0 + i;
        float v[8] = {};
        if (c < path.m) {
            float factor = path.b ? path.s * path.b[c] : path.s, own[R];
            load_components(path.up + (u64)c * R, own);
#pragma unroll
            for (int r = 0; r < R; r++) v[r] = own[r] * factor * (TIMES_D && path.d ? path.d[r] : 1.f);
        }
        int place = SPREAD ? place_of(i) : i;
        split(v, rows.upper[place], rows.lower[place]);
    }
}

// Of all paths d[r] A[r, c] of a block's columns, in the order of `place_of`.
__device__ __forceinline__ void put_down(Rows<WIDTH>* rows, const KernelPaths& paths, int c0, int k) {
    for (int i = threadIdx.x; i < GROUPS * WIDTH; i += 32 * WARPS) {
        int eight = i / WIDTH, c = c0 + i % WIDTH;
        float v[8] = {};
#pragma unroll
        for (int e = 0; e < 8; e++) {
            int component = 8 * eight + e;
            if (c >= k || component >= ALL) continue;
            const KernelPath& path = paths.at[component / R];
            v[e] = path.a[(u64)(component % R) * k + c] * (path.d ? path.d[component % R] : 1.f);
        }
        int place = place_of(i % WIDTH);
        split(v, rows[eight].upper[place], rows[eight].lower[place]);
    }
}

// A tile of `x` [.., columns] from row `first` and column `c0` on, zeros from `end` on.
__device__ __forceinline__ void copy_tile(uint4* tile, const T* x, int first, int end, int rows, int c0, int columns) {
    for (int i = threadIdx.x; i < rows * UNITS; i += 32 * WARPS) {
        int row = i / UNITS, unit = i % UNITS;
        bool there = first + row < end && c0 + 8 * unit < columns;
        copy(tile + at(row, unit), there ? x + (u64)(first + row) * columns + c0 + 8 * unit : x, there);
    }
}

// Sixteen tokens' components, the upper halves and then the lower ones along what is summed: what both products with weights
// are of.
__device__ __forceinline__ void load_tokens(u32 (&out)[4], const Rows<HEIGHT>& rows, int first, int lane) {
    load_blocks(out, (lane & 16 ? rows.lower : rows.upper) + first + (lane & 15));
}

// Sixteen rows, as what is summed over: two words of upper halves, two of lower ones.
template <int N> __device__ __forceinline__ void load_rows(u32 (&out)[4], const Rows<N>& rows, int first, int lane) {
    load_transposed(out, (lane & 16 ? rows.lower : rows.upper) + first + (lane & 15));
}

// c += tokens · weights, of 16 tokens and 32 columns from `first` on: a lane's eight of a row, and of the row eight below.
__device__ __forceinline__ void add_components(float (&c)[4][4], const u32 (&tokens)[4], const Rows<WIDTH>& weights, int first, int lane) {
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        u32 w[4];
        load_blocks(w, (lane & 8 ? weights.lower : weights.upper) + first + 8 * (j + (lane >> 4)) + (lane & 7));
        multiply(c[j], tokens, w[0], w[0]);
        multiply(c[j + 1], tokens, w[2], w[2]);
        multiply(c[j], tokens, w[1], w[1]);
        multiply(c[j + 1], tokens, w[3], w[3]);
    }
}

// sums += tileᵀ · tokens, of a warp's sixteen columns and sixteen tokens from `first` on.
__device__ __forceinline__ void add_tokens(float (&sums)[2][4], const u32 (&columns)[4], const u32 (&tokens)[4]) {
    multiply(sums[0], columns, tokens[0], tokens[1]);
    multiply(sums[1], columns, tokens[2], tokens[3]);
}

// Sixteen columns of a tile's tokens from `first` on.
__device__ __forceinline__ void load_columns(u32 (&out)[4], const uint4* tile, int first, int warp, int lane) {
    load_transposed(out, tile + at(first + (lane >> 4) * 8 + (lane & 7), 2 * warp + (lane >> 3 & 1)));
}

// Two rows of 32 columns as `add_components` has them.
__device__ __forceinline__ void to_rows(const float (&c)[4][4], float (&v)[2][8]) {
#pragma unroll
    for (int e = 0; e < 16; e++) v[e >> 3][e & 7] = c[(e & 7) >> 1][(e >> 3) * 2 + (e & 1)];
}

__device__ __forceinline__ void of_rows(float (&c)[4][4], const uint4 (&given)[2]) {
    float v[2][8];
    widen(given[0], v[0]);
    widen(given[1], v[1]);
#pragma unroll
    for (int e = 0; e < 16; e++) c[(e & 7) >> 1][(e >> 3) * 2 + (e & 1)] = v[e >> 3][e & 7];
}

// A lane's place where warps share out columns and tokens: eight columns of a row, and of the row eight below.
struct Own {
    int row, column;
    __device__ __forceinline__ Own() {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        column = 32 * (warp & 3) + 8 * (lane & 3);
        row = 16 * (warp >> 2) + (lane >> 2);
    }
    // The row at its turn `i`.
    __device__ __forceinline__ int at(int i, int half) const { return row + 16 * (WARPS / (WIDTH / 32)) * i + 8 * half; }
};

// What a lane has of `x` [.., columns].
__device__ __forceinline__ void load_own(uint4 (&given)[OWN][2], const T* x, const Own& own, int first, int end, int c0, int columns) {
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first + own.at(i, half), c = c0 + own.column;
            given[i][half] = row < end && c < columns ? *(const uint4*)(x + (u64)row * columns + c) : make_uint4(0, 0, 0, 0);
        }
}

__device__ __forceinline__ int tokens_at(int first, int end) { return min(HEIGHT, (end - first + 15) & ~15); }

// y += s b ⊙ B (d ⊙ h) of a block's path, whose numbers `write` puts to their place, eight at a time. There are as many blocks
// across as the widest path asks for.
template <typename Write> __device__ __forceinline__ void up_of(const KernelPaths& paths, const float* h, int n, int slab, Write write) {
    const KernelPath& path = paths.at[PATH];
    UpTile& tile = *(UpTile*)shared;
    const T* y = (const T*)path.y;
    int m = path.m, c0 = blockIdx.x * WIDTH, lane = threadIdx.x & 31, begin = blockIdx.y * slab;
    int end = min(path.rows, begin + slab);
    if (c0 >= m || begin >= end) return previous_done();
    h += (u64)PATH * n * R;
    Own own;
    for (int first = begin; first < end; first += HEIGHT) {
        uint4 given[OWN][2];
        load_own(given, y, own, first, end, c0, m);
        if (first == begin) {
            put_up<true, true>(tile.weights, path, c0);
            previous_done();
        }
        put_tokens<1>(&tile.tokens, h, n, first, end, tokens_at(first, end));
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int row = own.at(i, 0);
            if (first + (row & ~15) >= end) break;
            u32 tokens[4];
            float sums[4][4], v[2][8];
            load_tokens(tokens, tile.tokens, row & ~15, lane);
            of_rows(sums, given[i]);
            add_components(sums, tokens, tile.weights, own.column & ~31, lane);
            to_rows(sums, v);
#pragma unroll
            for (int half = 0; half < 2; half++)
                if (first + row + 8 * half < end && c0 + own.column < m) write((u64)(first + row + 8 * half) * m + c0 + own.column, v[half]);
        }
        __syncthreads();
    }
}

// ∂x += Σ Aᵀ (d ⊙ g) over all paths, and per slab part_down, Σ g[·, r] x[·, c] as [slabs, ALL, k], where an A trains. In between
// `change` may turn a stretch of ∂x and of x into others; it is what reads x where READS.
template <bool READS, typename Change>
__device__ __forceinline__ void grad_down_of(T* dx, const T* x, const float* g, const KernelPaths& paths, float* part_down, int n, int k, int slab,
                                             Change change) {
    next_may_begin();
    GradDownTile& tile = *(GradDownTile*)shared;
    int c0 = blockIdx.x * WIDTH, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, begin = blockIdx.y * slab;
    int end = min(n, begin + slab);
    Own own;
    float sums[GROUPS][2][4] = {};
    for (int first = begin; first < end; first += HEIGHT) {
        int rows = tokens_at(first, end);
        if (READS || part_down) copy_tile(tile.x, x, first, end, rows, c0, k);
        uint4 given[OWN][2];
        if (dx) load_own(given, dx, own, first, end, c0, k);
        if (dx && first == begin) put_down(tile.weights, paths, c0, k);
        put_tokens<PATHS>(tile.tokens, g, n, first, end, rows);
        copied();
        __syncthreads();
        if (dx) {
#pragma unroll
            for (int i = 0; i < OWN; i++) {
                int row = own.at(i, 0);
                if ((row & ~15) >= rows) break;
                float out[4][4], v[2][8];
                of_rows(out, given[i]);
#pragma unroll
                for (int q = 0; q < GROUPS; q++) {
                    u32 tokens[4];
                    load_tokens(tokens, tile.tokens[q], row & ~15, lane);
                    add_components(out, tokens, tile.weights[q], own.column & ~31, lane);
                }
                to_rows(out, v);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    if (READS) {
                        uint4& beside = tile.x[at(row + 8 * half, own.column / 8)];
                        float in[8];
                        widen(beside, in);
                        change(v[half], in);
                        beside = narrow8(in);
                    }
                    if (first + row + 8 * half < end && c0 + own.column < k)
                        store(dx + (u64)(first + row + 8 * half) * k + c0 + own.column, v[half]);
                }
            }
        }
        if (READS) {
            // Where there is no gradient of x, what the paths read is made nevertheless.
            if (!dx) {
                for (int i = threadIdx.x; i < rows * UNITS; i += 32 * WARPS) {
                    float in[8], unused[8] = {};
                    widen(tile.x[i], in);
                    change(unused, in);
                    tile.x[i] = narrow8(in);
                }
            }
            __syncthreads();
        }
        if (part_down) {
            for (int token = 0; token < rows; token += 16) {
                u32 columns[4], tokens[4];
                load_columns(columns, tile.x, token, warp, lane);
#pragma unroll
                for (int q = 0; q < GROUPS; q++) {
                    load_rows(tokens, tile.tokens[q], token, lane);
                    add_tokens(sums[q], columns, tokens);
                }
            }
        }
        __syncthreads();
    }
    if (!part_down) return;
#pragma unroll
    for (int q = 0; q < GROUPS; q++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int component = 8 * q + 2 * (lane & 3) + (e & 1), c = c0 + 16 * warp + (lane >> 2) + 8 * (e >> 1);
            if (component < ALL && c < k && paths.at[component / R].da)
                part_down[((u64)blockIdx.y * ALL + component) * k + c] = sums[q][0][e] + sums[q][1][e];
        }
}
