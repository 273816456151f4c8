// What stands around libtorch's products of a low-rank path, y += s b ⊙ B (d ⊙ (A x)), that low_rank.cu does not take: the
// matrices as the tensor cores take them, with all factors on one of them, the gradient of B out of that of their product,
// and dropout, whose mask is not kept: the backward pass draws it again.
//
// A [r, k], B [m, r], d [r], b [m] are fp32; d and b may be null (LoRA).

// A in the wide kind [r, k], and U = s b ⊙ B ⊙ d [m, r], likewise.
extern "C" __global__ void __launch_bounds__(256) fold(const float* a, const float* up, const float* d, const float* b, float s, T* wide_a,
                                                       T* wide_up, u32 of_a, u32 of_up, u32 r) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i < of_a) {
        wide_a[i] = narrow(a[i]);
    } else if (i - of_a < of_up) {
        i -= of_a;
        wide_up[i] = narrow(up[i] * (b ? s * b[i / r] : s) * (d ? d[i % r] : 1.f));
    }
}

// The gradient of B, in the place of that of U.
extern "C" __global__ void __launch_bounds__(256) unfold(float* du, const float* d, const float* b, float s, u32 of_up, u32 r) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i < of_up) du[i] *= (b ? s * b[i / r] : s) * (d ? d[i % r] : 1.f);
}

// The input that a path with dropout reads, eight elements a thread: the same of it each time.
extern "C" __global__ void __launch_bounds__(256) drop(const T* x, T* dropped, u32 groups, u32 threshold, float keep, Random where) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= groups) return;
    Philox random(where);
    float v[8];
    load(x + (u64)i * 8, v);
    drop8(v, random, i, threshold, keep);
    store(dropped + (u64)i * 8, v);
}

// ∂x += what the gradient of the dropped input lets through.
extern "C" __global__ void __launch_bounds__(256) add_dropped(T* dx, const T* of_dropped, u32 groups, u32 threshold, float keep, Random where) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= groups) return;
    Philox random(where);
    float v[8], sum[8];
    load(of_dropped + (u64)i * 8, v);
    load(dx + (u64)i * 8, sum);
    drop8(v, random, i, threshold, keep);
#pragma unroll
    for (int e = 0; e < 8; e++) sum[e] += v[e];
    store(dx + (u64)i * 8, sum);
}
