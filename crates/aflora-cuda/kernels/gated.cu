// The middle of a gated feed-forward layer (Shazeer 2020), y = act(gate) ⊙ up, and its gradients. ACT is the
// activation. Rows of gate and of up, as those of their gradients, lie `stride` elements apart: one behind
// the other where a layer makes both.
//
// Eight elements at a time; `total` groups of eight, `groups` a row.

#include "activation.cuh"

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
