// kernels/order.cu on a CPU.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/order.cu"

extern "C" __attribute__((visibility("default"))) void emulate(const float* x, const long long* pieces, int number, unsigned blocks, u32* counts, u32 k,
                                                              float* kth, float* means, unsigned order) {
    run({unsigned(number)}, THREADS, order, [&] { mean(x, pieces, means); });
    for (int digit = 0; digit < DIGITS; digit++) run({blocks}, THREADS, order, [&] { count(x, pieces, number, counts, digit, k); });
    run({1}, THREADS, order, [&] { pick(counts, k, kth); });
}
