// kernels/joint_norm.cu on a CPU.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/joint_norm.cu"

// Where tests/joint_norm/emulated.rs puts them.
struct Tensors {
    float *g, *sums;
    const float* loss;
    float *norm, *finite_norm;
    bool* bad;
    long long* counts;
    const long long* pieces;
};

// All but `clear`, or that alone, in so many pieces.
extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, long long n, unsigned shares, float most, unsigned number, unsigned order) {
    if (number) return run({number}, THREADS, order, [&] { clear(of->g, of->pieces); });
    run({shares}, THREADS, order, [&] { squares(of->g, n, of->sums); });
    run({1}, THREADS, order, [&] { judge(of->sums, int(shares), of->loss, of->norm, of->finite_norm, of->bad, of->counts, of->counts + 1); });
    run({shares}, THREADS, order, [&] { forget(of->g, n, of->bad); });
    run({shares}, THREADS, order, [&] { clip(of->g, n, of->finite_norm, most); });
}
