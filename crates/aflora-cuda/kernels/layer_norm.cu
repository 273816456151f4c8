// The end of a transformer's sub-block in one pass, LayerNorm(dropout(x) + residual) with a
// frozen scale and shift, and its gradient. The dropout mask is not kept: the backward pass
// draws it again.
//
// Rows of H elements; THREADS threads a row (32 or 256), 256 a block.

#define STRIDE (THREADS * 8)
#define ITEMS ((H + STRIDE - 1) / STRIDE)

extern "C" __global__ void __launch_bounds__(256) layer_norm(const T* x, const T* residual, const T* gamma, const T* beta, float eps, T* y, T* sum,
                                                             float* mean, float* rstd, int n, u32 threshold, float keep, Random where) {
    __shared__ float shared[8];
    int row = blockIdx.x * (256 / THREADS) + threadIdx.x / THREADS;
    if (row >= n) return;
    int thread = threadIdx.x % THREADS;
    Philox random(where);
    float v[ITEMS][8], total = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            u64 at = (u64)row * H + c;
            load(x + at, v[i]);
            if (threshold) drop8(v[i], random, at / 8, threshold, keep);
            float other[8];
            load(residual + at, other);
#pragma unroll
            for (int e = 0; e < 8; e++) {
                v[i][e] += other[e];
                total += v[i][e];
            }
            store(sum + at, v[i]);
        }
    }
    float m = row_sum<THREADS>(total, shared) / H, square = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        if (i * STRIDE + thread * 8 < H) {
#pragma unroll
            for (int e = 0; e < 8; e++) square += (v[i][e] - m) * (v[i][e] - m);
        }
    }
    float r = rsqrtf(row_sum<THREADS>(square, shared) / H + eps);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            float scale[8], shift[8];
            load(gamma + c, scale);
            load(beta + c, shift);
#pragma unroll
            for (int e = 0; e < 8; e++) v[i][e] = (v[i][e] - m) * r * scale[e] + shift[e];
            store(y + (u64)row * H + c, v[i]);
        }
    }
    if (thread == 0) {
        mean[row] = m;
        rstd[row] = r;
    }
}

// ∂residual, and ∂x where dropout makes it another tensor.
extern "C" __global__ void __launch_bounds__(256) layer_norm_grad(const T* dy, const T* sum, const T* gamma, const float* mean, const float* rstd,
                                                                  T* dresidual, T* dx, int n, u32 threshold, float keep, Random where) {
    __shared__ float shared[8];
    int row = blockIdx.x * (256 / THREADS) + threadIdx.x / THREADS;
    if (row >= n) return;
    int thread = threadIdx.x % THREADS;
    float m = mean[row], r = rstd[row];
    float dv[ITEMS][8], hat[ITEMS][8], first = 0.f, second = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            u64 at = (u64)row * H + c;
            float scale[8];
            load(dy + at, dv[i]);
            load(sum + at, hat[i]);
            load(gamma + c, scale);
#pragma unroll
            for (int e = 0; e < 8; e++) {
                dv[i][e] *= scale[e];
                hat[i][e] = (hat[i][e] - m) * r;
                first += dv[i][e];
                second += dv[i][e] * hat[i][e];
            }
        }
    }
    first = row_sum<THREADS>(first, shared) / H;
    second = row_sum<THREADS>(second, shared) / H;
    Philox random(where);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            u64 at = (u64)row * H + c;
#pragma unroll
            for (int e = 0; e < 8; e++) dv[i][e] = r * (dv[i][e] - first - hat[i][e] * second);
            store(dresidual + at, dv[i]);
            if (threshold) {
                drop8(dv[i], random, at / 8, threshold, keep);
                store(dx + at, dv[i]);
            }
        }
    }
}
