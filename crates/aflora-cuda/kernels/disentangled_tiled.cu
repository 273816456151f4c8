// DeBERTa's disentangled attention by tiles, without a matrix of L × L in memory; bf16, sums in fp32.
//
//   s[i, j] = scale · (q_i k_j + q_i · pk_r + k_j · pq_r) + mask[j],   r = rows[j - i + L - 1]
//
// A block takes ROWS tokens of one head of one text, a warp 16 of them, and goes through the others
// COLS at a time. `forward` and `grad<false>` own queries and go through keys, `grad<true>` owns keys
// and goes through queries: each sum belongs to one block, which adds in a fixed order.
//
// The distances of a tile are ROWS + COLS - 1 neighbours, so the rows of positions that it reads are a
// window of at most as many (`rows` falls by 0 or 1 a step). Tokens are multiplied with the
// window on the tensor cores, 16 tokens a warp, into shared memory; a pair reads there the column of its
// distance. Far away a window is one row.
//
// SIZE is the size of a head: 32, 64 or 128. All tensors are contiguous, [tokens or positions,
// heads · SIZE]; the grid is (tiles, heads, batch).

#include "tensor_cores.cuh"

#define WARPS 4
#define THREADS (32 * WARPS)
#define ROWS (16 * WARPS)
#define COLS (SIZE > 64 ? 32 : 64)
#define STEPS (SIZE / 16)
#define TILES (COLS / 8)
#define BLOCKS (COLS / 16)
// Vectors of 16 bytes in a row of a tile.
#define UNITS (SIZE / 8)
// Distances between ROWS rows and COLS columns.
#define DISTANCES (ROWS + COLS - 1)
// Scores of 16 tokens against their own window: 16 + COLS - 1 columns at most, in whole blocks of 16. With gradients of
// scores by distance, one more.
#define PITCH (16 + COLS + 8)
#define LOG2_E 1.4426950408889634f
// Whether gradients hold the own side's tokens in registers, so that three blocks have room at once: keys have two sums in theirs.
#define HELD(KEYS) (!(KEYS) && SIZE <= 64)
// The most distances of a bucket that one lane sums up for all rows.
#define NARROW 8
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

struct Gradients {
    const T* out;
    const T* dout;
    const float* lse;  // [batch, heads, L]
    float* delta;      // [batch, heads, L]: written for queries, read for keys
    T* dx;             // of the own side's queries or keys
    T* dvalue;         // with keys
    T* dpositions;     // [heads, batch, L, positions]: of the own side's scores against positions
    T* by_head;        // [heads, batch, L, SIZE]: with those, the own side's queries or keys once more
};

// Shared memory. Tiles are swizzled: eight neighbouring rows of a column of vectors lie in all banks.
struct Tile {
    uint4 x[COLS * UNITS];           // keys or queries
    uint4 y[COLS * UNITS];           // values or gradients of the output
    uint4 own[DISTANCES * UNITS];    // the window that the own side's tokens are compared with
    uint4 other[DISTANCES * UNITS];  // and the other side's
    // Of a warp, 16 tokens against a window; before the first tile, the own side's tokens on their way into registers.
    float scores[ROWS * (PITCH > SIZE / 2 ? PITCH : SIZE / 2)];
    float a[COLS], b[COLS];  // of a column: its mask; or its log-sum-exp and delta
    int place[DISTANCES];    // of a distance: its row in the window
    int edge[DISTANCES + 1];
};

// The own side's tokens, where they are not held in registers.
struct OwnTile {
    uint4 x[ROWS * UNITS], y[ROWS * UNITS];
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

    __device__ __forceinline__ Place(const Attention& of) : of(of), L(of.L), o0(blockIdx.x * ROWS), stride(gridDim.y * SIZE) {
        lane = threadIdx.x & 31;
        warp = threadIdx.x >> 5;
        g = lane >> 2;
        t = lane & 3;
        text = (u64)blockIdx.z * L * stride + blockIdx.y * SIZE;
        lines = ((u64)blockIdx.z * gridDim.y + blockIdx.y) * L;
        look(0);
    }

    __device__ __forceinline__ const T* own_positions() const { return KEYS ? of.pos_query : of.pos_key; }
    __device__ __forceinline__ const T* other_positions() const { return KEYS ? of.pos_key : of.pos_query; }

    // A distance's place in `rows`, of a column c and a row o.
    __device__ __forceinline__ int distance(int c, int o) const { return (KEYS ? o - c : c - o) + L - 1; }
    __device__ __forceinline__ int row_at(int c, int o) const { return of.rows[max(0, min(distance(c, o), 2 * L - 2))]; }

    // Reads which rows the window of the columns from c0 on has: long before it is fetched.
    __device__ __forceinline__ void look(int c0) {
        near = of.rows ? row_at(c0, o0 + ROWS - 1) : 0;
        far = of.rows ? row_at(c0 + COLS - 1, o0) : 0;
    }

    __device__ __forceinline__ float mask(int j) const { return j < L ? fmaxf(widen(of.mask[(u64)blockIdx.z * L + j]) * LOG2_E, LOWEST) : MINUS_INFINITY; }

    // Begins to fetch the columns from c0 on, `x` and `y` whole tensors, and their window.
    __device__ __forceinline__ void fetch_columns(Tile& tile, const T* x, const T* y, int c0) {
        fetch(tile.x, x + text + (u64)c0 * stride, COLS, L - c0, stride);
        fetch(tile.y, y + text + (u64)c0 * stride, COLS, L - c0, stride);
        if (!of.rows) return;
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

// out [batch, L, heads · SIZE] and, in powers of two, the logarithms of the softmax's sums, [batch, heads, L].
extern "C" __global__ void __launch_bounds__(THREADS) disentangled_tiled(const __grid_constant__ Attention of, T* out, float* lse) {
    Tile& tile = *(Tile*)shared;
    Place<false> place(of);
    int L = of.L, first = place.o0 + 16 * place.warp, g = place.g, t = place.t;
    u32 query[STEPS][4];
    auto bring = [&](int c0) {
        place.fetch_columns(tile, of.key, of.value, c0);
        if (threadIdx.x < COLS) tile.a[threadIdx.x] = place.mask(c0 + threadIdx.x);
        copied();
        __syncthreads();
    };
    // The room of scores holds the queries until they are in registers.
    uint4* own = (uint4*)tile.scores;
    fetch(own, of.query + place.text + (u64)place.o0 * place.stride, ROWS, L - place.o0, place.stride);
    bring(0);
#pragma unroll
    for (int step = 0; step < STEPS; step++) left(query[step], own, 16 * place.warp, step);
    __syncthreads();
    Philox random(of.where);
    float scale = of.scale * LOG2_E;
    float summed[SIZE / 8][4] = {}, top[2] = {MINUS_INFINITY, MINUS_INFINITY}, total[2] = {};
    for (int c0 = 0; c0 < L; c0 += COLS) {
        if (c0 > 0) {
            __syncthreads();
            bring(c0);
        }
        float s[TILES][4];
        place.scores(s, tile, query);
        float before[2] = {top[0], top[1]};
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = s[n][i] * scale + tile.a[8 * n + 2 * t + i % 2];
                top[i / 2] = fmaxf(top[i / 2], s[n][i]);
            }
        }
        float factor[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            top[h] = quad_max(top[h]);
            factor[h] = exp2_of(before[h] - top[h]);
            total[h] *= factor[h];
        }
#pragma unroll
        for (int n = 0; n < SIZE / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) summed[n][i] *= factor[i / 2];
        }
        u32 stays = of.threshold ? place.kept(random, c0) : ~0u;
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = exp2_of(s[n][i] - top[i / 2]);
                total[i / 2] += s[n][i];
                if (!(stays >> (4 * n + i) & 1)) s[n][i] = 0.f;
            }
        }
        accumulate(summed, s, tile.y);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        total[h] = quad_sum(total[h]);
        int row = first + g + 8 * h;
        if (t == 0 && row < L) lse[place.lines + row] = top[h] + log2f(total[h]);
    }
    put(out + place.text, summed, first, L, place.stride, of.keep / total[0], of.keep / total[1]);
}

// Sums of a row's gradients that have one row of positions in common: a bucket of neighbouring distances, the same
// for all rows. A lane takes a bucket and sums it up for each row; what a bucket has that goes on in the next
// tile, one a row, is carried there by the lane of that row.
template <bool KEYS> struct Buckets {
    const Place<KEYS>& place;
    T* to;   // of the text's head
    int o0;  // the warp's first token
    float carried;

    __device__ __forceinline__ Buckets(const Place<KEYS>& place, T* to) : place(place), to(to), o0(place.o0 + 16 * place.warp), carried(0.f) {}

    // The columns of a row of positions, which begins at `edge` of the next and ends at its own.
    __device__ __forceinline__ int begin(int o, int own_edge, int next_edge) const { return KEYS ? o + place.L - own_edge : next_edge - (place.L - 1) + o; }
    __device__ __forceinline__ int end(int o, int own_edge, int next_edge) const { return KEYS ? o + place.L - next_edge : own_edge - (place.L - 1) + o; }

    __device__ __forceinline__ void write(int row, int r, float sum) const {
        if (o0 + row < place.L) to[(u64)(o0 + row) * place.of.positions + r] = narrow(sum);
    }

    // `d`: the warp's gradients of scores; `stage`: its share of `tile.scores`, which no other warp reads any more.
    __device__ __forceinline__ void add(const float (&d)[TILES][4], const Tile& tile, float* stage, int c0) {
        int lane = place.lane, columns = min(COLS, place.L - c0), many;
        int first = place.window(tile, 0, COLS, 16 * place.warp, 16, many);
        if (many == 1) {
            float sums[2] = {};
#pragma unroll
            for (int n = 0; n < TILES; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) sums[i / 2] += d[n][i];
            }
            float upper = __shfl_sync(~0u, quad_sum(sums[0]), 4 * (lane & 7)), lower = __shfl_sync(~0u, quad_sum(sums[1]), 4 * (lane & 7));
            if (lane < 16) {
                carried += lane & 8 ? lower : upper;
                if (end(o0 + lane, tile.edge[first], tile.edge[first + 1]) <= c0 + columns) {
                    write(lane, place.low + first, carried);
                    carried = 0.f;
                }
            }
            return;
        }
        // By distance: row r has its column c at c + 15 - r, zeros beside, and behind all distances what it is to carry.
        const int CARRIED = 15 + COLS;
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) stage[(place.g + i / 2 * 8) * (PITCH - 1) + 15 + 8 * n + 2 * place.t + i % 2] = d[n][i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int row = 2 * i + lane / 16, u = lane & 15;
            stage[row * PITCH + u + (u < 15 - row ? 0 : COLS)] = 0.f;
        }
        __syncwarp();
        if (lane < 16) stage[lane * (PITCH - 1) + 15] += carried;
        __syncwarp();
        for (int k = lane; k - lane < many; k += 32) {
            int r = first + min(k, many - 1), own_edge = tile.edge[r], next_edge = tile.edge[r + 1];
            int from = begin(o0, own_edge, next_edge) - c0 + 15, until = end(o0, own_edge, next_edge) - c0 + 15;
            bool mine = k < many;
            // Where a bucket is wide, lanes take a row, two of them a half each.
            for (u32 rest = __ballot_sync(~0u, mine && min(until, CARRIED) - max(from, 0) > NARROW); rest; rest &= rest - 1) {
                int of = __ffs(rest) - 1, row = lane & 15, low = __shfl_sync(~0u, from, of), high = __shfl_sync(~0u, until, of);
                float sum = 0.f;
                for (int j = max(low, 0) + lane / 16; j < min(high, CARRIED); j += 2) sum += stage[row * PITCH + j];
                sum += __shfl_xor_sync(~0u, sum, 16);
                int at = __shfl_sync(~0u, r, of);
                if (lane < 16 && low < 15 - row + columns && high > 15 - row) {
                    if (high <= 15 - row + columns) write(row, place.low + at, sum);
                    else stage[row * PITCH + CARRIED] = sum;
                }
                mine = mine && lane != of;
            }
            if (!mine) continue;
            float sums[16] = {};
            for (int j = max(from, 0); j < min(until, CARRIED); j++) {
#pragma unroll
                for (int row = 0; row < 16; row++) sums[row] += stage[row * PITCH + j];
            }
            // By a bit a row: where it has a column, and where the last of these is in this tile.
            u32 has = rows_from(16 - until) & ~rows_from(15 + columns - from), ends = has & ~rows_from(16 + columns - until), carry = has & ~ends;
            ends &= ~rows_from(place.L - o0);
            T* next = to + (u64)o0 * place.of.positions + place.low + r;
#pragma unroll
            for (int row = 0; row < 16; row++) {
                if (ends >> row & 1) *next = narrow(sums[row]);
                next += place.of.positions;
            }
            if (carry) {
#pragma unroll
                for (int row = 0; row < 16; row++) {
                    if (carry >> row & 1) stage[row * PITCH + CARRIED] = sums[row];
                }
            }
        }
        __syncwarp();
        if (lane < 16) carried = stage[lane * PITCH + CARRIED];
    }

    // Bits of the rows from `row` on.
    static __device__ __forceinline__ u32 rows_from(int row) { return row > 31 ? 0u : ~0u << max(row, 0); }

    // What is still carried, and zeros for rows of positions that no pair has.
    __device__ __forceinline__ void finish() const {
        // A lane looks up the rows of positions of its token.
        int L = place.L, own = place.lane & 15, o = o0 + own, first = place.row_at(0, o), last = place.row_at(L - 1, o);
        if (place.lane < 16 && end(o, place.of.edges[last], place.of.edges[last + 1]) > L) write(own, last, carried);
        for (int row = 0; row < 16; row++) {
            int low = __shfl_sync(~0u, min(first, last), row), high = __shfl_sync(~0u, max(first, last), row);
            for (int r = place.lane; r < place.of.positions; r += 32) {
                if (r < low || r > high) write(row, r, 0.f);
            }
        }
    }
};

// Gradients of the own side. `edges` and `delta` as in the structs.
template <bool KEYS> __device__ __forceinline__ void grad(const Attention& of, const Gradients& with) {
    Tile& tile = *(Tile*)shared;
    OwnTile& own = *(OwnTile*)(shared + sizeof(Tile) / sizeof(uint4));
    // The room of scores holds them until they are in registers.
    uint4 *own_x = HELD(KEYS) ? (uint4*)tile.scores : own.x, *own_y = HELD(KEYS) ? own_x + ROWS * UNITS : own.y;
    Place<KEYS> place(of);
    int L = of.L, first = place.o0 + 16 * place.warp, lane = place.lane, t = place.t;
    u64 from = place.text + (u64)place.o0 * place.stride;
    fetch(own_x, (KEYS ? of.key : of.query) + from, ROWS, L - place.o0, place.stride);
    fetch(own_y, (KEYS ? of.value : with.dout) + from, ROWS, L - place.o0, place.stride);
    auto bring = [&](int c0) {
        place.fetch_columns(tile, KEYS ? of.query : of.key, KEYS ? with.dout : of.value, c0);
        if (threadIdx.x < COLS) {
            int c = c0 + threadIdx.x;
            if (KEYS) {
                tile.a[threadIdx.x] = c < L ? with.lse[place.lines + c] : -MINUS_INFINITY;
                tile.b[threadIdx.x] = c < L ? with.delta[place.lines + c] : 0.f;
            } else {
                tile.a[threadIdx.x] = place.mask(c);
            }
        }
        copied();
        __syncthreads();
    };
    bring(0);
    // Of the lane's rows: the mask; or the log-sum-exp, and delta, the sum of the output times its gradient.
    float stat[2], delta[2] = {};
    float half = 0.f;
    if (!KEYS) {
        int row = 16 * place.warp + lane / 2;
        if (place.o0 + row < L) {
#pragma unroll
            for (int i = 0; i < UNITS / 2; i++) {
                int unit = lane % 2 * (UNITS / 2) + i;
                float a[8], b[8];
                load((const T*)(own_y + at(row, unit)), a);
                load(with.out + from + (u64)row * place.stride + unit * 8, b);
#pragma unroll
                for (int e = 0; e < 8; e++) half += a[e] * b[e];
            }
        }
        half += __shfl_xor_sync(~0u, half, 1);
        if (lane % 2 == 0 && place.o0 + row < L) with.delta[place.lines + place.o0 + row] = half;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = first + place.g + 8 * h;
        if (KEYS) {
            stat[h] = place.mask(row);
        } else {
            stat[h] = row < L ? with.lse[place.lines + row] : -MINUS_INFINITY;
            delta[h] = __shfl_sync(~0u, half, 2 * place.g + 16 * h);
        }
    }
    Philox random(of.where);
    u64 by_head = ((u64)blockIdx.y * gridDim.z + blockIdx.z) * L;
    Buckets<KEYS> buckets(place, with.dpositions + by_head * of.positions);
    if (place.own_positions()) {
        for (int i = threadIdx.x; i < min(ROWS, L - place.o0) * UNITS; i += THREADS)
            *(uint4*)(with.by_head + (by_head + place.o0) * SIZE + i * 8) = own_x[at(i / UNITS, i % UNITS)];
    }
    float scale = of.scale * LOG2_E;
    float dx[SIZE / 8][4] = {}, dvalue[KEYS ? SIZE / 8 : 1][4] = {};
    u32 x[STEPS][4], y[STEPS][4];
    auto hold = [&](u32 (&a)[STEPS][4], const uint4* from) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) left(a[step], from, 16 * place.warp, step);
    };
    if (HELD(KEYS)) {
        hold(x, own_x);
        hold(y, own_y);
        __syncthreads();
    }
    for (int c0 = 0; c0 < L; c0 += COLS) {
        if (c0 > 0) {
            __syncthreads();
            bring(c0);
        }
        float s[TILES][4];
        if (!HELD(KEYS)) hold(x, own_x);
        place.scores(s, tile, x);
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float column = tile.a[8 * n + 2 * t + i % 2], row = stat[i / 2];
                s[n][i] = exp2_of(s[n][i] * scale + (KEYS ? row - column : column - row));
            }
        }
        u32 stays = of.threshold ? place.kept(random, c0) : ~0u;
        if constexpr (KEYS) {
            float weights[TILES][4];
#pragma unroll
            for (int n = 0; n < TILES; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) weights[n][i] = stays >> (4 * n + i) & 1 ? s[n][i] * of.keep : 0.f;
            }
            accumulate(dvalue, weights, tile.y);
        }
        // Gradients of the weights, and with them of the scores.
        if (!HELD(KEYS)) hold(y, own_y);
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            float arrived[2][4] = {};
#pragma unroll
            for (int step = 0; step < STEPS; step++) times_rows(arrived, y[step], tile.y, 8 * n, COLS, step);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int bit = 4 * n + i;
                float weight = stays >> bit & 1 ? arrived[i / 4][i % 4] * of.keep : 0.f;
                float out = KEYS ? tile.b[8 * n + i / 4 * 8 + 2 * t + i % 2] : delta[i % 4 / 2];
                s[n + i / 4][i % 4] *= (weight - out) * of.scale;
            }
        }
        accumulate(dx, s, tile.x);
        if (place.own_positions()) buckets.add(s, tile, tile.scores + place.warp * 16 * PITCH, c0);
    }
    put(with.dx + place.text, dx, first, L, place.stride, 1.f, 1.f);
    if constexpr (KEYS) put(with.dvalue + place.text, dvalue, first, L, place.stride, 1.f, 1.f);
    if (place.own_positions()) buckets.finish();
}

extern "C" __global__ void __launch_bounds__(THREADS, HELD(false) ? 3 : 2) disentangled_tiled_queries(const __grid_constant__ Attention of, const __grid_constant__ Gradients with) {
    grad<false>(of, with);
}

extern "C" __global__ void __launch_bounds__(THREADS) disentangled_tiled_keys(const __grid_constant__ Attention of, const __grid_constant__ Gradients with) {
    grad<true>(of, with);
}
