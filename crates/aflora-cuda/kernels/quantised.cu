// A weight in few bits, restored eight numbers a thread, or multiplied by where it lies for a few
// rows. Each operation is rounded by itself, as bitsandbytes does on a CPU.
//
// BLOCKS is the number of a format of GGUF's blocks, which hold their scales themselves, or 0. Then INT8 is 1
// for codes of eight bits, a scale for each row, which with E4M3 = 1 are floating point numbers; else 0, for
// codes of four bits, two a byte, the upper half first, a scale for each block. `nested_map`: null where scales
// are numbers.

#include "weight.cuh"
#include "blocks.cuh"
#include "e4m3.cuh"

// Numbers of a thread.
#define EACH 8

__device__ __forceinline__ float scale_of(const KernelWeight& w, u32 i) {
    if (!w.nested_map) return ((const float*)w.scales)[i];
    float code = w.nested_map[((const unsigned char*)w.scales)[i]];
    return __fadd_rn(__fmul_rn(code, w.nested_scales[i / w.nested_block]), w.offset);
}

// The numbers from 8 · `group` on; `map` lies in shared memory.
__device__ __forceinline__ void restore_group(const KernelWeight& w, const float* map, u64 group, float (&out)[EACH]) {
#if BLOCKS
    u64 each = blocks::numbers(BLOCKS) / EACH;
    const unsigned char* block = (const unsigned char*)w.codes + group / each * blocks::bytes(BLOCKS);
    blocks::restore_eight<BLOCKS>(block, (int)(group % each) * EACH, out);
#else
    float scale = scale_of(w, (u32)(group * EACH / w.block));
#if INT8
    uint2 words = ((const uint2*)w.codes)[group];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        u32 word = i < 4 ? words.x : words.y;
        unsigned char code = (unsigned char)(word >> (8 * (i % 4)));
#if E4M3
        out[i] = __fmul_rn(e4m3::number(code), scale);
#else
        out[i] = __fmul_rn(__fmul_rn((float)(signed char)code, scale), 0.007874015718698502f);
#endif
    }
#else
    u32 word = ((const u32*)w.codes)[group];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        u32 byte = word >> (8 * (i / 2));
        out[i] = __fmul_rn(map[i % 2 ? byte & 15 : (byte >> 4) & 15], scale);
    }
#endif
#endif
}

__device__ __forceinline__ void load_map(const KernelWeight& w, float* map) {
#if !INT8 && !BLOCKS
    if (threadIdx.x < 16) map[threadIdx.x] = w.map[threadIdx.x];
    __syncthreads();
#endif
}

// All of it, in `groups` of eight numbers.
extern "C" __global__ void __launch_bounds__(256) restore(const __grid_constant__ KernelWeight w, T* out, u64 groups) {
    __shared__ float map[16];
    load_map(w, map);
    for (u64 group = (u64)blockIdx.x * 256 + threadIdx.x; group < groups; group += (u64)gridDim.x * 256) {
        float numbers[EACH];
        restore_group(w, map, group, numbers);
        store<EACH>(out + group * EACH, numbers);
    }
}

// y = x Wᵀ + bias for ROWS rows of x or fewer, a warp for each output; the weight's numbers are rounded to
// the kind of x, as they are when it is restored.
extern "C" __global__ void __launch_bounds__(256) few_rows(const __grid_constant__ KernelWeight w, const T* x, const T* bias, T* y, int rows, int from, int to) {
    __shared__ float map[16];
    load_map(w, map);
    int lane = threadIdx.x % 32, output = blockIdx.x * 8 + threadIdx.x / 32;
    if (output >= to) return;
    float sums[ROWS] = {};
    u64 first = (u64)output * (from / EACH);
    for (int group = lane; group < from / EACH; group += 32) {
        float numbers[EACH];
        restore_group(w, map, first + group, numbers);
#pragma unroll
        for (int i = 0; i < EACH; i++) numbers[i] = widen(narrow(numbers[i]));
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            if (row < rows) {
                float given[EACH];
                load<EACH>(x + (u64)row * from + group * EACH, given);
#pragma unroll
                for (int i = 0; i < EACH; i++) sums[row] += given[i] * numbers[i];
            }
        }
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        float sum = warp_sum(sums[row]);
        if (lane == 0 && row < rows) y[(u64)row * to + output] = narrow(sum + (bias ? widen(bias[output]) : 0.0f));
    }
}
