// The path beside a frozen weight, y += s · b ⊙ B (d ⊙ (A x)), and its gradients, for a rank
// R of at most 32.
//
// A rank this small leaves the tensor cores idle: what costs is reading x and y. So each pass
// over one of them does everything that needs it:
//
//   down       h = A x                                    reads x
//   up         y += s b ⊙ B (d ⊙ h)                       reads and writes y
//   grad_up    g = Bᵀ (s b ⊙ ∂y);  ∂y ⊙ h, a slab of tokens at a time      reads ∂y
//   grad_down  ∂x += Aᵀ (d ⊙ g);   g ⊙ x, a slab of tokens at a time       reads x, reads and writes ∂x
//   finish     sums the slabs: the gradients of A, B, d, b
//
// Sums over tokens go slab by slab in a fixed order, so that a run repeats to the bit.
//
// x [n, k] and y [n, m] are wide (T); A [R, k], B [m, R], d [R], b [m], h and g [n, R] are fp32.
// d and b may be null (LoRA).

// Columns a thread: what it keeps in registers is COLS × R.
#define COLS (R <= 4 ? 8 : R <= 8 ? 4 : 2)
// R to the next power of two.
#define RP (R <= 1 ? 1 : R <= 2 ? 2 : R <= 4 ? 4 : R <= 8 ? 8 : R <= 16 ? 16 : 32)

// A warp takes ROWS tokens, so that what it reads of A serves all of them.
#define ROWS (R <= 4 ? 4 : R <= 16 ? 2 : 1)

extern "C" __global__ void __launch_bounds__(256) down(const T* x, const float* a, float* h, int n, int k) {
    int lane = threadIdx.x & 31;
    int first = (blockIdx.x * 8 + (threadIdx.x >> 5)) * ROWS;
    if (first >= n) return;
    float acc[ROWS][RP] = {};
    for (int c = lane * 8; c < k; c += 256) {
        float v[ROWS][8];
#pragma unroll
        for (int i = 0; i < ROWS; i++) load(x + (u64)min(first + i, n - 1) * k + c, v[i]);
#pragma unroll
        for (int r = 0; r < R; r++) {
            float w[8];
            load_float(a + (u64)r * k + c, w);
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int e = 0; e < 8; e++) acc[i][r] += v[i][e] * w[e];
        }
    }
    int r = warp_sums_index<RP>(lane);
    bool writes = (lane & (32 / RP - 1)) == 0 && r < R;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        warp_sums(acc[i], lane);
        if (writes && first + i < n) h[(u64)(first + i) * R + r] = acc[i][0];
    }
}

// What multiplies component r of h in column c: s b[c] d[r] B[c, r].
__device__ __forceinline__ void folded_up(float (&w)[COLS][R], const float* up, const float* d, const float* b, float s, int c) {
#pragma unroll
    for (int j = 0; j < COLS; j++) {
        float scale = b ? s * b[c + j] : s;
#pragma unroll
        for (int r = 0; r < R; r++) w[j][r] = up[(u64)(c + j) * R + r] * scale * (d ? d[r] : 1.f);
    }
}

// Blocks of (32, 8): 32 stretches of columns, tokens in turn.
extern "C" __global__ void __launch_bounds__(256) up(T* y, const float* h, const float* up, const float* d, const float* b, float s, int n, int m, int slab) {
    int c = (blockIdx.x * 32 + threadIdx.x) * COLS;
    if (c >= m) return;
    float w[COLS][R];
    folded_up(w, up, d, b, s, c);
    int end = min(n, (int)(blockIdx.y + 1) * slab);
    for (int row = blockIdx.y * slab + threadIdx.y; row < end; row += 8) {
        float v[COLS], hr[R];
        load(y + (u64)row * m + c, v);
#pragma unroll
        for (int r = 0; r < R; r++) hr[r] = h[(u64)row * R + r];
#pragma unroll
        for (int j = 0; j < COLS; j++)
#pragma unroll
            for (int r = 0; r < R; r++) v[j] += w[j][r] * hr[r];
        store(y + (u64)row * m + c, v);
    }
}

// A block of (X, Y) takes `slab` tokens of all columns. Per slab it gives
// part_up: Σ ∂y[·, c] h[·, r] as [m, R], or, where B does not train, Σ ∂y[·, c] Σ_r d B h[·, r]
// as [m], which is all that b's gradient needs; and part_d: Σ g ⊙ h as [R].
template <bool TRAINS_UP>
__device__ __forceinline__ void grad_up_of(const T* dy, const float* h, const float* up, const float* d, const float* b, float s,
                                           float* g, float* part_up, float* part_d, int n, int m, int slab) {
    extern __shared__ float shared[];
    int lane = threadIdx.x & 31, warps_x = blockDim.x / 32, warp_x = threadIdx.x >> 5;
    float* gs = shared;                                // [slab][warps_x][R]
    float* columns = shared + slab * warps_x * R;      // [blockDim.x * COLS][R or 1]
    constexpr int WIDTH = TRAINS_UP ? R : 1;
    int begin = blockIdx.x * slab, count = min(slab, n - begin);
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < slab * warps_x * R; i += blockDim.x * blockDim.y) gs[i] = 0.f;
    __syncthreads();
    int own = warp_sums_index<RP>(lane);
    bool writes = (lane & (32 / RP - 1)) == 0 && own < R;
    int strip = blockDim.x * COLS;
    for (int c0 = 0; c0 < m; c0 += strip) {
        int c = c0 + threadIdx.x * COLS;
        bool inside = c < m;
        float w[COLS][R], sb[COLS] = {}, acc[COLS][WIDTH] = {};
        if (inside) {
#pragma unroll
            for (int j = 0; j < COLS; j++) {
                sb[j] = b ? s * b[c + j] : s;
#pragma unroll
                for (int r = 0; r < R; r++) w[j][r] = up[(u64)(c + j) * R + r];
            }
        }
        for (int row = threadIdx.y; row < count; row += blockDim.y) {
            float sums[RP] = {}, v[COLS] = {}, hr[R];
            if (inside) {
                load(dy + (u64)(begin + row) * m + c, v);
#pragma unroll
                for (int r = 0; r < R; r++) hr[r] = h[(u64)(begin + row) * R + r];
#pragma unroll
                for (int j = 0; j < COLS; j++) {
                    float path = 0.f, scaled = v[j] * sb[j];
#pragma unroll
                    for (int r = 0; r < R; r++) {
                        sums[r] += scaled * w[j][r];
                        if (TRAINS_UP) acc[j][r % WIDTH] += v[j] * hr[r];
                        else path += w[j][r] * hr[r] * (d ? d[r] : 1.f);
                    }
                    if (!TRAINS_UP) acc[j][0] += v[j] * path;
                }
            }
            warp_sums(sums, lane);
            if (writes) gs[(row * warps_x + warp_x) * R + own] += sums[0];
        }
        // The token lanes of a block, one after the other.
        for (int turn = 0; turn < blockDim.y; turn++) {
            if (threadIdx.y == turn && inside) {
#pragma unroll
                for (int j = 0; j < COLS; j++)
#pragma unroll
                    for (int r = 0; r < WIDTH; r++) {
                        float* at = columns + (threadIdx.x * COLS + j) * WIDTH + r;
                        *at = turn ? *at + acc[j][r] : acc[j][r];
                    }
            }
            __syncthreads();
        }
        float* out = part_up + ((u64)blockIdx.x * m + c0) * WIDTH;
        int total = min(strip, m - c0) * WIDTH;
        for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < total; i += blockDim.x * blockDim.y) out[i] = columns[i];
        __syncthreads();
    }
    // g of each token: the sum over the warps of its columns; then Σ g ⊙ h.
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < count * R; i += blockDim.x * blockDim.y) {
        float sum = 0.f;
        for (int warp = 0; warp < warps_x; warp++) sum += gs[((i / R) * warps_x + warp) * R + i % R];
        g[(u64)begin * R + i] = sum;
        gs[(i / R) * warps_x * R + i % R] = sum * h[(u64)begin * R + i];
    }
    __syncthreads();
    if (threadIdx.y == 0 && threadIdx.x < R) {
        float sum = 0.f;
        for (int row = 0; row < count; row++) sum += gs[row * warps_x * R + threadIdx.x];
        part_d[(u64)blockIdx.x * R + threadIdx.x] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(512) grad_up_training(const T* dy, const float* h, const float* up, const float* d, const float* b,
                                                     float s, float* g, float* part_up, float* part_d, int n, int m, int slab) {
    grad_up_of<true>(dy, h, up, d, b, s, g, part_up, part_d, n, m, slab);
}

extern "C" __global__ void __launch_bounds__(512) grad_up_frozen(const T* dy, const float* h, const float* up, const float* d, const float* b,
                                                   float s, float* g, float* part_up, float* part_d, int n, int m, int slab) {
    grad_up_of<false>(dy, h, up, d, b, s, g, part_up, part_d, n, m, slab);
}

// Blocks of (32, 8), as `up`. Per slab: part_down, Σ g[·, r] x[·, c] as [R, k].
extern "C" __global__ void __launch_bounds__(256) grad_down(T* dx, const T* x, const float* g, const float* a, const float* d,
                                                            float* part_down, int n, int k, int slab, int wants_dx, int trains_down) {
    extern __shared__ float stripes[];  // [8][32 * COLS]
    int c = (blockIdx.x * 32 + threadIdx.x) * COLS;
    bool inside = c < k;
    float w[R][COLS], acc[R][COLS] = {};
    if (inside && wants_dx) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            load_float(a + (u64)r * k + c, w[r]);
#pragma unroll
            for (int j = 0; j < COLS; j++) w[r][j] *= d ? d[r] : 1.f;
        }
    }
    int end = min(n, (int)(blockIdx.y + 1) * slab);
    for (int row = blockIdx.y * slab + threadIdx.y; inside && row < end; row += 8) {
        float gr[R];
#pragma unroll
        for (int r = 0; r < R; r++) gr[r] = g[(u64)row * R + r];
        if (wants_dx) {
            float v[COLS];
            load(dx + (u64)row * k + c, v);
#pragma unroll
            for (int j = 0; j < COLS; j++)
#pragma unroll
                for (int r = 0; r < R; r++) v[j] += w[r][j] * gr[r];
            store(dx + (u64)row * k + c, v);
        }
        if (trains_down) {
            float v[COLS];
            load(x + (u64)row * k + c, v);
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int j = 0; j < COLS; j++) acc[r][j] += v[j] * gr[r];
        }
    }
    if (!trains_down) return;
    int width = 32 * COLS;
#pragma unroll
    for (int r = 0; r < R; r++) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < COLS; j++) stripes[threadIdx.y * width + threadIdx.x * COLS + j] = acc[r][j];
        __syncthreads();
        for (int i = threadIdx.y * 32 + threadIdx.x; i < width; i += 256) {
            int column = blockIdx.x * width + i;
            if (column < k) {
                float sum = 0.f;
#pragma unroll
                for (int y = 0; y < 8; y++) sum += stripes[y * width + i];
                part_down[((u64)blockIdx.y * R + r) * k + column] = sum;
            }
        }
    }
}

// Sum of `slabs` numbers that lie `stride` apart.
__device__ __forceinline__ float slab_sum(const float* at, int slabs, u64 stride, int turn) {
    float sum = 0.f;
#pragma unroll 8
    for (int i = turn; i < slabs; i += 4) sum += at[(u64)i * stride];
    return sum;
}

// Blocks of (64, 4): 64 sums, four turns each. Block ranges in order: A's gradient, then B's and
// b's, then d's. A gradient that is not wanted is null.
extern "C" __global__ void __launch_bounds__(256) finish(const float* part_down, const float* part_up, const float* part_d, const float* up,
                                                         const float* d, const float* b, float s, float* da, float* dup, float* dd,
                                                         float* db, int k, int m, int slabs_up, int slabs_down) {
    __shared__ float sums[4][64];
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
        inside = item < R * k; from = part_down + item; stride = (u64)R * k; slabs = slabs_down;
    } else if (block < down_blocks + up_blocks) {
        kind = 1; item = (block - down_blocks) * columns * width + threadIdx.x;
        inside = threadIdx.x < columns * width && item < m * width; from = part_up + item; stride = (u64)m * width;
    } else {
        kind = 2; item = threadIdx.x;
        inside = item < R; from = part_d + item; stride = R;
    }
    sums[threadIdx.y][threadIdx.x] = inside ? slab_sum(from, slabs, stride, threadIdx.y) : 0.f;
    __syncthreads();
    if (threadIdx.y == 0) {
        float sum = sums[0][threadIdx.x] + sums[1][threadIdx.x] + sums[2][threadIdx.x] + sums[3][threadIdx.x];
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
