// The cross entropy of a token's logits with its label, and its gradient, which is made at once: a block a token.
//
//   loss = log Σ exp x - (1 - ε) x[label] - ε mean x,   ∂x = softmax(x) - (1 - ε) 1[label] - ε / V
//
// Of V logits the last few, `rest` of them, lie apart from the `even` ones in front, a multiple of eight. A bias, if there is
// one, is added to all. A token of label -100 counts nothing; one whose label is no word has no loss that is a number.

#define THREADS 512
#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f
#define IGNORED -100

// A running maximum and what is summed below it, in powers of two.
struct Sum {
    float most = MINUS_INFINITY, sum = 0.f;
    template <int N> __device__ __forceinline__ void add(const float (&v)[N]) {
        float own = v[0];
#pragma unroll
        for (int i = 1; i < N; i++) own = fmaxf(own, v[i]);
        if (own == MINUS_INFINITY) return;
        if (own > most) {
            sum *= exp2f((most - own) * LOG2_E);
            most = own;
        }
#pragma unroll
        for (int i = 0; i < N; i++) sum += exp2f((v[i] - most) * LOG2_E);
    }
};

// Eight of a token's logits from `c` on.
__device__ __forceinline__ void logits(const T* x, const float* bias, int c, float (&v)[8]) {
    load_joined(x, bias, c, v, [](float logit, float more) { return logit + more; });
}

extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(const T* x, const T* x_rest, const float* bias, const long long* labels, float* losses,
                                                                   T* dx, T* dx_rest, int even, int rest, float smoothing) {
    __shared__ float shared[THREADS / 32];
    int words = even + rest;
    u64 token = blockIdx.x;
    long long label = labels[token];
    x += token * even; x_rest += token * rest;
    if (dx) { dx += token * even; dx_rest += token * rest; }
    if (label == IGNORED) {
        float none[8] = {};
        if (dx)
            for (int c = threadIdx.x * 8; c < even; c += THREADS * 8) store(dx + c, none);
        if (dx && threadIdx.x < rest) dx_rest[threadIdx.x] = narrow(0.f);
        if (threadIdx.x == 0) losses[token] = 0.f;
        return;
    }
    Sum own;
    float total = 0.f;
    for (int c = threadIdx.x * 8; c < even; c += THREADS * 8) {
        float v[8];
        logits(x, bias, c, v);
        own.add(v);
#pragma unroll
        for (int i = 0; i < 8; i++) total += v[i];
    }
    float last[1];
    if (threadIdx.x < rest) {
        last[0] = widen(x_rest[threadIdx.x]) + (bias ? bias[even + threadIdx.x] : 0.f);
        own.add(last);
        total += last[0];
    }
    float most = row_max<THREADS>(own.most, shared);
    // What found no word has no maximum.
    float sum = row_sum<THREADS>(own.sum == 0.f ? 0.f : own.sum * exp2f((own.most - most) * LOG2_E), shared);
    float lse = most + log2f(sum) * LN_2;
    if (smoothing != 0.f) total = row_sum<THREADS>(total, shared);
    bool known = label >= 0 && label < words;
    if (threadIdx.x == 0) {
        float of_label = __int_as_float(0x7fffffff);
        if (known) {
            of_label = widen(label < even ? x[label] : x_rest[label - even]);
            if (bias) of_label += bias[label];
        }
        float loss = lse - (1.f - smoothing) * of_label;
        losses[token] = smoothing != 0.f ? loss - smoothing * (total / words) : loss;
    }
    if (!dx) return;
    float each = smoothing / words;
    for (int c = threadIdx.x * 8; c < even; c += THREADS * 8) {
        float v[8];
        logits(x, bias, c, v);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = exp2f((v[i] - lse) * LOG2_E) - each - (c + i == label ? 1.f - smoothing : 0.f);
        store(dx + c, v);
    }
    if (threadIdx.x < rest) {
        float target = even + threadIdx.x == label ? 1.f - smoothing : 0.f;
        dx_rest[threadIdx.x] = narrow(exp2f((last[0] - lse) * LOG2_E) - each - target);
    }
}

// The gradient times what flows into it, in place; nothing is read where that is one.
extern "C" __global__ void __launch_bounds__(256) scale(T* x, const float* by, u64 count) {
    float factor = *by;
    if (factor == 1.f) return;
    for (u64 i = (u64)blockIdx.x * 256 + threadIdx.x; i < count; i += (u64)gridDim.x * 256) x[i] = narrow(widen(x[i]) * factor);
}
