// Numbers of eight bits: a sign, four bits of exponent, three of fraction (e4m3fn of OFP8, the Open Compute
// Project's specification), to 448, without infinities. And the scales that bring rows there: powers of two,
// so that to multiply and to divide by them rounds nothing. Compiled by NVRTC for a GPU (without any header),
// and by the host's compiler.

#ifdef __CUDACC_RTC__
#define E4M3_OF __device__ __forceinline__
#else
#include <cstring>
#define E4M3_OF inline
#endif

namespace e4m3 {

typedef unsigned char Byte;

#ifdef __CUDACC_RTC__
E4M3_OF unsigned bits_of(float number) { return __float_as_uint(number); }
E4M3_OF float of_bits(unsigned bits) { return __uint_as_float(bits); }
#else
E4M3_OF unsigned bits_of(float number) {
    unsigned bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}
E4M3_OF float of_bits(unsigned bits) {
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}
#endif

// What a code stands for.
E4M3_OF float number(Byte code) {
    unsigned magnitude = code & 127u, sign = (code & 128u) << 24;
    if (magnitude == 127u) return of_bits(sign | 0x7fc00000u);
    // The upper bits of an fp32, whose exponents begin 120 lower.
    return of_bits(sign | magnitude << 20) * of_bits((120u + 127u) << 23);
}

// The code of the nearest number, of two as near the one whose code is even; 448 of what is beyond.
E4M3_OF Byte code(float number) {
    unsigned bits = bits_of(number), magnitude = bits & 0x7fffffffu, sign = bits >> 24 & 128u;
    if (magnitude > 0x7f800000u) return Byte(sign | 127u);
    if (magnitude >= bits_of(448.f)) return Byte(sign | 126u);
    // Below 2^-6 numbers are 2^-9 apart, as those of fp32 are from 2^14 on.
    if (magnitude < bits_of(0.015625f)) return Byte(sign | (bits_of(of_bits(magnitude) + 16384.f) - bits_of(16384.f)));
    return Byte(sign | (magnitude - (120u << 23) + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20);
}

// The larger one; NaN if one is.
E4M3_OF float larger(float x, float y) { return x > y || x != x ? x : y; }

// Of a row whose largest magnitude this is, the least power of two by which it is divided to be 448, which is
// 1.75 · 2^8, or less; NaN if that is infinite or NaN, so that nothing of such a row passes for a number.
E4M3_OF float scale(float largest) {
    unsigned bits = bits_of(largest);
    if (bits >= 0x7f800000u) return of_bits(0x7fc00000u);
    unsigned exponent = (bits + 0x1fffffu) >> 23;
    return of_bits((exponent > 8u ? exponent - 8u : 1u) << 23);
}

}  // namespace e4m3
