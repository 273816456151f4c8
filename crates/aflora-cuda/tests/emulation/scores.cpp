// kernels/scores.cu on a CPU.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/scores.cu"

// Where tests/scores/emulated.rs puts them.
struct Tensors {
    const float *p, *g, *observed;
    float *now, *mean, *deviation;
};

extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, long long n, int score, float mean_share, float deviation_share, bool updated,
                                                              unsigned blocks) {
    run({blocks}, THREADS, 0, [&] { sensitivity(of->p, of->g, n, score, of->now); });
    run({blocks}, THREADS, 0, [&] { smooth(of->now, of->observed, of->mean, of->deviation, n, mean_share, deviation_share, updated); });
}
