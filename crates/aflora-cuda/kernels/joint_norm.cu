// The joint norm of all gradients, a flat buffer of n numbers, and what is done by it where it lies: gradients of a step that is not
// finite become zero, and others are clipped. Sums have a fixed order. Before, those become zero that recorded work goes on to
// make of what is frozen since.

#define THREADS 256

// Sums of squares: block i's share into sums[i].
extern "C" __global__ void __launch_bounds__(THREADS) squares(const float* g, long long n, float* sums) {
    float sum = 0;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) sum += g[i] * g[i];
    __shared__ float shared_sums[THREADS / 32];
    sum = row_sum<THREADS>(sum, shared_sums);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block: the norm of so many such shares, the same but zero where it or the loss is not finite, and whether one is not, which is
// counted: in all, and in a row. `loss` may be null, and so may the counts.
extern "C" __global__ void __launch_bounds__(THREADS) judge(const float* sums, int shares, const float* loss, float* norm, float* finite_norm, bool* bad,
                                                            long long* total, long long* in_a_row) {
    float sum = 0;
    for (int i = threadIdx.x; i < shares; i += THREADS) sum += sums[i];
    __shared__ float shared_sums[THREADS / 32];
    sum = row_sum<THREADS>(sum, shared_sums);
    if (threadIdx.x) return;
    *norm = sqrtf(sum);
    // Infinity and NaN times zero are NaN, which differs from zero.
    *bad = (*norm + (loss ? *loss : 0.f)) * 0.f != 0.f;
    *finite_norm = *bad ? 0.f : *norm;
    if (total) *total += *bad;
    if (in_a_row) *in_a_row = *bad ? *in_a_row + 1 : 0;
}

// Zeros in pieces, from pieces[2 i] up to pieces[2 i + 1], a block each.
extern "C" __global__ void __launch_bounds__(THREADS) clear(float* g, const long long* pieces) {
    for (long long i = pieces[2 * blockIdx.x] + threadIdx.x; i < pieces[2 * blockIdx.x + 1]; i += THREADS) g[i] = 0;
}

// Zeros for the gradients of a bad step.
extern "C" __global__ void __launch_bounds__(THREADS) forget(float* g, long long n, const bool* bad) {
    if (!*bad) return;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) g[i] = 0;
}

// g ← g · min(1, most / (norm + 1e-6)), as PyTorch's `clip_grad_norm_` has it.
extern "C" __global__ void __launch_bounds__(THREADS) clip(float* g, long long n, const float* norm, float most) {
    float factor = most / (*norm + 1e-6f);
    if (factor >= 1) return;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS) g[i] *= factor;
}
