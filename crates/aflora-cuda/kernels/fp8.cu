// The operands of products in fp8: rows of bf16 or fp32 rounded to e4m3 with a scale each, and a weight's codes
// transposed, for the tensor cores read both operands along the sum.
//
// Rows of `width` elements, a multiple of eight; THREADS threads a row (32 or 256), 256 a block. A row is read
// twice, the second time from the cache. `by`, if given, is multiplied onto a row element by element before it
// is rounded: powers of two.

#include "e4m3.cuh"

__device__ __forceinline__ int own_row() { return blockIdx.x * (256 / THREADS) + threadIdx.x / THREADS; }

// Eight elements of x ⊙ by.
__device__ __forceinline__ void load8(const T* x, const float* by, int c, float (&v)[8]) {
    load_joined(x, by, c, v, [](float of, float factor) { return of * factor; });
}

// The scale of a row at x, which all of its threads get.
__device__ __forceinline__ float row_scale(const T* x, const float* by, int width, float* shared) {
    float largest = 0.f;
    for (int c = threadIdx.x % THREADS * 8; c < width; c += THREADS * 8) {
        float v[8];
        load8(x, by, c, v);
#pragma unroll
        for (int e = 0; e < 8; e++) largest = e4m3::larger(fabsf(v[e]), largest);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) largest = e4m3::larger(__shfl_xor_sync(~0u, largest, offset), largest);
#if THREADS > 32
    if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = largest;
    __syncthreads();
    largest = 0.f;
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++) largest = e4m3::larger(shared[i], largest);
#endif
    return e4m3::scale(largest);
}

// Four codes in a word, the first the lowest.
__device__ __forceinline__ u32 codes_of(const float* v, float inverse) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    u16 lower, upper;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(lower) : "f"(v[1] * inverse), "f"(v[0] * inverse));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(upper) : "f"(v[3] * inverse), "f"(v[2] * inverse));
    return (u32)lower | (u32)upper << 16;
#else
    u32 word = 0;
#pragma unroll
    for (int e = 0; e < 4; e++) word |= (u32)e4m3::code(v[e] * inverse) << (8 * e);
    return word;
#endif
}

// The codes of x ⊙ by, and the scale of each row.
extern "C" __global__ void __launch_bounds__(256) to_codes(const T* x, const float* by, uint2* codes, float* scales, int rows, int width) {
    __shared__ float shared[8];
    int row = own_row();
    if (row >= rows) return;
    x += (u64)row * width;
    float scale = row_scale(x, by, width, shared), inverse = 1.f / scale;
    for (int c = threadIdx.x % THREADS * 8; c < width; c += THREADS * 8) {
        float v[8];
        load8(x, by, c, v);
        codes[((u64)row * width + c) / 8] = make_uint2(codes_of(v, inverse), codes_of(v + 4, inverse));
    }
    if (threadIdx.x % THREADS == 0) scales[row] = scale;
}

// What these codes stand for, divided by `by` again: exact in T.
extern "C" __global__ void __launch_bounds__(256) round_rows(const T* x, const float* by, T* out, int rows, int width) {
    __shared__ float shared[8];
    int row = own_row();
    if (row >= rows) return;
    x += (u64)row * width;
    float scale = row_scale(x, by, width, shared), inverse = 1.f / scale;
    for (int c = threadIdx.x % THREADS * 8; c < width; c += THREADS * 8) {
        float v[8];
        load8(x, by, c, v);
        u32 words[2] = {codes_of(v, inverse), codes_of(v + 4, inverse)};
#pragma unroll
        for (int e = 0; e < 8; e++) {
            v[e] = e4m3::number((e4m3::Byte)(words[e / 4] >> (8 * (e % 4)))) * scale;
            if (by) v[e] /= by[c + e];
        }
        store(out + (u64)row * width + c, v);
    }
}

// Codes [rows, columns] as [columns, rows], and a scale of one for each of these; both are multiples of four. A
// block turns 128 × 128 of them, which lie in `tile` by columns, each turned by as many words as keep the lanes
// in banks of their own on both ways.
extern "C" __global__ void __launch_bounds__(256) transpose(const u32* from, u32* to, float* ones, int rows, int columns) {
    __shared__ u32 tile[128 * 32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first_row = blockIdx.y * 128, first_column = blockIdx.x * 128;
#pragma unroll
    for (int group = warp; group < 32; group += 8) {
        int row = first_row + 4 * group, column = first_column + 4 * lane;
        if (row < rows && column < columns) {
            u32 words[4];
#pragma unroll
            for (int r = 0; r < 4; r++) words[r] = from[((u64)(row + r) * columns + column) / 4];
#pragma unroll
            for (int c = 0; c < 4; c++) {
                u32 word = 0;
#pragma unroll
                for (int r = 0; r < 4; r++) word |= (words[r] >> (8 * c) & 255u) << (8 * r);
                tile[(4 * lane + c) * 32 + ((group + lane) & 31)] = word;
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int c = warp; c < 128; c += 8) {
        int column = first_column + c, row = first_row + 4 * lane;
        if (row < rows && column < columns) to[((u64)column * rows + row) / 4] = tile[c * 32 + ((lane + c / 4) & 31)];
    }
    if (blockIdx.y == 0 && threadIdx.x < 128 && first_column + (int)threadIdx.x < columns) ones[first_column + threadIdx.x] = 1.f;
}
