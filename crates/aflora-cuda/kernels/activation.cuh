// Activations, of which ACT is one.

#define SILU 0
#define GELU 1
#define GELU_TANH 2

// act(x), and its derivative.
__device__ __forceinline__ float activate(float x, float& slope) {
#if ACT == SILU
    float s = 1.f / (1.f + expf(-x));
    slope = s * (1.f + x * (1.f - s));
    return x * s;
#elif ACT == GELU && BF16
    // By Abramowitz and Stegun's 7.1.26, whose error of 1.5e-7 no bf16 tells: value and slope have one exponential.
    const float INV_SQRT_2PI = 0.39894228f;
    float e = __expf(-0.5f * x * x), t = __fdividef(1.f, 1.f + 0.23164189f * fabsf(x));
    float tail = 0.5f * e * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    float below = x < 0.f ? tail : 1.f - tail;
    slope = below + x * INV_SQRT_2PI * e;
    return x * below;
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
