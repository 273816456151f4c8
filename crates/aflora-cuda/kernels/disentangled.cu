// Softmax of DeBERTa's disentangled scores, and its gradient.
//
//   s[i, j] = scale · (qk[i, j] + c2p[i, t] + p2c[j, t]) + mask[j],   t = i's distance to j = j - i + L - 1
//
// c2p [L, W] holds each query against every distance, p2c [L, W] each key; which column a pair
// reads depends on i - j alone, so no index tensor exists and nothing is gathered or scattered
// in memory. A block takes 32 queries of one head of one text: read by keys, a row of p2c
// wants a stretch of 32 columns for them, and goes through shared memory.
//
// qk, c2p and p2c are [heads, batch, L, ·] and contiguous; c2p or p2c may be null. ITEMS keys a
// lane, so L is at most 32 ITEMS.

#define QUERIES 32
#define PITCH (QUERIES + 1)

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
        float v[ITEMS], top = MINUS_INFINITY;
#pragma unroll
        for (int e = 0; e < ITEMS; e++) {
            int j = e * 32 + lane;
            v[e] = MINUS_INFINITY;
            if (j < L) {
                float s = widen(qk[row * L + j]);
                if (c2p) s += widen(c2p[row * W + j + L - 1 - i]);
                if (p2c) s += widen(tile[j * PITCH + q]);
                v[e] = s * scale + widen(mask[(head % batch) * L + j]);
                top = fmaxf(top, v[e]);
            }
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
        for (int e = 0; e < ITEMS; e++) {
            int j = e * 32 + lane;
            v[e] *= factor;
            if (j < L) weights[row * L + j] = narrow(v[e]);
        }
        if (threshold) {
            drop_row(v, random, row, lane, threshold, keep);
#pragma unroll
            for (int e = 0; e < ITEMS; e++) {
                int j = e * 32 + lane;
                if (j < L) dropped[row * L + j] = narrow(v[e]);
            }
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
#pragma unroll
        for (int e = 0; e < ITEMS; e++) {
            int j = e * 32 + lane;
            v[e] = j < L ? widen(ddropped[row * L + j]) : 0.f;
            w[e] = j < L ? widen(weights[row * L + j]) : 0.f;
        }
        if (threshold) drop_row(v, random, row, lane, threshold, keep);
#pragma unroll
        for (int e = 0; e < ITEMS; e++) dot += v[e] * w[e];
        dot = warp_sum(dot);
#pragma unroll
        for (int e = 0; e < ITEMS; e++) {
            int j = e * 32 + lane;
            if (j < L) {
                T d = narrow(w[e] * (v[e] - dot) * scale);
                dqk[row * L + j] = d;
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
