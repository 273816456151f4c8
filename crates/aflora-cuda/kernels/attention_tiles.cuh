// A tile of disentangled attention: what of it lies in shared memory and how it comes there, the scores of its pairs, and which
// of them dropout lets stay. See disentangled_tiled.cu.
//
// The distances of a tile are ROWS + COLS - 1 neighbours, so the rows of positions that it reads are a
// window of at most as many (`rows` falls by 0 or 1 a step). Tokens are multiplied with the
// window on the tensor cores, 16 tokens a warp, into shared memory; a pair reads there the column of its
// distance. Far away a window is one row.

#include "tensor_cores.cuh"

// Whether there may be positions. Without them a tile is smaller, and more blocks have room at once.
#ifndef POSITIONS
#define POSITIONS 1
#endif
// Whether tiles of padding behind a text are left out. To look for its end takes longer than that saves where texts are short.
#ifndef SKIPS
#define SKIPS 1
#endif

#define WARPS (POSITIONS || SIZE > 64 ? 4 : 2)
#define THREADS (32 * WARPS)
#define ROWS (16 * WARPS)
#define COLS (SIZE > (POSITIONS ? 64 : 32) ? 32 : 64)
#define STEPS (SIZE / 16)
#define TILES (COLS / 8)
#define BLOCKS (COLS / 16)
// Vectors of 16 bytes in a row of a tile.
#define UNITS (SIZE / 8)
// Distances between ROWS rows and COLS columns: one that nobody looks at, without positions.
#define DISTANCES (POSITIONS ? ROWS + COLS - 1 : 1)
// Scores of 16 tokens against their own window: 16 + COLS - 1 columns at most, in whole blocks of 16. With gradients of
// scores by distance, one more.
#define PITCH (16 + COLS + 8)
// Whether gradients hold the own side's tokens in registers, so that more blocks have room at once: keys have two sums in theirs.
#define HELD(KEYS) (SIZE <= ((KEYS) ? (POSITIONS ? 0 : 32) : 64))
// Floats in a row of scores, in whose room a token lies on its way into registers; where gradients hold theirs, two of it.
#define OWN_FLOATS (HELD(false) ? SIZE : SIZE / 2)
#define SCORES (POSITIONS && PITCH > OWN_FLOATS ? PITCH : OWN_FLOATS)
#define LOG2_E 1.4426950408889634f
// No mask is lower: what is masked in a text of nothing else still has a finite sum.
#define LOWEST -30000.f

struct Attention {
    const T* query;
    const T* key;
    const T* value;
    const T* pos_key;    // null: no c2p
    const T* pos_query;  // null: no p2c
    const T* mask;       // [batch, L]
    const int* rows;     // [2 L - 1]: the row of positions for each distance
    const int* edges;    // [positions + 1]: the first distance whose row is less
    int L;
    int positions;
    float scale;
    u32 threshold;
    float keep;
    Random where;
};

// Shared memory. Tiles are swizzled: eight neighbouring rows of a column of vectors lie in all banks.
struct Tile {
    uint4 x[COLS * UNITS];           // keys or queries
    uint4 y[COLS * UNITS];           // values or gradients of the output
    uint4 own[DISTANCES * UNITS];    // the window that the own side's tokens are compared with
    uint4 other[DISTANCES * UNITS];  // and the other side's
    // Of a warp, 16 tokens against a window; before the first tile, the own side's tokens on their way into registers.
    float scores[ROWS * SCORES];
    float a[COLS], b[COLS];  // of a column: its mask; or its log-sum-exp and delta
    int place[DISTANCES];    // of a distance: its row in the window
    int edge[DISTANCES + 1];
};

extern __shared__ uint4 shared[];

__device__ __forceinline__ int at(int row, int unit) { return row * UNITS + (unit ^ (UNITS >= 8 ? row & 7 : row >> 1 & 3)); }

// `rows` rows to a tile, zeros beyond `count`. A thread's rows lie a multiple of the swizzle's period apart.
__device__ __forceinline__ void fetch(uint4* to, const T* from, int rows, int count, int stride) {
    const int apart = THREADS / UNITS;
    int row = threadIdx.x / UNITS, unit = threadIdx.x % UNITS;
    const T* next = from + row * stride + unit * 8;
    for (to += at(row, unit); row < rows; row += apart) {
        copy(to, row < count ? next : from, row < count);
        to += THREADS;
        next += apart * stride;
    }
}

// 16 rows of a tile from `row` on as the left factor.
__device__ __forceinline__ void left(u32 (&a)[4], const uint4* tile, int row, int step) {
    int lane = threadIdx.x & 31;
    load_blocks(a, tile + at(row + (lane & 15), 2 * step + (lane >> 4)));
}

// c += the left factor times 16 rows from `row` on, none beyond `last`.
__device__ __forceinline__ void times_rows(float (&c)[2][4], const u32 (&a)[4], const uint4* tile, int row, int last, int step) {
    int lane = threadIdx.x & 31;
    u32 b[4];
    load_blocks(b, tile + at(min(row + (lane & 7) + (lane >> 4) * 8, last), 2 * step + (lane >> 3 & 1)));
    multiply(c[0], a, b[0], b[1]);
    multiply(c[1], a, b[2], b[3]);
}

// out += weights · tile, [16, COLS] · [COLS, SIZE].
__device__ __forceinline__ void accumulate(float (&out)[SIZE / 8][4], const float (&weights)[TILES][4], const uint4* tile) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int m = 0; m < BLOCKS; m++) {
        u32 a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = to_bf16(weights[2 * m + i / 2][i % 2 * 2], weights[2 * m + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < SIZE / 16; n++) {
            u32 b[4];
            load_transposed(b, tile + at(16 * m + (lane & 15), 2 * n + (lane >> 4)));
            multiply(out[2 * n], a, b[0], b[1]);
            multiply(out[2 * n + 1], a, b[2], b[3]);
        }
    }
}

// [16, SIZE] of a warp to its rows, times a factor for each of a lane's two.
__device__ __forceinline__ void put(T* to, const float (&from)[SIZE / 8][4], int first, int L, int stride, float factor0, float factor1) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = first + lane / 4 + 8 * h;
        float factor = h ? factor1 : factor0;
        if (row < L) {
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++)
                *(u32*)(to + (u64)row * stride + 8 * n + lane % 4 * 2) = to_bf16(from[n][2 * h] * factor, from[n][2 * h + 1] * factor);
        }
    }
}

// What a block knows of where it is. KEYS: its own side are keys.
template <bool KEYS> struct Place {
    const Attention& of;
    int L, o0, stride, lane, warp, g, t;  // g, t: the lane's row and pair of columns
    u64 text, lines;                      // elements before the text's head in tokens, and in [batch, heads, L]
    int low, count;                       // the window: its first row, how many
    int near, far;                        // the rows at the ends of the next
    int end;                              // behind the last key that is seen, once that is found

    __device__ __forceinline__ Place(const Attention& of) : of(of), L(of.L), o0(blockIdx.x * ROWS), stride(gridDim.y * SIZE) {
        lane = threadIdx.x & 31;
        warp = threadIdx.x >> 5;
        g = lane >> 2;
        t = lane & 3;
        text = (u64)blockIdx.z * L * stride + blockIdx.y * SIZE;
        lines = ((u64)blockIdx.z * gridDim.y + blockIdx.y) * L;
        look(0);
    }

    __device__ __forceinline__ const T* own_positions() const { return !POSITIONS ? nullptr : KEYS ? of.pos_query : of.pos_key; }
    __device__ __forceinline__ const T* other_positions() const { return !POSITIONS ? nullptr : KEYS ? of.pos_key : of.pos_query; }

    // A distance's place in `rows`, of a column c and a row o.
    __device__ __forceinline__ int distance(int c, int o) const { return (KEYS ? o - c : c - o) + L - 1; }
    __device__ __forceinline__ int row_at(int c, int o) const { return of.rows[max(0, min(distance(c, o), 2 * L - 2))]; }

    // Reads which rows the window of the columns from c0 on has: long before it is fetched.
    __device__ __forceinline__ void look(int c0) {
        near = POSITIONS && of.rows ? row_at(c0, o0 + ROWS - 1) : 0;
        far = POSITIONS && of.rows ? row_at(c0 + COLS - 1, o0) : 0;
    }

    __device__ __forceinline__ float mask(int j) const { return j < L ? fmaxf(widen(of.mask[(u64)blockIdx.z * L + j]) * LOG2_E, LOWEST) : MINUS_INFINITY; }

    // Behind the last column that is looked at: whole tiles of keys, and of queries all.
    __device__ __forceinline__ int columns_end() const { return KEYS || !SKIPS ? L : min(L, (end + COLS - 1) / COLS * COLS); }

    // Whether the own side are keys that nobody sees.
    __device__ __forceinline__ bool is_padding() const { return KEYS && SKIPS && o0 >= end; }

    // Keys behind the last that is seen have no weight; where none is seen, all have the same.
    __device__ __forceinline__ void find_end() {
        if (!SKIPS) return;
        u32 seen = 0;
        for (end = L; end > 0; end -= 32) {
            int j = end - 32 + lane;
            seen = __ballot_sync(~0u, j >= 0 && mask(j) > LOWEST);
            if (seen) break;
        }
        end = seen ? end - __clz(seen) : L;
    }

    // Begins to fetch the columns from c0 on, `x` and `y` whole tensors, and their window.
    __device__ __forceinline__ void fetch_columns(Tile& tile, const T* x, const T* y, int c0) {
        fetch(tile.x, x + text + (u64)c0 * stride, COLS, L - c0, stride);
        fetch(tile.y, y + text + (u64)c0 * stride, COLS, L - c0, stride);
        if (!POSITIONS || !of.rows) return;
        low = min(near, far);
        count = abs(near - far) + 1;
        u64 head = (u64)low * stride + blockIdx.y * SIZE;
        if (own_positions()) fetch(tile.own, own_positions() + head, count, count, stride);
        if (other_positions()) fetch(tile.other, other_positions() + head, count, count, stride);
        for (int u = threadIdx.x; u < DISTANCES; u += THREADS) tile.place[u] = row_at(c0 + u, o0 + ROWS - 1) - low;
        for (int r = threadIdx.x; r <= count; r += THREADS) tile.edge[r] = of.edges[low + r];
        look(c0 + COLS);
    }

    // The first row of the window, and how many, for columns from c on and rows from o on, both in the tile.
    __device__ __forceinline__ int window(const Tile& tile, int c, int columns, int o, int rows, int& many) const {
        int first = tile.place[c - o - rows + ROWS], last = tile.place[c - o + columns + ROWS - 2];
        many = abs(first - last) + 1;
        return min(first, last);
    }

    // 16 tokens, the left factor, against their window, to the warp's share of `scores`: two blocks of 16 rows at a time,
    // while there are two.
    __device__ __forceinline__ void against(Tile& tile, const u32 (&a)[STEPS][4], const uint4* positions, int first, int many) const {
        int n = 0;
        for (; n + 16 < many; n += 32) against_blocks<2>(tile, a, positions, first, n);
        if (n < many) against_blocks<1>(tile, a, positions, first, n);
    }
    template <int N> __device__ __forceinline__ void against_blocks(Tile& tile, const u32 (&a)[STEPS][4], const uint4* positions, int first, int n) const {
        float* to = tile.scores + (warp * 16 + g) * PITCH + n + 2 * t;
        float c[N][2][4] = {};
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int k = 0; k < N; k++) times_rows(c[k], a[step], positions, first + n + 16 * k, count - 1, step);
#pragma unroll
        for (int k = 0; k < N; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) *(float2*)(to + i / 2 * 8 * PITCH + 16 * k + i % 2 * 8) = make_float2(c[k][i % 2][i / 2 * 2], c[k][i % 2][i / 2 * 2 + 1]);
    }

    // A pair's distance depends on n - h, its neighbour e and the lane: the place of its row, by m = n - h + 1.
    __device__ __forceinline__ int place_of(const Tile& tile, int m, int e) const { return tile.place[8 * m - 8 + 2 * t + e - g - 16 * warp + ROWS - 1]; }

    // The unscaled scores of the warp's rows, whose left factor is `a`. What positions give comes first, while there is
    // room in the registers.
    __device__ __forceinline__ void scores(float (&s)[TILES][4], Tile& tile, const u32 (&a)[STEPS][4]) const {
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) s[n][i] = 0.f;
        }
        // Far away a window is one row, and what a token gives with it goes to all its pairs.
        bool far = count == 1;
        int many;
        if (other_positions()) {
            // A warp takes 16 columns against COLS rows.
            int block = warp % BLOCKS, part = warp / BLOCKS;
            int first = window(tile, 16 * block, 16, COLS * part, COLS, many);
            u32 other[STEPS][4];
#pragma unroll
            for (int step = 0; step < STEPS; step++) left(other[step], tile.x, 16 * block, step);
            against(tile, other, tile.other, first, many);
            __syncthreads();
            part = 16 * warp / COLS;
#pragma unroll
            for (int n = 0; n < TILES; n++) {
                const float* from = tile.scores + (part * COLS + 8 * n + 2 * t) * PITCH;
                if (far) {
#pragma unroll
                    for (int i = 0; i < 4; i++) s[n][i] = from[i % 2 * PITCH];
                } else {
                    from -= window(tile, n / 2 * 16, 16, COLS * part, COLS, many);
#pragma unroll
                    for (int i = 0; i < 4; i++) s[n][i] = (from + place_of(tile, n - i / 2 + 1, i % 2))[i % 2 * PITCH];
                }
            }
            if (own_positions()) __syncthreads();
        }
        if (own_positions()) {
            int first = window(tile, 0, COLS, 16 * warp, 16, many);
            against(tile, a, tile.own, first, many);
            __syncwarp();
            const float* from = tile.scores + (warp * 16 + g) * PITCH;
            if (far) {
                float upper = from[0], lower = from[8 * PITCH];
#pragma unroll
                for (int n = 0; n < TILES; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) s[n][i] += i < 2 ? upper : lower;
                }
            } else {
                from -= first;
#pragma unroll
                for (int n = 0; n < TILES; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) s[n][i] += (from + place_of(tile, n - i / 2 + 1, i % 2))[i / 2 * 8 * PITCH];
                }
            }
            __syncwarp();
        }
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            float c[2][4];
#pragma unroll
            for (int i = 0; i < 8; i++) c[i / 4][i % 4] = s[n + i / 4][i % 4];
#pragma unroll
            for (int step = 0; step < STEPS; step++) times_rows(c, a[step], tile.x, 8 * n, COLS, step);
#pragma unroll
            for (int i = 0; i < 8; i++) s[n + i / 4][i % 4] = c[i / 4][i % 4];
        }
    }

    // Which of the warp's 16 × 16 pairs from column c on stay: words of two columns' 16 bits, for each of the
    // lane's two n-tiles and two rows. The words of a place belong to queries and keys, whoever asks.
    __device__ __forceinline__ void draw(u32 (&words)[2][2], const Philox& random, int c) const {
        u64 own = (o0 >> 4) + warp, other = c >> 4, blocks = (L + 15) >> 4;
        u64 place = ((u64)blockIdx.z * gridDim.y + blockIdx.y) * blocks * blocks + (KEYS ? other * blocks + own : own * blocks + other);
        uint4 drawn = random.at(place * 32 + lane);
        words[0][0] = KEYS ? transposed(drawn.x) : drawn.x;
        words[1][0] = KEYS ? transposed(drawn.z) : drawn.y;
        words[0][1] = KEYS ? transposed(drawn.y) : drawn.z;
        words[1][1] = KEYS ? transposed(drawn.w) : drawn.w;
    }

    // Of each pair of the tile, whether it stays: bit 4 n + i.
    __device__ __forceinline__ u32 kept(const Philox& random, int c0) const {
        u32 bits = 0, least = of.threshold << 16;
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) {
            u32 words[2][2];
            draw(words, random, c0 + 16 * m);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                u32 word = words[i / 4][i / 2 % 2];
                if ((i % 2 ? word : word << 16) >= least) bits |= 1u << (8 * m + i);
            }
        }
        return bits;
    }
};

// Over the four lanes that share a row.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
