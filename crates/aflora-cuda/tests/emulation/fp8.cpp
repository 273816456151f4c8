// kernels/fp8.cu on a CPU, for rows in T.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/fp8.cu"

// Where tests/fp8 puts them.
struct Tensors {
    const T* x;
    const float* by;
    uint2* codes;
    float* scales;
    T* rounded;
    u32* transposed;
    float* ones;
};

extern "C" __attribute__((visibility("default"))) void emulate(const Tensors* of, int rows, int width, unsigned order) {
    int at_once = 256 / THREADS;
    dim3 grid = {unsigned((rows + at_once - 1) / at_once)}, tiles = {unsigned((width + 127) / 128), unsigned((rows + 127) / 128)};
    run(grid, 256, order, [&] { to_codes(of->x, of->by, of->codes, of->scales, rows, width); });
    run(grid, 256, order, [&] { round_rows(of->x, of->by, of->rounded, rows, width); });
    run(tiles, 256, order, [&] { transpose((const u32*)of->codes, of->transposed, of->ones, rows, width); });
}
