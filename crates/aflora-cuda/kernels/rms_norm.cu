// RMSNorm (Zhang and Sennrich 2019) where a block of a decoder reads it: s = x + delta, and
// y = s r (w + plus) with r = 1 / sqrt(mean s² + eps), in one pass; and the gradient of both outputs in
// another. The weight is frozen. s and r are all that the gradient reads, and y can be made of them again.
//
// Rows of H elements; THREADS threads a row (32 or 256), 256 a block.

#define STRIDE (THREADS * 8)
#define ITEMS ((H + STRIDE - 1) / STRIDE)

__device__ __forceinline__ int own_row() { return blockIdx.x * (256 / THREADS) + threadIdx.x / THREADS; }

// y of eight elements.
__device__ __forceinline__ void scale8(float (&v)[8], float r, const T* weight, float plus) {
    float w[8];
    load(weight, w);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = v[e] * r * (w[e] + plus);
}

// Without a delta, s is x and not written.
extern "C" __global__ void __launch_bounds__(256) rms_norm(const T* x, const T* delta, const T* weight, float plus, float eps, T* s, T* y,
                                                           float* rstd, int n) {
    __shared__ float shared[8];
    int row = own_row();
    if (row >= n) return;
    int thread = threadIdx.x % THREADS;
    float v[ITEMS][8], square = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            u64 at = (u64)row * H + c;
            load(x + at, v[i]);
            if (delta) {
                float other[8];
                load(delta + at, other);
                // The norm is of the sum as the residual stream has it.
#pragma unroll
                for (int e = 0; e < 8; e++) v[i][e] = rounded(v[i][e] + other[e]);
                store(s + at, v[i]);
            }
#pragma unroll
            for (int e = 0; e < 8; e++) square += v[i][e] * v[i][e];
        }
    }
    float r = rsqrtf(row_sum<THREADS>(square, shared) / H + eps);
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            scale8(v[i], r, weight + c, plus);
            store(y + (u64)row * H + c, v[i]);
        }
    }
    if (thread == 0) rstd[row] = r;
}

// y once more, to the bit.
extern "C" __global__ void __launch_bounds__(256) rms_norm_again(const T* s, const T* weight, float plus, const float* rstd, T* y, int n) {
    int row = own_row();
    if (row >= n) return;
    int thread = threadIdx.x % THREADS;
    float r = rstd[row];
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            u64 at = (u64)row * H + c;
            float v[8];
            load(s + at, v);
            scale8(v, r, weight + c, plus);
            store(y + at, v);
        }
    }
}

// The gradient of x, and of delta: what comes through y, and ds, what comes through s, if there is any.
extern "C" __global__ void __launch_bounds__(256) rms_norm_grad(const T* dy, const T* ds, const T* s, const T* weight, float plus,
                                                                const float* rstd, T* dx, int n) {
    __shared__ float shared[8];
    int row = own_row();
    if (row >= n) return;
    int thread = threadIdx.x % THREADS;
    float r = rstd[row], dv[ITEMS][8], hat[ITEMS][8], along = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            u64 at = (u64)row * H + c;
            float w[8];
            load(dy + at, dv[i]);
            load(s + at, hat[i]);
            load(weight + c, w);
#pragma unroll
            for (int e = 0; e < 8; e++) {
                dv[i][e] *= w[e] + plus;
                hat[i][e] *= r;
                along += dv[i][e] * hat[i][e];
            }
        }
    }
    along = row_sum<THREADS>(along, shared) / H;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        int c = i * STRIDE + thread * 8;
        if (c < H) {
            u64 at = (u64)row * H + c;
            float straight[8] = {};
            if (ds) load(ds + at, straight);
#pragma unroll
            for (int e = 0; e < 8; e++) dv[i][e] = r * (dv[i][e] - hat[i][e] * along) + straight[e];
            store(dx + at, dv[i]);
        }
    }
}
