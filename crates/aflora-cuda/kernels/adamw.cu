// AdamW with decoupled decay (Loshchilov and Hutter 2019), of pieces of flat buffers: block i goes over
// [pieces[2i], pieces[2i + 1]), and nothing beside them moves.
//
//   p ← p · kept      m ← m + (1 - β₁)(g - m)      v ← β₂ v + (1 - β₂) g²      p ← p - step · m / (√v · root + ε)
//
// `kept` is 1 - lr λ, `step` lr / (1 - β₁ᵗ), `root` 1 / √(1 - β₂ᵗ).

extern "C" __global__ void __launch_bounds__(256) adamw(float* p, const float* g, float* m, float* v, const long long* pieces, float toward, float beta2,
                                                        float square, float kept, float step, float root, float eps) {
    long long end = pieces[2 * blockIdx.x + 1];
    for (long long i = pieces[2 * blockIdx.x] + threadIdx.x; i < end; i += 256) {
        float gradient = g[i];
        float first = m[i] + toward * (gradient - m[i]);
        float second = beta2 * v[i] + square * gradient * gradient;
        m[i] = first;
        v[i] = second;
        p[i] = p[i] * kept - step * first / (sqrtf(second) * root + eps);
    }
}
