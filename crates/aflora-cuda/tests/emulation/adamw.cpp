// kernels/adamw.cu on a CPU.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../kernels/adamw.cu"

// Where tests/adamw/mod.rs puts them: so many buffers of n numbers behind one another, each with two pieces, of which the last of every
// second buffer does not move.
extern "C" __attribute__((visibility("default"))) void emulate(float* const* buffers, const long long* pieces, long long n, unsigned count, const float* kept,
                                                              const float* step, const float* numbers) {
    AdamWGroups groups{};
    unsigned blocks = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned own = i % 2 ? 1 : 2;
        groups.of[i] = {buffers[0] + i * n, buffers[1] + i * n, buffers[2] + i * n, buffers[3] + i * n, pieces + 4 * i, own, kept[i], step[i]};
        blocks += own;
    }
    run({blocks}, 256, 0, [&] { adamw(groups, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]); });
}
