// DeBERTa's disentangled attention by tiles, without a matrix of L × L in memory; bf16, sums in fp32.
//
//   s[i, j] = scale · (q_i k_j + q_i · pk_r + k_j · pq_r) + mask[j],   r = rows[j - i + L - 1]
//
// A block takes ROWS tokens of one head of one text, a warp 16 of them, and goes through the others
// COLS at a time. `disentangled_tiled` and `grad<false>` own queries and go through keys, `grad<true>` owns keys
// and goes through queries: each sum belongs to one block, which adds in a fixed order.
//
// Where POSITIONS is 0 there are neither pk nor pq: plain attention. Where SKIPS is 1, tiles of padding behind a text
// are not computed.
// SIZE is the size of a head: 32, 64 or 128. All tensors are contiguous, [tokens or positions,
// heads · SIZE]; the grid is (tiles, heads, batch).

#include "attention_tiles.cuh"
#include "position_sums.cuh"

// Blocks that have room at once, at least: by their number of registers a thread.
#define ROOM(WITH_POSITIONS, SMALL, MIDDLE, LARGE) (POSITIONS ? WITH_POSITIONS : SIZE == 32 ? SMALL : SIZE == 64 ? MIDDLE : LARGE)

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

// The own side's tokens, where they are not held in registers.
struct OwnTile {
    uint4 x[ROWS * UNITS], y[ROWS * UNITS];
};

// out [batch, L, heads · SIZE] and, in powers of two, the logarithms of the softmax's sums, [batch, heads, L].
extern "C" __global__ void __launch_bounds__(THREADS, ROOM(HELD(false) ? 3 : 2, 12, 8, 2)) disentangled_tiled(const __grid_constant__ Attention of, T* out, float* lse) {
    Tile& tile = *(Tile*)shared;
    Place<false> place(of);
    int L = of.L, first = place.o0 + 16 * place.warp, g = place.g, t = place.t;
    u32 query[STEPS][4];
    auto bring = [&](int c0) {
        place.fetch_columns(tile, of.key, of.value, c0, false);
        if (threadIdx.x < COLS) tile.a[threadIdx.x] = place.mask(c0 + threadIdx.x);
        if (c0 == 0) place.find_end();
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
    int columns = place.columns_end();
    float summed[SIZE / 8][4] = {}, top[2] = {MINUS_INFINITY, MINUS_INFINITY}, total[2] = {};
    for (int c0 = 0; c0 < columns; c0 += COLS) {
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
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = exp2_of(s[n][i] - top[i / 2]);
                total[i / 2] += s[n][i];
            }
        }
        place.drop<false>(s, random, c0);
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
        place.fetch_columns(tile, KEYS ? of.query : of.key, KEYS ? with.dout : of.value, c0, place.own_positions());
        if (threadIdx.x < COLS) {
            int c = c0 + threadIdx.x;
            if (KEYS) {
                tile.a[threadIdx.x] = c < L ? with.lse[place.lines + c] : -MINUS_INFINITY;
                tile.b[threadIdx.x] = c < L ? with.delta[place.lines + c] : 0.f;
            } else {
                tile.a[threadIdx.x] = place.mask(c);
            }
        }
        if (c0 == 0) place.find_end();
        copied();
        __syncthreads();
    };
    bring(0);
    int columns = place.columns_end();
    u64 by_head = ((u64)blockIdx.y * gridDim.z + blockIdx.z) * L;
    int own_rows = min(ROWS, L - place.o0);
    auto copy_by_head = [&] {
        for (int i = threadIdx.x; i < own_rows * UNITS; i += THREADS)
            *(uint4*)(with.by_head + (by_head + place.o0) * SIZE + i * 8) = own_x[at(i / UNITS, i % UNITS)];
    };
    if (place.is_padding()) {
        float none[SIZE / 8][4] = {};
        put(with.dx + place.text, none, first, L, place.stride, 1.f, 1.f);
        put(with.dvalue + place.text, none, first, L, place.stride, 1.f, 1.f);
        if (place.own_positions()) {
            copy_by_head();
            T* scores = with.dpositions + (by_head + place.o0) * of.positions;
            for (int i = threadIdx.x; i < own_rows * of.positions; i += THREADS) scores[i] = 0;
        }
        return;
    }
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
    Buckets<KEYS> buckets(place, with.dpositions + by_head * of.positions);
    if (place.own_positions()) copy_by_head();
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
    for (int c0 = 0; c0 < columns; c0 += COLS) {
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
        // What does not stay is below zero from here on.
        place.template drop<true>(s, random, c0);
        if constexpr (KEYS) {
            float weights[TILES][4];
#pragma unroll
            for (int n = 0; n < TILES; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) weights[n][i] = fmaxf(s[n][i], 0.f) * of.keep;
            }
            accumulate(dvalue, weights, tile.y);
        }
        // Gradients of the weights, and with them of the scores.
        if (!HELD(KEYS)) hold(y, own_y);
        int right = opaque(right_at(named()));
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            float arrived[2][4] = {};
#pragma unroll
            for (int step = 0; step < STEPS; step++) times(arrived, y[step], tile.y + moved(right, 8 * n, step));
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float& weight = s[n + i / 4][i % 4];
                float stays = weight < 0.f ? 0.f : arrived[i / 4][i % 4] * of.keep;
                float out = KEYS ? tile.b[8 * n + i / 4 * 8 + 2 * t + i % 2] : delta[i % 4 / 2];
                weight = fabsf(weight) * ((stays - out) * of.scale);
            }
        }
        accumulate(dx, s, tile.x);
        if (place.own_positions()) buckets.add(s, tile, tile.scores + place.warp * 16 * PITCH, c0);
    }
    put(with.dx + place.text, dx, first, L, place.stride, 1.f, 1.f);
    if constexpr (KEYS) put(with.dvalue + place.text, dvalue, first, L, place.stride, 1.f, 1.f);
    if (place.own_positions()) buckets.finish();
}

extern "C" __global__ void __launch_bounds__(THREADS, ROOM(HELD(false) ? 3 : 2, 8, 8, 2)) disentangled_tiled_queries(const __grid_constant__ Attention of, const __grid_constant__ Gradients with) {
    grad<false>(of, with);
}

extern "C" __global__ void __launch_bounds__(THREADS, ROOM(1, 6, 6, 2)) disentangled_tiled_keys(const __grid_constant__ Attention of, const __grid_constant__ Gradients with) {
    grad<true>(of, with);
}
