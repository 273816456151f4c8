// The sums that gradients of low-rank paths are made of: over stretches of columns, WIDTH each, and over slabs of tokens, in a
// fixed order, so that a run repeats to the bit. See low_rank.cu for what is computed.

// Blocks of 256, 256 / R tokens each: g, the sum of its shares, of which there is room for `most`; 0 for tokens that a path
// does not read. And part_d, Σ g ⊙ h of a block's tokens as [PATHS, blocks, R].
extern "C" __global__ void __launch_bounds__(256) sum_g(const __grid_constant__ KernelPaths paths, const float* part_g, const float* h, float* g,
                                                        float* part_d, int n, int most) {
    previous_done();
    constexpr int TOKENS = 256 / R, LANES = TOKENS < 8 ? TOKENS : 8;
    __shared__ float products[256], sums[LANES * R];
    const KernelPath& path = paths.at[PATH];
    u64 total = (u64)n * R, i = (u64)blockIdx.x * TOKENS * R + threadIdx.x;
    int across = (path.m + WIDTH - 1) / WIDTH;
    part_g += (u64)PATH * most * total;
    h += (u64)PATH * total;
    g += (u64)PATH * total;
    part_d += (u64)PATH * gridDim.x * R;
    float sum = 0.f;
    bool inside = threadIdx.x < TOKENS * R && i < total;
    if (inside) {
        if (i < (u64)path.rows * R)
            for (int x = 0; x < across; x++) sum += part_g[x * total + i];
        g[i] = sum;
    }
    products[threadIdx.x] = inside ? sum * h[i] : 0.f;
    __syncthreads();
    if (threadIdx.x < LANES * R) {
        float product = 0.f;
        for (int at = threadIdx.x; at < TOKENS * R; at += LANES * R) product += products[at];
        sums[threadIdx.x] = product;
    }
    __syncthreads();
    if (threadIdx.x < R) {
        float product = 0.f;
#pragma unroll
        for (int y = 0; y < LANES; y++) product += sums[y * R + threadIdx.x];
        part_d[(u64)blockIdx.x * R + threadIdx.x] = product;
    }
}

// Threads that share out a sum over slabs.
#define TURNS 8

// Sum of every TURNS-th of `slabs` numbers that lie `stride` apart.
__device__ __forceinline__ float slab_sum(const float* at, int slabs, u64 stride, int turn) {
    float sum = 0.f;
#pragma unroll 8
    for (int i = turn; i < slabs; i += TURNS) sum += at[(u64)i * stride];
    return sum;
}

// Blocks of (64, TURNS): 64 sums. Block ranges of a path in order: A's gradient, then B's and
// b's, then d's; there are as many blocks as the longest takes.
extern "C" __global__ void __launch_bounds__(64 * TURNS) finish(const __grid_constant__ KernelPaths paths, const float* part_down, const float* part_d, int k,
                                                         int slabs_up, int slabs_down, int slabs_d) {
    previous_done();
    const KernelPath& path = paths.at[PATH];
    const float *up = path.up, *d = path.d, *b = path.b, *part_up = path.part_up;
    float *da = path.da, *dup = path.dup, *dd = path.dd, *db = path.db, s = path.s;
    int m = path.m;
    part_down += (u64)PATH * R * k;
    part_d += (u64)PATH * slabs_d * R;
    __shared__ float sums[TURNS][64];
    __shared__ float products[64];
    int block = blockIdx.x;
    int down_blocks = da ? (R * k + 63) / 64 : 0;
    // Whole columns a block, so that b's sum over components stays inside.
    int width = dup ? R : 1;
    int columns = 64 / width;
    int up_blocks = (dup || db) ? (m + columns - 1) / columns : 0;
    const float* from = nullptr;
    u64 stride = 0;
    int slabs = slabs_up, item = 0, kind;
    bool inside;
    if (block < down_blocks) {
        kind = 0; item = block * 64 + threadIdx.x;
        inside = item < R * k; from = part_down + item; stride = (u64)ALL * k; slabs = slabs_down;
    } else if (block < down_blocks + up_blocks) {
        kind = 1; item = (block - down_blocks) * columns * width + threadIdx.x;
        inside = threadIdx.x < columns * width && item < m * width;
        from = part_up + (u64)(item % width) * m + item / width; stride = (u64)m * width;
    } else if (dd && block == down_blocks + up_blocks) {
        kind = 2; item = threadIdx.x;
        inside = item < R; from = part_d + item; stride = R; slabs = slabs_d;
    } else {
        return;
    }
    sums[threadIdx.y][threadIdx.x] = inside ? slab_sum(from, slabs, stride, threadIdx.y) : 0.f;
    __syncthreads();
    if (threadIdx.y == 0) {
        float sum = 0.f;
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) sum += sums[turn][threadIdx.x];
        products[threadIdx.x] = 0.f;
        if (inside && kind == 0) da[item] = sum * (d ? d[item / k] : 1.f);
        if (inside && kind == 2) dd[item] = sum;
        if (inside && kind == 1) {
            if (dup) {
                int column = item / R;
                sum *= s * (d ? d[item % R] : 1.f);
                dup[item] = sum * (b ? b[column] : 1.f);
                products[threadIdx.x] = sum * up[item];
            } else {
                products[threadIdx.x] = s * sum;
            }
        }
    }
    __syncthreads();
    if (kind == 1 && db && threadIdx.y == 0 && threadIdx.x < columns) {
        int column = (block - down_blocks) * columns + threadIdx.x;
        if (column < m) {
            float sum = 0.f;
            for (int r = 0; r < width; r++) sum += products[threadIdx.x * width + r];
            db[column] = sum;
        }
    }
}
