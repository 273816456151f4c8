// Freezing scores of elements (Zhang et al. 2023; the equations are in aflora-core's freeze/score.rs): the sensitivity of each, and
// what smooths it and its deviation.

#define THREADS 256
#define EACH_OF(n) long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n; i += (long long)gridDim.x * THREADS

// `score` is 0 for |g|, 1 for |p g|, 2 for |g / p|; of an element p that is zero it is zero.
extern "C" __global__ void __launch_bounds__(THREADS) sensitivity(const float* p, const float* g, long long n, int score, float* out) {
    for (EACH_OF(n)) {
        float value = p[i], gradient = g[i];
        float of = score == 0 ? gradient : score == 1 ? value * gradient : gradient / value;
        out[i] = value == 0 ? 0.f : fabsf(of);
    }
}

// From a to b by a share, and exactly to b by the whole: libtorch's lerp.
__device__ __forceinline__ float toward(float a, float b, float share) { return share < 0.5f ? a + share * (b - a) : b - (b - a) * (1 - share); }

// Moves the mean of each element toward `now`, and that of its deviation toward |now - mean|, the mean before, or after where it is
// `updated`. Where `observed` is 0 both stay; it is 1 elsewhere, or null.
extern "C" __global__ void __launch_bounds__(THREADS) smooth(const float* now, const float* observed, float* mean, float* deviation, long long n,
                                                             float mean_share, float deviation_share, bool updated) {
    for (EACH_OF(n)) {
        float seen = observed ? observed[i] : 1.f, before = mean[i];
        float after = toward(before, now[i], mean_share * seen);
        mean[i] = after;
        deviation[i] = toward(deviation[i], fabsf(now[i] - (updated ? after : before)), deviation_share * seen);
    }
}
