// What every kernel here shares: elements in bf16 or fp32 read and written eight at a time,
// reductions over a warp, and the Philox generator.
//
// Compiled by NVRTC without any header. BF16 is 1 or 0: the kind of the wide tensors. All
// arithmetic is in fp32.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define MINUS_INFINITY __int_as_float(0xff800000)

#ifndef EMULATED  // tests/emulation brings its own
__device__ __forceinline__ u16 to_bf16(float x) {
    u16 out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
}

// Two in a word, the first in the lower half.
__device__ __forceinline__ u32 to_bf16(float lower, float upper) {
    u32 out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(upper), "f"(lower));
    return out;
}
#endif

#if BF16
typedef u16 T;
__device__ __forceinline__ float widen(T x) { return __uint_as_float((u32)x << 16); }
__device__ __forceinline__ T narrow(float x) { return to_bf16(x); }
#else
typedef float T;
__device__ __forceinline__ float widen(T x) { return x; }
__device__ __forceinline__ T narrow(float x) { return x; }
#endif

// As it is read again once it was written.
__device__ __forceinline__ float rounded(float x) { return widen(narrow(x)); }

template <int N> __device__ __forceinline__ void load_float(const float* p, float (&out)[N]) {
    if constexpr (N == 2) {
        float2 v = *(const float2*)p;
        out[0] = v.x; out[1] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 v = *(const float4*)(p + i);
            out[i] = v.x; out[i + 1] = v.y; out[i + 2] = v.z; out[i + 3] = v.w;
        }
    }
}

template <int N> __device__ __forceinline__ void store_float(float* p, const float (&in)[N]) {
    if constexpr (N == 2) {
        *(float2*)p = make_float2(in[0], in[1]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4) *(float4*)(p + i) = make_float4(in[i], in[i + 1], in[i + 2], in[i + 3]);
    }
}

// N consecutive elements; the address is a multiple of N elements.
template <int N> __device__ __forceinline__ void load(const T* p, float (&out)[N]) {
#if BF16
    u32 words[N / 2];
    if constexpr (N == 8) {
        uint4 v = *(const uint4*)p;
        words[0] = v.x; words[1] = v.y; words[2] = v.z; words[3] = v.w;
    } else if constexpr (N == 4) {
        uint2 v = *(const uint2*)p;
        words[0] = v.x; words[1] = v.y;
    } else {
        words[0] = *(const u32*)p;
    }
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        out[2 * i] = __uint_as_float(words[i] << 16);
        out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
#else
    load_float(p, out);
#endif
}

// Eight of x from `c` on, each joined with its own of `with`, if that is given.
template <typename Join> __device__ __forceinline__ void load_joined(const T* x, const float* with, int c, float (&v)[8], Join join) {
    load(x + c, v);
    if (!with) return;
    float other[8];
    load_float(with + c, other);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = join(v[i], other[i]);
}

template <int N> __device__ __forceinline__ void store(T* p, const float (&in)[N]) {
#if BF16
    u32 words[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) words[i] = to_bf16(in[2 * i], in[2 * i + 1]);
    if constexpr (N == 8) {
        *(uint4*)p = make_uint4(words[0], words[1], words[2], words[3]);
    } else if constexpr (N == 4) {
        *(uint2*)p = make_uint2(words[0], words[1]);
    } else {
        *(u32*)p = words[0];
    }
#else
    store_float(p, in);
#endif
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(~0u, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
    return x;
}

// What the N threads of a row come to, which every one of them gets: a warp, or a block, which lends a place for each of its
// warps. `x` is what its own warp came to.
template <int N, typename Join> __device__ __forceinline__ float row_of(float x, float none, float* shared, Join join) {
    if constexpr (N > 32) {
        __syncthreads();
        if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = x;
        __syncthreads();
        x = none;
#pragma unroll
        for (int i = 0; i < N / 32; i++) x = join(x, shared[i]);
    }
    return x;
}

template <int N> __device__ __forceinline__ float row_sum(float x, float* shared) {
    return row_of<N>(warp_sum(x), 0.f, shared, [](float a, float b) { return a + b; });
}

template <int N> __device__ __forceinline__ float row_max(float x, float* shared) {
    return row_of<N>(warp_max(x), MINUS_INFINITY, shared, [](float a, float b) { return fmaxf(a, b); });
}

// Sums of N values (a power of two, at most 32) over a warp. Each exchange halves what a lane
// still carries, so N sums cost N - 1 + log2(32 / N) shuffles instead of 5 N. On return v[0] of
// a lane is the sum of value `warp_sums_index<N>(lane)`.
template <int N> __device__ __forceinline__ void warp_sums(float (&v)[N], int lane) {
    int held = N;
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        if (held > 1) {
            held >>= 1;
#pragma unroll
            for (int i = 0; i < N / 2; i++) {
                if (i < held) {
                    bool upper = lane & offset;
                    float give = upper ? v[i] : v[i + held];
                    float keep = upper ? v[i + held] : v[i];
                    v[i] = keep + __shfl_xor_sync(~0u, give, offset);
                }
            }
        } else {
            v[0] += __shfl_xor_sync(~0u, v[0], offset);
        }
    }
}

template <int N> __device__ __forceinline__ int warp_sums_index(int lane) {
    int index = 0;
    int held = N;
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        if (held > 1) {
            held >>= 1;
            if (lane & offset) index += held;
        }
    }
    return index;
}

// Where a random stream stands. While a graph is captured seed and offset lie in memory, where
// each replay finds new ones.
struct Random {
    const u64* seed_at;
    const u64* offset_at;
    u64 seed;
    u64 offset;
};

// Philox4x32-7 (Salmon et al. 2011): four random words for a place. Seven rounds are the fewest that pass all their tests; ten, as for
// libtorch's other random numbers, only leave more to spare, and its flash attention drops by seven as well.
struct Philox {
    u32 key0, key1, offset0, offset1;
    __device__ __forceinline__ Philox(const Random& r) {
        u64 seed = r.seed_at ? *r.seed_at : r.seed;
        u64 offset = (r.offset_at ? *r.offset_at + r.offset : r.offset) / 4;
        key0 = (u32)seed; key1 = (u32)(seed >> 32);
        offset0 = (u32)offset; offset1 = (u32)(offset >> 32);
    }
    __device__ __forceinline__ uint4 at(u64 place) const {
        u32 c0 = offset0, c1 = offset1, c2 = (u32)place, c3 = (u32)(place >> 32);
        u32 k0 = key0, k1 = key1;
#pragma unroll
        for (int round = 0; round < 7; round++) {
            u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
            u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
            c0 = high1 ^ c1 ^ k0; c1 = low1;
            c2 = high0 ^ c3 ^ k1; c3 = low0;
            k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
        }
        return make_uint4(c0, c1, c2, c3);
    }
};

// Dropout of eight values that share the random words of `place`, 16 bits each: a value stays
// where its bits are not below `threshold`, times `keep`.
__device__ __forceinline__ void drop8(float (&v)[8], const Philox& random, u64 place, u32 threshold, float keep) {
    uint4 words = random.at(place);
    u32 word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = (word[i / 2] >> (16 * (i & 1)) & 0xffffu) >= threshold ? v[i] * keep : 0.f;
}
