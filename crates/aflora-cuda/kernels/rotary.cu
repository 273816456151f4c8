// Rotary position embeddings (Su et al. 2021) of queries and keys in one launch. Turned by angles of the other
// sign, gradients go back, so the same kernel computes them, and nothing is kept but cosines and sines.
//
// Of a head of `size` elements the first 2 · `half` are turned: element i with element i + half, or, with
// INTERLEAVED, element 2i with element 2i + 1. The others are copied.

// Queries and keys: `heads` of them; where the first element of a text, a position, a head lies, in elements.
// What is written is [batch, length, heads, size].
struct Turned {
    const T* from;
    T* to;
    u32 heads, units;
    long long batch, position, head;
};

struct Both {
    Turned of[2];
};

// cos and sin [batch or 1, length, half], a text's `of_text` elements apart. Queries, then keys, are the grid's second
// dimension.
extern "C" __global__ void __launch_bounds__(256) rotary(const __grid_constant__ Both both, const T* cos, const T* sin, u32 of_text, float sign,
                                                         u32 length, u32 half, u32 size) {
    const Turned& x = both.of[blockIdx.y];
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= x.units) return;
#if INTERLEAVED
    u32 turning = half / 4, units = size / 8;
#else
    // A unit is eight elements and their eight partners, or eight that are copied.
    u32 turning = half / 8, units = turning + (size - 2 * half) / 8;
#endif
    u32 unit = i % units, head = i / units % x.heads, token = i / units / x.heads, text = token / length, position = token % length;
    const T* from = x.from + text * x.batch + position * x.position + head * x.head;
    T* to = x.to + ((u64)token * x.heads + head) * size;
    u64 angle = (u64)text * of_text + (u64)position * half;
    float a[8];
    if (unit >= turning) {
        u32 at = (unit - turning) * 8 + 2 * half;
        load(from + at, a);
        store(to + at, a);
        return;
    }
#if INTERLEAVED
    float c[4], s[4], turned[8];
    load(from + unit * 8, a);
    load(cos + angle + unit * 4, c);
    load(sin + angle + unit * 4, s);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        turned[2 * e] = a[2 * e] * c[e] - a[2 * e + 1] * sign * s[e];
        turned[2 * e + 1] = a[2 * e + 1] * c[e] + a[2 * e] * sign * s[e];
    }
    store(to + unit * 8, turned);
#else
    float b[8], c[8], s[8], first[8], second[8];
    load(from + unit * 8, a);
    load(from + half + unit * 8, b);
    load(cos + angle + unit * 8, c);
    load(sin + angle + unit * 8, s);
#pragma unroll
    for (int e = 0; e < 8; e++) {
        first[e] = a[e] * c[e] - b[e] * sign * s[e];
        second[e] = b[e] * c[e] + a[e] * sign * s[e];
    }
    store(to + unit * 8, first);
    store(to + half + unit * 8, second);
#endif
}
