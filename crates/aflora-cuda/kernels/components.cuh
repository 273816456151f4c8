// PATHS low-rank paths of rank R each, as their kernels count them.

#include "path.cuh"

// The path of a block.
#define PATH (PATHS == 1 ? 0 : blockIdx.z)

// A kernel may begin before the one in front of it has ended: shim/kernel.h's `launch_early`. What that one writes is there
// from `previous_done` on. The one in front says that its blocks have all begun.
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
__device__ __forceinline__ void previous_done() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ __forceinline__ void next_may_begin() { asm volatile("griddepcontrol.launch_dependents;"); }
#else
__device__ __forceinline__ void previous_done() {}
__device__ __forceinline__ void next_may_begin() {}
#endif

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
