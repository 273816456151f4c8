// Tokens by head: [n, heads, size] to [heads, n, size] and back, for several tensors in one
// launch. Elements are moved in units of 16, 4 or 2 bytes, whatever they are.

#define MOST 5

struct Segments {
    const void* from[MOST];
    void* to[MOST];
    int rows[MOST];
};

// `units` of a token and head; the segment is the grid's second dimension.
template <typename Unit> __device__ __forceinline__ void move(const Segments& segments, int heads, int units, int to_heads) {
    const Unit* from = (const Unit*)segments.from[blockIdx.y];
    Unit* to = (Unit*)segments.to[blockIdx.y];
    // Fewer than 2³² units: division of 64 bits would take longer than the memory.
    u32 n = segments.rows[blockIdx.y], row = heads * units, total = n * row;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        u32 token = i / row, rest = i % row, head = rest / units, unit = rest % units;
        u32 by_head = (head * n + token) * units + unit;
        if (to_heads) to[by_head] = from[i];
        else to[i] = from[by_head];
    }
}

extern "C" __global__ void __launch_bounds__(256) move16(const __grid_constant__ Segments segments, int heads, int units, int to_heads) {
    move<uint4>(segments, heads, units, to_heads);
}

extern "C" __global__ void __launch_bounds__(256) move4(const __grid_constant__ Segments segments, int heads, int units, int to_heads) {
    move<u32>(segments, heads, units, to_heads);
}

extern "C" __global__ void __launch_bounds__(256) move2(const __grid_constant__ Segments segments, int heads, int units, int to_heads) {
    move<u16>(segments, heads, units, to_heads);
}
