// The middle of a gated feed-forward layer (Shazeer 2020), y = act(gate) ⊙ up, and its gradients. ACT is the
// activation. Rows of gate and of up, as those of their gradients, lie `stride` elements apart: one behind
// the other where a layer makes both.
//
// Eight elements at a time; `total` groups of eight, `groups` a row.

#define SILU 0
#define GELU 1
#define GELU_TANH 2

// act(x), and its derivative.
__device__ __forceinline__ float activate(float x, float& slope) {
#if ACT == SILU
    float s = 1.f / (1.f + expf(-x));
    slope = s * (1.f + x * (1.f - s));
    return x * s;
#elif ACT == GELU
    const float INV_SQRT_2 = 0.70710678f, INV_SQRT_2PI = 0.39894228f;
    float below = 0.5f * (1.f + erff(x * INV_SQRT_2));
    slope = below + x * INV_SQRT_2PI * expf(-0.5f * x * x);
    return x * below;
#else
    const float SQRT_2_OVER_PI = 0.79788456f, CUBIC = 0.044715f;
    float t = tanhf(SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
    slope = 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * SQRT_2_OVER_PI * (1.f + 3.f * CUBIC * x * x);
    return 0.5f * x * (1.f + t);
#endif
}

extern "C" __global__ void __launch_bounds__(256) gated(const T* gate, const T* up, T* y, u32 total, u32 groups, u32 stride) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= total) return;
    u64 at = (u64)(i / groups) * stride + i % groups * 8;
    float g[8], u[8], slope;
    load(gate + at, g);
    load(up + at, u);
#pragma unroll
    for (int e = 0; e < 8; e++) g[e] = activate(g[e], slope) * u[e];
    store(y + (u64)i * 8, g);
}

extern "C" __global__ void __launch_bounds__(256) gated_grad(const T* dy, const T* gate, const T* up, T* dgate, T* dup, u32 total, u32 groups,
                                                             u32 stride) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= total) return;
    u64 at = (u64)(i / groups) * stride + i % groups * 8;
    float d[8], g[8], u[8];
    load(dy + (u64)i * 8, d);
    load(gate + at, g);
    load(up + at, u);
#pragma unroll
    for (int e = 0; e < 8; e++) {
        float slope, activated = activate(g[e], slope);
        g[e] = d[e] * u[e] * slope;
        u[e] = d[e] * activated;
    }
    store(dgate + at, g);
    store(dup + at, u);
}
