// kernels/rotary.cu on a CPU, in T, INTERLEAVED or not.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/rotary.cu"

// One launch of shim/rotary.h. `both` is in tests/decoders/emulated.rs as it is here.
extern "C" __attribute__((visibility("default"))) void emulate(const Both* both, const T* cos, const T* sin, unsigned of_text, float sign, unsigned length,
                                                               unsigned half, unsigned size, unsigned order) {
    u32 most = both->of[0].units < both->of[1].units ? both->of[1].units : both->of[0].units;
    dim3 grid = {(most + 255) / 256, 2};
    run(grid, 256, order, [&] { rotary(*both, cos, sin, of_text, sign, length, half, size); });
}
