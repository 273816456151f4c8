// Softmax of DeBERTa's disentangled scores, and its gradient.
//
//   s[i, j] = scale · (qk[i, j] + c2p[i, t] + p2c[j, t]) + mask[j],   t = i's distance to j = j - i + L - 1
//
// c2p [L, W] holds each query against every distance, p2c [L, W] each key; which column a pair
// reads depends on i - j alone, so no index tensor exists and nothing is gathered or scattered
// in memory. A block takes 32 queries of one head of one text: read by keys, a row of p2c
// wants a stretch of 32 columns for them, and goes through shared memory.
//
// qk, c2p and p2c are [heads, batch, L, ·] and contiguous; c2p or p2c may be null. A lane has
// ITEMS keys, VEC neighbours at a time (L divides by VEC), so L is at most 32 ITEMS.

#define QUERIES 32
#define PITCH (QUERIES + 1)

// The key that a lane's item e is.
__device__ __forceinline__ int key_of(int e, int lane) { return e / VEC * (32 * VEC) + lane * VEC + e % VEC; }

// A lane's keys of a row of L; `none` beyond its end.
__device__ __forceinline__ void load_keys(const T* row, float (&v)[ITEMS], int L, int lane, float none) {
#pragma unroll
    for (int e = 0; e < ITEMS; e += VEC) {
        int j = key_of(e, lane);
        float some[VEC];
        if (j < L) {
            if constexpr (VEC == 1) some[0] = widen(row[j]);
            else load(row + j, some);
        }
#pragma unroll
        for (int i = 0; i < VEC; i++) v[e + i] = j < L ? some[i] : none;
    }
}

__device__ __forceinline__ void store_keys(T* row, const float (&v)[ITEMS], int L, int lane) {
#pragma unroll
    for (int e = 0; e < ITEMS; e += VEC) {
        int j = key_of(e, lane);
        float some[VEC];
#pragma unroll
        for (int i = 0; i < VEC; i++) some[i] = v[e + i];
        if (j < L) {
            if constexpr (VEC == 1) row[j] = narrow(some[0]);
            else store(row + j, some);
        }
    }
}

__device__ __forceinline__ void drop_row(float (&v)[ITEMS], const Philox& random, u64 row, int lane, u32 threshold, float keep) {
#pragma unroll
    for (int i = 0; i < ITEMS; i += 8) {
        float eight[8];
#pragma unroll
        for (int e = 0; e < 8; e++) eight[e] = i + e < ITEMS ? v[(i + e) % ITEMS] : 0.f;
        drop8(eight, random, (row * ((ITEMS + 7) / 8) + i / 8) * 32 + lane, threshold, keep);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            if (i + e < ITEMS) v[(i + e) % ITEMS] = eight[e];
        }
    }
}

// Grid (tiles of queries, heads × batch), 256 threads: a warp takes four queries in turn.
extern "C" __global__ void __launch_bounds__(256) disentangled(const T* qk, const T* c2p, const T* p2c, const T* mask, T* weights, T* dropped,
                                                               int batch, int L, int W, float scale, u32 threshold, float keep, Random where) {
    extern __shared__ T tile[];  // [L][PITCH]: p2c of each key, for these queries
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int i0 = blockIdx.x * QUERIES;
    u64 head = blockIdx.y;
    u32 text = blockIdx.y % batch;
    if (p2c) {
        // Column t of query i0 + q is j + L - 1 - i0 - q.
#pragma unroll 8
        for (int j = warp; j < L; j += 8) {
            int i = i0 + lane;
            if (i < L) tile[j * PITCH + lane] = p2c[(head * L + j) * W + j + L - 1 - i];
        }
        __syncthreads();
    }
    Philox random(where);
    for (int q = warp; q < QUERIES && i0 + q < L; q += 8) {
        int i = i0 + q;
        u64 row = head * L + i;
        float v[ITEMS], added[ITEMS], top = MINUS_INFINITY;
        load_keys(qk + row * L, v, L, lane, MINUS_INFINITY);
        load_keys(mask + text * L, added, L, lane, 0.f);
        const T* by_distance = c2p + row * W + L - 1 - i;
#pragma unroll
        for (int e = 0; e < ITEMS; e++) {
            int j = key_of(e, lane);
            if (j < L) {
                if (c2p) v[e] += widen(by_distance[j]);
                if (p2c) v[e] += widen(tile[j * PITCH + q]);
            }
            v[e] = v[e] * scale + added[e];
            top = fmaxf(top, v[e]);
        }
        top = warp_max(top);
        float total = 0.f;
#pragma unroll
        for (int e = 0; e < ITEMS; e++) {
            v[e] = __expf(v[e] - top);
            total += v[e];
        }
        float factor = 1.f / warp_sum(total);
#pragma unroll
        for (int e = 0; e < ITEMS; e++) v[e] *= factor;
        store_keys(weights + row * L, v, L, lane);
        if (threshold) {
            drop_row(v, random, row, lane, threshold, keep);
            store_keys(dropped + row * L, v, L, lane);
        }
    }
}

// From ∂dropped to ∂qk, ∂c2p and ∂p2c, every element of which is written. The same grid.
extern "C" __global__ void __launch_bounds__(256) disentangled_grad(const T* ddropped, const T* weights, T* dqk, T* dc2p, T* dp2c, int L, int W,
                                                                    float scale, u32 threshold, float keep, Random where) {
    extern __shared__ T tile[];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int i0 = blockIdx.x * QUERIES;
    u64 head = blockIdx.y;
    Philox random(where);
    for (int q = warp; q < QUERIES && i0 + q < L; q += 8) {
        int i = i0 + q;
        u64 row = head * L + i;
        float v[ITEMS], w[ITEMS], dot = 0.f;
        load_keys(ddropped + row * L, v, L, lane, 0.f);
        load_keys(weights + row * L, w, L, lane, 0.f);
        if (threshold) drop_row(v, random, row, lane, threshold, keep);
#pragma unroll
        for (int e = 0; e < ITEMS; e++) dot += v[e] * w[e];
        dot = warp_sum(dot);
#pragma unroll
        for (int e = 0; e < ITEMS; e++) v[e] = w[e] * (v[e] - dot) * scale;
        store_keys(dqk + row * L, v, L, lane);
#pragma unroll
        for (int e = 0; e < ITEMS; e++) {
            int j = key_of(e, lane);
            if (j < L) {
                T d = narrow(v[e]);
                if (dc2p) dc2p[row * W + j + L - 1 - i] = d;
                if (dp2c) tile[j * PITCH + q] = d;
            }
        }
        // Distances that no pair of this row has: of c2p, and of p2c where the row is a key.
        for (int t = lane; t < W; t += 32) {
            if (dc2p && (t < L - 1 - i || t > 2 * L - 2 - i)) dc2p[row * W + t] = narrow(0.f);
            if (dp2c && (t < i || t > i + L - 1)) dp2c[row * W + t] = narrow(0.f);
        }
    }
    if (dp2c) {
        __syncthreads();
        for (int j = warp; j < L; j += 8) {
            int i = i0 + lane;
            if (i < L) dp2c[(head * L + j) * W + j + L - 1 - i] = tile[j * PITCH + lane];
        }
    }
}
