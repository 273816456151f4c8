// A tile of disentangled attention: what of it lies in shared memory and how it comes there, the scores of its pairs, and which
// of them dropout lets stay. See disentangled_tiled.cu.
//
// The distances of a tile are ROWS + COLS - 1 neighbours, so the rows of positions that it reads are a
// window of at most as many (`rows` falls by 0 or 1 a step). Tokens are multiplied with the
// window on the tensor cores, 16 tokens a warp, into shared memory, in bf16; a pair reads there the column of its
// distance. From tile to tile the window moves on, and what it has not had comes where the rows were that it has
// left. Far away it is one row.

#include "tensor_cores.cuh"

// Whether there may be positions. Without them a tile is smaller, and more blocks have room at once.
#ifndef POSITIONS
#define POSITIONS 1
#endif
// Whether tiles of padding behind a text are left out. To look for its end takes longer than that saves where texts are short.
#ifndef SKIPS
#define SKIPS 1
#endif
// Whether tiles in which each distance has a row of positions of its own have a way of their own, without tables and sums. Of
// long texts they are too few for that: the code of both ways takes longer to run.
#define STRAIGHTS (POSITIONS && !SKIPS)

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
// Rows of positions that have room: a row's place is its number's remainder.
#define WINDOW (POSITIONS ? (DISTANCES + 31) / 32 * 32 : 1)
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
    uint4 own[WINDOW * UNITS];       // the window that the own side's tokens are compared with
    uint4 other[WINDOW * UNITS];     // and the other side's
    // Of a warp, 16 tokens against a window, in bf16, or their gradients; before the first tile, the own side's tokens on
    // their way into registers.
    float scores[ROWS * SCORES];
    float a[COLS], b[COLS];  // of a column: its mask; or its log-sum-exp and delta
    int place[DISTANCES];    // of a distance: its row in the window
    int edge[DISTANCES + 1];
};

extern __shared__ uint4 shared[];

__device__ __forceinline__ int at(int row, int unit) { return row * UNITS + (unit ^ (UNITS >= 8 ? row & 7 : row >> 1 & 3)); }

// `rows` rows to a tile; in place of those beyond `count`, to which nobody gives a weight, its last.
__device__ __forceinline__ void fetch(uint4* to, const T* from, int rows, int count, int stride) {
    const int apart = THREADS / UNITS;
    int unit = threadIdx.x % UNITS;
#pragma unroll
    for (int i = 0; i < rows / apart; i++) {
        int row = threadIdx.x / UNITS + i * apart;
        copy(to + at(row, unit), from + min(row, count - 1) * stride + unit * 8, true);
    }
}

// The rows of positions from `begin` up to `end` to their places in a window.
__device__ __forceinline__ void fetch_window(uint4* to, const T* from, int begin, int end, int stride) {
    int unit = threadIdx.x % UNITS;
    for (int row = begin + threadIdx.x / UNITS; row < end; row += THREADS / UNITS)
        copy(to + at((u32)row % WINDOW, unit), from + row * stride + unit * 8, true);
}

// Where a lane's first vector of 16 rows lies in a tile, by sixteens of rows for the left factor and for a transposed one, by
// eights for the right one. From `row` on, a multiple of eight, and in other columns it is `moved`.
__device__ __forceinline__ int left_at() { return at(threadIdx.x & 15, threadIdx.x >> 4 & 1); }
__device__ __forceinline__ int named() { return (threadIdx.x & 7) + (threadIdx.x >> 4 & 1) * 8; }
__device__ __forceinline__ int right_at(int row) { return at(row, threadIdx.x >> 3 & 1); }
__device__ __forceinline__ int moved(int at, int row, int step) { return (at ^ 2 * step) + row * UNITS; }

// 16 rows of a tile from `row` on as the left factor.
__device__ __forceinline__ void left(u32 (&a)[4], const uint4* tile, int row, int step) { load_blocks(a, tile + moved(left_at(), row, step)); }

// c += the left factor times 16 rows, of which a lane's begins `at` there.
__device__ __forceinline__ void times(float (&c)[2][4], const u32 (&a)[4], const uint4* at) {
    u32 b[4];
    load_blocks(b, at);
    multiply(c[0], a, b[0], b[1]);
    multiply(c[1], a, b[2], b[3]);
}

// out += weights · tile, [16, COLS] · [COLS, SIZE].
__device__ __forceinline__ void accumulate(float (&out)[SIZE / 8][4], const float (&weights)[TILES][4], const uint4* tile) {
    int from = opaque(left_at());
#pragma unroll
    for (int m = 0; m < BLOCKS; m++) {
        u32 a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = to_bf16(weights[2 * m + i / 2][i % 2 * 2], weights[2 * m + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < SIZE / 16; n++) {
            u32 b[4];
            load_transposed(b, tile + moved(from, 16 * m, n));
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
    int pair;                             // of the lane's first pair, its distance in the tile: for place_of
    int low, count;                       // the window: its first row, how many
    bool straight;                        // whether each distance of a whole tile has a row of its own, and its alone
    int near, far;                        // the rows at the ends of the next,
    bool apart;                           // and whether none of the two belongs to a distance beyond as well
    int had;                              // the end of the window before at which it moved on
    int known;                            // far away, the row that the own side's tokens were multiplied with,
    float alone[2];                       // and what came of it for the lane's rows
    int end;                              // behind the last key that is seen, once that is found

    __device__ __forceinline__ Place(const Attention& of) : of(of), L(of.L), o0(blockIdx.x * ROWS), stride(gridDim.y * SIZE) {
        lane = threadIdx.x & 31;
        warp = threadIdx.x >> 5;
        g = lane >> 2;
        t = lane & 3;
        pair = opaque(2 * t - g - 16 * warp + ROWS - 9);
        text = (u64)blockIdx.z * L * stride + blockIdx.y * SIZE;
        lines = ((u64)blockIdx.z * gridDim.y + blockIdx.y) * L;
        had = KEYS ? 0 : of.positions;
        known = -1;
        look(0);
    }

    __device__ __forceinline__ const T* own_positions() const { return !POSITIONS ? nullptr : KEYS ? of.pos_query : of.pos_key; }
    __device__ __forceinline__ const T* other_positions() const { return !POSITIONS ? nullptr : KEYS ? of.pos_key : of.pos_query; }

    // A distance's place in `rows`, of a column c and a row o.
    __device__ __forceinline__ int distance(int c, int o) const { return (KEYS ? o - c : c - o) + L - 1; }
    __device__ __forceinline__ int row_at(int c, int o) const { return of.rows[max(0, min(distance(c, o), 2 * L - 2))]; }

    // Reads which rows the window of the columns from c0 on has: long before it is fetched.
    __device__ __forceinline__ void look(int c0) {
        near = far = 0;
        if (!POSITIONS || !of.rows) return;
        near = row_at(c0, o0 + ROWS - 1);
        far = row_at(c0 + COLS - 1, o0);
        int first = distance(c0, o0 + ROWS - 1), last = distance(c0 + COLS - 1, o0), end = KEYS ? 0 : 2 * L - 2;
        apart = (first == 2 * L - 2 - end || row_at(c0 - 1, o0 + ROWS - 1) != near) && (last == end || row_at(c0 + COLS, o0) != far);
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

    // Begins to fetch the columns from c0 on, `x` and `y` whole tensors, and what is new of their window; `sums` of gradients by
    // its rows need to know where each ends.
    __device__ __forceinline__ void fetch_columns(Tile& tile, const T* x, const T* y, int c0, bool sums) {
        fetch(tile.x, x + text + (u64)c0 * stride, COLS, L - c0, stride);
        fetch(tile.y, y + text + (u64)c0 * stride, COLS, L - c0, stride);
        if (!POSITIONS || !of.rows) return;
        // Rows fall with the distance, which rises from column to column, of keys' queries falls.
        low = KEYS ? near : far;
        count = (KEYS ? far - near : near - far) + 1;
        int begin = KEYS ? max(low, had) : low, until = KEYS ? low + count : min(low + count, had);
        had = KEYS ? low + count : low;
        if (own_positions()) fetch_window(tile.own, own_positions() + blockIdx.y * SIZE, begin, until, stride);
        if (other_positions()) fetch_window(tile.other, other_positions() + blockIdx.y * SIZE, begin, until, stride);
        straight = STRAIGHTS && apart && count == DISTANCES && o0 + ROWS <= L && c0 + COLS <= L;
        if (!straight) {
            // There are more threads than distances.
            if (threadIdx.x < DISTANCES) tile.place[threadIdx.x] = row_at(c0 + threadIdx.x, o0 + ROWS - 1) - low;
            if (sums && threadIdx.x <= count) tile.edge[threadIdx.x] = of.edges[low + threadIdx.x];
        }
        look(c0 + COLS);
    }

    // Of a distance of the tile, its row in the window.
    template <bool STRAIGHT> static __device__ __forceinline__ int place_at(const Tile& tile, int distance) {
        if (STRAIGHT) return KEYS ? distance : DISTANCES - 1 - distance;
        return tile.place[distance];
    }

    // The first row of the window for columns from c on and rows from o on, both in the tile; and behind the last.
    template <bool STRAIGHT> static __device__ __forceinline__ int window_begin(const Tile& tile, int c, int columns, int o, int rows) {
        return place_at<STRAIGHT>(tile, KEYS ? c - o - rows + ROWS : c - o + columns + ROWS - 2);
    }
    template <bool STRAIGHT> static __device__ __forceinline__ int window_end(const Tile& tile, int c, int columns, int o, int rows) {
        return place_at<STRAIGHT>(tile, KEYS ? c - o + columns + ROWS - 2 : c - o - rows + ROWS) + 1;
    }

    // A warp's 16 rows of scores against a window: in its own share of the room.
    static __device__ __forceinline__ T* by_place(Tile& tile, int warp) { return (T*)(tile.scores + warp * 16 * PITCH); }

    // 16 tokens, the left factor, against their window, to the warp's rows: two blocks of 16 rows at a time, while there
    // are two.
    __device__ __forceinline__ void against(Tile& tile, const u32 (&a)[STEPS][4], const uint4* positions, int first, int end) const {
        T* to = by_place(tile, warp) + g * PITCH + 2 * t;
        int n = first;
        for (; n + 16 < end; n += 32) against_blocks<2>(to + n - first, a, positions, n);
        if (n < end) against_blocks<1>(to + n - first, a, positions, n);
    }
    template <int N> __device__ __forceinline__ void against_blocks(T* to, const u32 (&a)[STEPS][4], const uint4* positions, int n) const {
        float c[N][2][4] = {};
        int from[N];
#pragma unroll
        for (int k = 0; k < N; k++) from[k] = opaque(right_at((u32)(low + min(n + 16 * k + named(), count - 1)) % WINDOW));
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int k = 0; k < N; k++) times(c[k], a[step], positions + moved(from[k], 0, step));
#pragma unroll
        for (int k = 0; k < N; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) *(u32*)(to + i / 2 * 8 * PITCH + 16 * k + i % 2 * 8) = to_bf16(c[k][i % 2][i / 2 * 2], c[k][i % 2][i / 2 * 2 + 1]);
    }

    // A pair's distance depends on n - h, its neighbour e and the lane: the place of its row, by m = n - h + 1.
    template <bool STRAIGHT> __device__ __forceinline__ int place_of(const Tile& tile, int m, int e) const { return place_at<STRAIGHT>(tile, pair + 8 * m + e); }

    // The unscaled scores of the warp's rows, whose left factor is `a`. What positions give comes first, while there is
    // room in the registers.
    __device__ __forceinline__ void scores(float (&s)[TILES][4], Tile& tile, const u32 (&a)[STEPS][4]) {
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) s[n][i] = 0.f;
        }
        if (STRAIGHTS && straight) by_positions<true>(s, tile, a);
        else if (POSITIONS) by_positions<false>(s, tile, a);
        int from = opaque(right_at(named()));
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            float c[2][4];
#pragma unroll
            for (int i = 0; i < 8; i++) c[i / 4][i % 4] = s[n + i / 4][i % 4];
#pragma unroll
            for (int step = 0; step < STEPS; step++) times(c, a[step], tile.x + moved(from, 8 * n, step));
#pragma unroll
            for (int i = 0; i < 8; i++) s[n + i / 4][i % 4] = c[i / 4][i % 4];
        }
    }

    // What positions give.
    template <bool STRAIGHT> __device__ __forceinline__ void by_positions(float (&s)[TILES][4], Tile& tile, const u32 (&a)[STEPS][4]) {
        // Far away a window is one row, and what a token gives with it goes to all its pairs.
        bool far = !STRAIGHT && count == 1;
        if (other_positions()) {
            // A warp takes 16 columns against COLS rows.
            int block = warp % BLOCKS, part = warp / BLOCKS;
            u32 other[STEPS][4];
#pragma unroll
            for (int step = 0; step < STEPS; step++) left(other[step], tile.x, 16 * block, step);
            against(tile, other, tile.other, window_begin<STRAIGHT>(tile, 16 * block, 16, COLS * part, COLS), window_end<STRAIGHT>(tile, 16 * block, 16, COLS * part, COLS));
            __syncthreads();
            part = 16 * warp / COLS;
            if (far) {
#pragma unroll
                for (int m = 0; m < BLOCKS; m++) {
                    const T* from = by_place(tile, part * BLOCKS + m) + 2 * t * PITCH;
#pragma unroll
                    for (int i = 0; i < 8; i++) s[2 * m + i / 4][i % 4] = widen(from[(i / 4 * 8 + i % 2) * PITCH]);
                }
            } else {
#pragma unroll
                for (int m = 0; m < BLOCKS; m++) {
                    const T* from = by_place(tile, part * BLOCKS + m) + 2 * t * PITCH - window_begin<STRAIGHT>(tile, 16 * m, 16, COLS * part, COLS);
#pragma unroll
                    for (int i = 0; i < 8; i++) s[2 * m + i / 4][i % 4] = widen((from + place_of<STRAIGHT>(tile, 2 * m + i / 4 - i % 4 / 2 + 1, i % 2))[(i / 4 * 8 + i % 2) * PITCH]);
                }
            }
            if (own_positions()) __syncthreads();
        }
        if (own_positions()) {
            const T* from = by_place(tile, warp) + g * PITCH;
            if (!far || known != low) {
                int first = window_begin<STRAIGHT>(tile, 0, COLS, 16 * warp, 16);
                against(tile, a, tile.own, first, window_end<STRAIGHT>(tile, 0, COLS, 16 * warp, 16));
                __syncwarp();
                from -= first;
            }
            if (far) {
                if (known != low) {
                    alone[0] = widen(from[0]);
                    alone[1] = widen(from[8 * PITCH]);
                    known = low;
                }
#pragma unroll
                for (int n = 0; n < TILES; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) s[n][i] += alone[i / 2];
                }
            } else {
#pragma unroll
                for (int n = 0; n < TILES; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) s[n][i] += widen((from + place_of<STRAIGHT>(tile, n - i / 2 + 1, i % 2))[i / 2 * 8 * PITCH]);
                }
            }
            __syncwarp();
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

    // Takes weights of pairs away that do not stay: to zero, or marked with a sign.
    template <bool MARKED> __device__ __forceinline__ void drop(float (&s)[TILES][4], const Philox& random, int c0) const {
        if (!of.threshold) return;
        u32 least = of.threshold << 16;
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) {
            u32 words[2][2];
            draw(words, random, c0 + 16 * m);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                u32 word = words[i / 4][i / 2 % 2];
                float& weight = s[2 * m + i / 4][i % 4];
                if ((i % 2 ? word : word << 16) < least) weight = MARKED ? -weight : 0.f;
            }
        }
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
