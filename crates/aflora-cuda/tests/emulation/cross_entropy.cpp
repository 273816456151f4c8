// kernels/cross_entropy.cu on a CPU, in T.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/cross_entropy.cu"

// Where tests/decoders/emulated.rs puts them.
struct Tensors {
    const T *x, *rest;
    const float* bias;
    const long long* labels;
    float* losses;
    T *dx, *drest;
    const float* by;
};

extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, unsigned tokens, int even, int rest, float smoothing, unsigned order) {
    run({tokens}, THREADS, order, [&] { cross_entropy(of->x, of->rest, of->bias, of->labels, of->losses, of->dx, of->drest, even, rest, smoothing); });
    if (of->dx) run({2}, 256, order, [&] { scale(of->dx, of->by, u64(tokens) * even); });
}
