// kernels/adamw.cu on a CPU.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/adamw.cu"

// Where tests/adamw/mod.rs puts them: so many buffers behind one another, of each of which the first and the third of three pieces
// move.
extern "C" __attribute__((visibility("default"))) void emulate(float* const* buffers, const long long* pieces, long long n, unsigned count, const float* kept,
                                                              const float* step, const float* numbers) {
    AdamWGroups groups{};
    for (unsigned i = 0; i < count; i++)
        groups.of[i] = {buffers[0] + i * n, buffers[1] + i * n, buffers[2] + i * n, buffers[3] + i * n, pieces, 2, kept[i], step[i]};
    run({2 * count}, 256, 0, [&] { adamw(groups, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]); });
}
