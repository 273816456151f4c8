// What gradients of scores add up to by rows of positions, tile after tile of attention_tiles.cuh. See disentangled_tiled.cu.

// The most distances of a bucket that one lane sums up for all rows.
#define NARROW 8

// Sums of a row's gradients that have one row of positions in common: a bucket of neighbouring distances, the same
// for all rows. A lane takes a bucket and sums it up for each row; what a bucket has that goes on in the next
// tile, one a row, is carried there by the lane of that row.
template <bool KEYS> struct Buckets {
    const Place<KEYS>& place;
    T* to;   // of the text's head
    int o0;  // the warp's first token
    int columns_end;  // behind the last column that is looked at
    float carried;

    __device__ __forceinline__ Buckets(const Place<KEYS>& place, T* to) : place(place), to(to), o0(place.o0 + 16 * place.warp), columns_end(place.columns_end()), carried(0.f) {}

    // The columns of a row of positions, which begins at `edge` of the next and ends at its own.
    __device__ __forceinline__ int begin(int o, int own_edge, int next_edge) const { return KEYS ? o + place.L - own_edge : next_edge - (place.L - 1) + o; }
    __device__ __forceinline__ int end(int o, int own_edge, int next_edge) const { return KEYS ? o + place.L - next_edge : own_edge - (place.L - 1) + o; }

    __device__ __forceinline__ void write(int row, int r, float sum) const {
        if (o0 + row < place.L) to[(u64)(o0 + row) * place.of.positions + r] = narrow(sum);
    }

    // `d`: the warp's gradients of scores; `stage`: its share of `tile.scores`, which no other warp reads any more.
    __device__ __forceinline__ void add(const float (&d)[TILES][4], const Tile& tile, float* stage, int c0) {
        int lane = place.lane, columns = min(COLS, columns_end - c0);
        // Where each distance has a row of positions of its own, each gradient is a sum: a row of them goes as it lies, forth or back.
        if (STRAIGHTS && place.straight) {
            T* rows = (T*)stage;
#pragma unroll
            for (int n = 0; n < TILES; n++) {
#pragma unroll
                for (int h = 0; h < 2; h++) *(u32*)(rows + (place.g + 8 * h) * PITCH + 8 * n + 2 * place.t) = to_bf16(d[n][2 * h], d[n][2 * h + 1]);
            }
            __syncwarp();
            const int step = KEYS ? 1 : -1;
            T* next = to + (u64)o0 * place.of.positions + place.low + place.template place_at<true>(tile, ROWS - 1 - 16 * place.warp) + step * lane;
#pragma unroll
            for (int row = 0; row < 16; row++) {
#pragma unroll
                for (int j = 0; j < COLS; j += 32) next[step * j] = rows[row * PITCH + j + lane];
                next += place.of.positions - step;
            }
            return;
        }
        int first = place.template window_begin<false>(tile, 0, COLS, 16 * place.warp, 16), many = place.template window_end<false>(tile, 0, COLS, 16 * place.warp, 16) - first;
        if (many == 1) {
            float sums[2] = {};
#pragma unroll
            for (int n = 0; n < TILES; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) sums[i / 2] += d[n][i];
            }
            float upper = __shfl_sync(~0u, quad_sum(sums[0]), 4 * (lane & 7)), lower = __shfl_sync(~0u, quad_sum(sums[1]), 4 * (lane & 7));
            if (lane < 16) {
                carried += lane & 8 ? lower : upper;
                if (end(o0 + lane, tile.edge[first], tile.edge[first + 1]) <= c0 + columns) {
                    write(lane, place.low + first, carried);
                    carried = 0.f;
                }
            }
            return;
        }
        // By distance: row r has its column c at c + 15 - r, zeros beside, and behind all distances what it is to carry.
        const int CARRIED = 15 + COLS;
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) stage[(place.g + i / 2 * 8) * (PITCH - 1) + 15 + 8 * n + 2 * place.t + i % 2] = d[n][i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int row = 2 * i + lane / 16, u = lane & 15;
            stage[row * PITCH + u + (u < 15 - row ? 0 : COLS)] = 0.f;
        }
        __syncwarp();
        if (lane < 16) stage[lane * (PITCH - 1) + 15] += carried;
        __syncwarp();
        for (int k = lane; k - lane < many; k += 32) {
            int r = first + min(k, many - 1), own_edge = tile.edge[r], next_edge = tile.edge[r + 1];
            int from = begin(o0, own_edge, next_edge) - c0 + 15, until = end(o0, own_edge, next_edge) - c0 + 15;
            bool mine = k < many;
            // Where a bucket is wide, lanes take a row, two of them a half each.
            for (u32 rest = __ballot_sync(~0u, mine && min(until, CARRIED) - max(from, 0) > NARROW); rest; rest &= rest - 1) {
                int of = __ffs(rest) - 1, row = lane & 15, low = __shfl_sync(~0u, from, of), high = __shfl_sync(~0u, until, of);
                float sum = 0.f;
                for (int j = max(low, 0) + lane / 16; j < min(high, CARRIED); j += 2) sum += stage[row * PITCH + j];
                sum += __shfl_xor_sync(~0u, sum, 16);
                int at = __shfl_sync(~0u, r, of);
                if (lane < 16 && low < 15 - row + columns && high > 15 - row) {
                    if (high <= 15 - row + columns) write(row, place.low + at, sum);
                    else stage[row * PITCH + CARRIED] = sum;
                }
                mine = mine && lane != of;
            }
            if (!mine) continue;
            float sums[16] = {};
            for (int j = max(from, 0); j < min(until, CARRIED); j++) {
#pragma unroll
                for (int row = 0; row < 16; row++) sums[row] += stage[row * PITCH + j];
            }
            // By a bit a row: where it has a column, and where the last of these is in this tile.
            u32 has = rows_from(16 - until) & ~rows_from(15 + columns - from), ends = has & ~rows_from(16 + columns - until), carry = has & ~ends;
            ends &= ~rows_from(place.L - o0);
            T* next = to + (u64)o0 * place.of.positions + place.low + r;
#pragma unroll
            for (int row = 0; row < 16; row++) {
                if (ends >> row & 1) *next = narrow(sums[row]);
                next += place.of.positions;
            }
            if (carry) {
#pragma unroll
                for (int row = 0; row < 16; row++) {
                    if (carry >> row & 1) stage[row * PITCH + CARRIED] = sums[row];
                }
            }
        }
        __syncwarp();
        if (lane < 16) carried = stage[lane * PITCH + CARRIED];
    }

    // Bits of the rows from `row` on.
    static __device__ __forceinline__ u32 rows_from(int row) { return row > 31 ? 0u : ~0u << max(row, 0); }

    // What is still carried, and zeros for rows of positions that no pair has.
    __device__ __forceinline__ void finish() const {
        // A lane looks up the rows of positions of its token.
        int own = place.lane & 15, o = o0 + own, first = place.row_at(0, o), last = place.row_at(columns_end - 1, o);
        if (place.lane < 16 && end(o, place.of.edges[last], place.of.edges[last + 1]) > columns_end) write(own, last, carried);
        int rows = min(16, place.L - o0), positions = place.of.positions;
        for (int row = 0; row < rows; row++) {
            int low = __shfl_sync(~0u, min(first, last), row), high = __shfl_sync(~0u, max(first, last), row);
            auto clear = [&](int r) {
                if (r < low || r > high) to[(u64)(o0 + row) * positions + r] = 0;
            };
            if (positions % 8) {
                for (int r = place.lane; r < positions; r += 32) clear(r);
                continue;
            }
            // Eight at once, where all of them are zero.
            for (int r = 8 * place.lane; r < positions; r += 256) {
                if (r + 7 < low || r > high) {
                    *(uint4*)(to + (u64)(o0 + row) * positions + r) = make_uint4(0, 0, 0, 0);
                } else if (r < low || r + 7 > high) {
                    for (int e = 0; e < 8; e++) clear(r + e);
                }
            }
        }
    }
};
