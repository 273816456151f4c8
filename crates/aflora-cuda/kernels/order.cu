// What a freeze test reads of a flat buffer: the mean of each piece, and the k-th smallest number of all pieces. Sums have a fixed
// order, and counts are whole numbers, so both are the same every time.
//
// The k-th smallest is found digit by digit, the highest first: all numbers that have the digits found so far are counted by the
// next, and the digit at which the count reaches k is the next that is found.

#define THREADS 256
#define BINS 2048
#define DIGITS 3
#define EACH (BINS / THREADS)

// Digits of a key: 11 bits, 11 and 10.
__device__ __forceinline__ int shift(int digit) { return digit == 0 ? 21 : digit == 1 ? 10 : 0; }
__device__ __forceinline__ u32 mask(int digit) { return digit == 2 ? 1023u : 2047u; }

// Whole numbers in the order of the numbers they stand for; NaN comes last.
__device__ __forceinline__ u32 key_of(float x) {
    if (x != x) return 0xffffffffu;
    u32 bits = __float_as_uint(x);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ float number_of(u32 key) { return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu)); }

// The first so many digits of the key that is the k-th smallest, of which `counts` tells; k becomes its place among those
// that have these digits. For a whole block.
__device__ __forceinline__ u32 find(const u32* counts, int digits, u32& k) {
    __shared__ u32 sums[THREADS], found[2];
    u32 key = 0;
    for (int digit = 0; digit < digits; digit++) {
        u32 own[EACH], sum = 0;
#pragma unroll
        for (int i = 0; i < EACH; i++) sum += own[i] = counts[digit * BINS + threadIdx.x * EACH + i];
        sums[threadIdx.x] = sum;
        __syncthreads();
        // Each thread's becomes that of all up to it.
        for (int back = 1; back < THREADS; back *= 2) {
            u32 before = (int)threadIdx.x >= back ? sums[threadIdx.x - back] : 0;
            __syncthreads();
            sums[threadIdx.x] += before;
            __syncthreads();
        }
        u32 up_to = sums[threadIdx.x] - sum;
        if (up_to < k && k <= up_to + sum) {
            u32 bin = 0;
            while (up_to + own[bin] < k) up_to += own[bin++];
            found[0] = threadIdx.x * EACH + bin;
            found[1] = k - up_to;
        }
        __syncthreads();
        key = key << (digit == 2 ? 10 : 11) | found[0];
        k = found[1];
        __syncthreads();
    }
    return key;
}

// Counts numbers by one of their digits, of those that have the digits before: into counts[digit], which begin at zero.
extern "C" __global__ void __launch_bounds__(THREADS) count(const float* x, const long long* pieces, int number, u32* counts, int digit, u32 k) {
    __shared__ u32 own[BINS];
    for (int i = threadIdx.x; i < BINS; i += THREADS) own[i] = 0;
    u32 before = find(counts, digit, k);
    __syncthreads();
    for (int piece = blockIdx.x; piece < number; piece += gridDim.x) {
        long long end = pieces[2 * piece + 1];
        for (long long i = pieces[2 * piece] + threadIdx.x; i < end; i += THREADS) {
            u32 key = key_of(x[i]);
            if (digit == 0 || key >> shift(digit - 1) == before) atomicAdd(&own[key >> shift(digit) & mask(digit)], 1u);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += THREADS)
        if (own[i]) atomicAdd(&counts[digit * BINS + i], own[i]);
}

// One block: the k-th smallest, from 1, once all digits are counted.
extern "C" __global__ void __launch_bounds__(THREADS) pick(const u32* counts, u32 k, float* out) {
    u32 key = find(counts, DIGITS, k);
    if (threadIdx.x == 0) *out = number_of(key);
}

// Block i: the mean of piece i.
extern "C" __global__ void __launch_bounds__(THREADS) mean(const float* x, const long long* pieces, float* out) {
    long long begin = pieces[2 * blockIdx.x], end = pieces[2 * blockIdx.x + 1];
    // Four at once, each with a sum of its own.
    float sums[4] = {0, 0, 0, 0};
    for (long long i = begin + threadIdx.x; i < end; i += 4 * THREADS) {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i + j * THREADS < end) sums[j] += x[i + j * THREADS];
    }
    __shared__ float shared_sums[THREADS / 32];
    float sum = row_sum<THREADS>((sums[0] + sums[1]) + (sums[2] + sums[3]), shared_sums);
    if (threadIdx.x == 0) out[blockIdx.x] = sum / (float)(end - begin);
}
