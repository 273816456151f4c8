// PATHS low-rank paths of rank R each, as their kernels count them.

#include "path.cuh"

// The path of a block.
#define PATH (PATHS == 1 ? 0 : blockIdx.z)

// Components of all paths.
#define ALL (R * PATHS)

__device__ __forceinline__ void load_components(const float* p, float (&out)[R]) {
    if constexpr (R % 4 == 0) {
        load_float(p, out);
    } else {
#pragma unroll
        for (int r = 0; r < R; r++) out[r] = p[r];
    }
}
