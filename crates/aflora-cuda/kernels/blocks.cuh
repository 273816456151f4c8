// Numbers in blocks of few bits, as GGUF files hold them, to the bit as the `gguf` package restores them:
// the same products and sums in the same order. Compiled by NVRTC for a GPU (without any header), and by
// the host's compiler (shim/blocks.h).
//
// Q4_0 and its kin hold a scale d, some a least value m, and 32 numbers q of a few bits: a number is d · q
// or d · q + m. The K formats hold 256 numbers in parts of 16 or 32 with scales of their own, which are few
// bits of a common one. Formats go by their numbers in llama.cpp.

#ifdef __CUDACC_RTC__
#define BLOCKS_OF __device__ __forceinline__
#else
#include <cstring>
#define BLOCKS_OF inline
#endif

namespace blocks {

typedef unsigned char Byte;

enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

// Numbers of a block.
constexpr int numbers(int format) { return format >= Q2_K ? 256 : 32; }

// Its bytes; 0 of what is no format.
constexpr int bytes(int format) {
    switch (format) {
    case Q4_0: return 18;
    case Q4_1: return 20;
    case Q5_0: return 22;
    case Q5_1: return 24;
    case Q8_0: return 34;
    case Q2_K: return 84;
    case Q3_K: return 110;
    case Q4_K: return 144;
    case Q5_K: return 176;
    case Q6_K: return 210;
    default: return 0;
    }
}

// Each rounded by itself.
#ifdef __CUDACC_RTC__
BLOCKS_OF float product(float a, float b) { return __fmul_rn(a, b); }
BLOCKS_OF float sum(float a, float b) { return __fadd_rn(a, b); }
BLOCKS_OF float of_bits(unsigned bits) { return __uint_as_float(bits); }
#else
BLOCKS_OF float product(float a, float b) { return a * b; }
BLOCKS_OF float sum(float a, float b) { return a + b; }
BLOCKS_OF float of_bits(unsigned bits) {
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}
#endif

// The number in half precision at `at`.
BLOCKS_OF float half(const Byte* at) {
    unsigned bits = at[0] | at[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023, sign = (bits & 0x8000) << 16;
    // Below the least exponent, so many 2^-24.
    if (!exponent) return of_bits(sign) + (sign ? -1.0f : 1.0f) * ((float)fraction * 5.9604644775390625e-8f);
    return of_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

// The i-th number of 32 in four bits: the lower halves of 16 bytes come first.
BLOCKS_OF int four(const Byte* q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

// The i-th number of 32 in five bits, the fifth ones in four bytes of their own.
BLOCKS_OF int five(const Byte* q, const Byte* high, int i) { return four(q, i) | (high[i / 8] >> (i % 8) & 1) << 4; }

// The i-th number of 256 in two bits: each 32 bytes hold 128 numbers, the lowest bits of all of them first.
BLOCKS_OF int two(const Byte* q, int i) { return q[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3; }

// The i-th number of 256 in four bits: each 32 bytes hold 64 numbers, the lower halves first.
BLOCKS_OF int four_of_super(const Byte* q, int i) { return q[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15; }

// One of eight scales and of eight least values of six bits each, in twelve bytes: four of each kind in the
// lower bits of four bytes; of the others, four bits in the last four bytes and two in the upper bits of the
// first eight.
BLOCKS_OF void scale_and_least(const Byte* packed, int part, int& scale, int& least) {
    if (part < 4) {
        scale = packed[part] & 63;
        least = packed[part + 4] & 63;
    } else {
        int last = packed[part + 4];
        scale = (last & 15) | (packed[part - 4] >> 2 & 48);
        least = last >> 4 | (packed[part] >> 2 & 48);
    }
}

// Eight numbers of a block from the place `first` on, a multiple of eight: they share a scale.
template <int FORMAT> BLOCKS_OF void restore_eight(const Byte* block, int first, float (&out)[8]) {
    if constexpr (FORMAT == Q4_0 || FORMAT == Q5_0) {
        float d = half(block);
        for (int i = 0; i < 8; i++) {
            int q = FORMAT == Q4_0 ? four(block + 2, first + i) - 8 : five(block + 6, block + 2, first + i) - 16;
            out[i] = product(d, (float)q);
        }
    } else if constexpr (FORMAT == Q4_1 || FORMAT == Q5_1) {
        float d = half(block), m = half(block + 2);
        for (int i = 0; i < 8; i++) {
            int q = FORMAT == Q4_1 ? four(block + 4, first + i) : five(block + 8, block + 4, first + i);
            out[i] = sum(product(d, (float)q), m);
        }
    } else if constexpr (FORMAT == Q8_0) {
        float d = half(block);
        for (int i = 0; i < 8; i++) out[i] = product((float)(signed char)block[2 + first + i], d);
    } else if constexpr (FORMAT == Q2_K) {
        int scale = block[first / 16];
        float d = product(half(block + 80), (float)(scale & 15)), m = product(half(block + 82), (float)(scale >> 4));
        for (int i = 0; i < 8; i++) out[i] = sum(product(d, (float)two(block + 16, first + i)), -m);
    } else if constexpr (FORMAT == Q3_K) {
        // Sixteen scales of six bits: the lower four of two in each of eight bytes, the upper two of four
        // in each of the four bytes behind.
        const Byte* packed = block + 96;
        int part = first / 16, low = packed[part % 8] >> (part / 8 * 4) & 15, high = packed[8 + part % 4] >> (part / 4 * 2) & 3;
        float d = product(half(block + 108), (float)((low | high << 4) - 32));
        for (int i = 0; i < 8; i++) {
            // Where the bit is set, nothing is taken away.
            int below = block[(first + i) % 32] >> (first / 32) & 1 ? 0 : 4;
            out[i] = product(d, (float)(two(block + 32, first + i) - below));
        }
    } else if constexpr (FORMAT == Q4_K || FORMAT == Q5_K) {
        int scale, least;
        scale_and_least(block + 4, first / 32, scale, least);
        float d = product(half(block), (float)scale), m = product(half(block + 2), (float)least);
        for (int i = 0; i < 8; i++) {
            int at = first + i, q = four_of_super(block + (FORMAT == Q4_K ? 16 : 48), at);
            if (FORMAT == Q5_K) q |= (block[16 + at % 32] >> (at / 32) & 1) << 4;
            out[i] = sum(product(d, (float)q), -m);
        }
    } else {
        float d = product(half(block + 208), (float)(signed char)block[192 + first / 16]);
        for (int i = 0; i < 8; i++) {
            int at = first + i, low = block[at / 128 * 64 + at % 64] >> (at % 128 / 64 * 4) & 15;
            out[i] = product(d, (float)((low | two(block + 128, at) << 4) - 32));
        }
    }
}

}  // namespace blocks
