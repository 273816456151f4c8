// A block of CUDA threads on a CPU, to run kernels/*.cu in tests: each thread is a fiber, which runs until
// it waits for others. What lanes exchange lies as the PTX manual says. Whatever is wrong in a way that a GPU
// would not tell ends the process: lanes that meet in different operations, threads that wait for ever, reads
// outside shared memory. Shared memory is full of NaNs at first, and so is what is being copied into it.
//
// Which warp runs ahead of the others, as far as it gets, is the caller's choice: a barrier that is missing
// shows in one order or another.
#pragma once

#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#define EMULATED
#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static  // one for all threads of a block, as blocks run one after the other
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

template <typename To, typename From> To bits_of(From from) {
    To to;
    static_assert(sizeof to == sizeof from);
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int x) { return bits_of<float>(x); }
inline float __uint_as_float(uint32_t x) { return bits_of<float>(x); }
inline uint32_t __float_as_uint(float x) { return bits_of<uint32_t>(x); }
// One thread runs at a time.
inline uint32_t atomicAdd(uint32_t* at, uint32_t x) { return std::exchange(*at, *at + x); }
inline uint32_t __umulhi(uint32_t x, uint32_t y) { return uint32_t(uint64_t(x) * y >> 32); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int min(int x, int y) { return x < y ? x : y; }
inline int max(int x, int y) { return x < y ? y : x; }

inline dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr size_t SHARED = 14800;  // 16 bytes each
inline uint4 shared[SHARED];

namespace emulated {

inline unsigned thread;  // of the block, in the order of warps

[[noreturn]] inline void fail(const char* words) {
    std::fprintf(stderr, "emulated kernel, block (%u, %u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, blockIdx.z, thread, words);
    std::abort();
}

struct Barrier {
    unsigned arrived = 0, round = 0;
};

struct Copy {
    uint4* to;
    const void* from;
};

struct Fiber {
    ucontext_t start;
    jmp_buf here;
    bool begun = false, done = false;
    Barrier* waits = nullptr;
    unsigned round = 0;
    std::vector<char> stack = std::vector<char>(1 << 17);
    std::vector<Copy> copies;
};

struct Warp {
    Barrier barrier;
    unsigned exchanges[32] = {};
    struct { int operation; uint32_t words[6]; } given[2][32];
};

inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline Barrier block;
inline jmp_buf scheduler;
inline void (*body)();

inline void wait(Barrier& barrier, unsigned threads) {
    Fiber& self = fibers[thread];
    unsigned round = barrier.round;
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        barrier.round++;
        return;
    }
    self.waits = &barrier;
    self.round = round;
    if (!_setjmp(self.here)) _longjmp(scheduler, 1);
}

// Gives six words to the warp and calls `read` with a function of lane and word.
template <typename Read> void exchange(int operation, std::initializer_list<uint32_t> words, Read read) {
    Warp& warp = warps[thread / 32];
    unsigned lane = thread % 32, turn = warp.exchanges[lane]++ % 2;
    warp.given[turn][lane].operation = operation;
    std::copy(words.begin(), words.end(), warp.given[turn][lane].words);
    wait(warp.barrier, 32);
    // Each lane looks at the next.
    if (warp.given[turn][(lane + 1) % 32].operation != operation) fail("lanes of a warp meet in different operations");
    read([&](unsigned of, unsigned word) { return warp.given[turn][of % 32].words[word]; });
}

inline void enter() {
    body();
    fibers[thread].done = true;
    _longjmp(scheduler, 1);
}

// One block. The warps go ahead in the order of `order` turned by so many, backwards if it is odd.
inline void run_block(unsigned threads, unsigned order) {
    fibers.resize(threads);
    unsigned count = threads / 32;
    warps.assign(count, Warp());
    block = Barrier();
    std::memset(shared, 0xff, sizeof shared);
    for (auto& fiber : fibers) fiber.begun = fiber.done = false, fiber.waits = nullptr;
    static unsigned last;
    last = 0;
    _setjmp(scheduler);
    bool left = false;
    for (unsigned w = 0; w < count; w++) {
        unsigned warp = (order % 2 ? count - 1 - w : w) + order / 2;
        for (unsigned l = 1; l <= 32; l++) {
            unsigned next = warp % count * 32 + (last + l) % 32;
            Fiber& fiber = fibers[next];
            left |= !fiber.done;
            if (fiber.done || (fiber.waits && fiber.waits->round == fiber.round)) continue;
            last = thread = next;
            threadIdx = {next % blockDim.x, next / blockDim.x, 0};
            fiber.waits = nullptr;
            if (fiber.begun) _longjmp(fiber.here, 1);
            fiber.begun = true;
            getcontext(&fiber.start);
            fiber.start.uc_stack.ss_sp = fiber.stack.data();
            fiber.start.uc_stack.ss_size = fiber.stack.size();
            fiber.start.uc_link = nullptr;
            makecontext(&fiber.start, enter, 0);
            setcontext(&fiber.start);
        }
    }
    if (left) fail("all threads wait");
}

inline const void* inside(uint64_t address) {
    auto* at = reinterpret_cast<const char*>(address);
    auto* begin = reinterpret_cast<const char*>(shared);
    if (at < begin || at + 16 > begin + sizeof shared || address % 16) fail("an address outside shared memory, or not on 16 bytes");
    return at;
}

inline void load_blocks(uint32_t (&out)[4], const uint4* row, bool transposed) {
    auto address = reinterpret_cast<uint64_t>(inside(reinterpret_cast<uint64_t>(row)));
    exchange(1, {uint32_t(address), uint32_t(address >> 32)}, [&](auto given) {
        unsigned g = emulated::thread % 32 / 4, t = emulated::thread % 4;
        auto element = [&](unsigned block, unsigned row, unsigned column) {
            uint64_t at = given(8 * block + row, 0) | uint64_t(given(8 * block + row, 1)) << 32;
            return uint32_t(reinterpret_cast<const uint16_t*>(at)[column]);
        };
        for (unsigned b = 0; b < 4; b++)
            out[b] = transposed ? element(b, 2 * t, g) | element(b, 2 * t + 1, g) << 16 : element(b, g, 2 * t) | element(b, g, 2 * t + 1) << 16;
    });
}

inline float half_of(uint32_t word, unsigned upper) { return __uint_as_float(upper ? word & 0xffff0000u : word << 16); }

}  // namespace emulated

inline void __syncthreads() { emulated::wait(emulated::block, unsigned(emulated::fibers.size())); }
inline void __syncwarp() { emulated::exchange(2, {}, [](auto) {}); }

template <typename X> X __shfl_sync(unsigned, X x, int lane) {
    X out = 0;
    emulated::exchange(3, {bits_of<uint32_t>(x)}, [&](auto given) { out = bits_of<X>(given(unsigned(lane), 0)); });
    return out;
}
inline uint32_t __ballot_sync(unsigned, bool x) {
    uint32_t out = 0;
    emulated::exchange(6, {x}, [&](auto given) {
        for (unsigned lane = 0; lane < 32; lane++) out |= given(lane, 0) << lane;
    });
    return out;
}
inline int __ffs(uint32_t x) { return __builtin_ffs(int(x)); }
inline int __clz(uint32_t x) { return x ? __builtin_clz(x) : 32; }
inline float __shfl_xor_sync(unsigned all, float x, int other) { return __shfl_sync(all, x, int(emulated::thread % 32) ^ other); }

// --- kernels/common.cuh and kernels/tensor_cores.cuh ---

inline uint16_t to_bf16(float x) {
    uint32_t bits = bits_of<uint32_t>(x);
    if (std::isnan(x)) return 0x7fff;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline uint32_t to_bf16(float lower, float upper) { return to_bf16(lower) | uint32_t(to_bf16(upper)) << 16; }
inline float exp2_of(float x) { return std::exp2(x); }
inline int opaque(int x) { return x; }

inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    emulated::exchange(4, {a[0], a[1], a[2], a[3], b0, b1}, [&](auto given) {
        // Two rows of the left matrix, g and g + 8, and two columns of the right one, 2 t and 2 t + 1; two numbers a word.
        unsigned g = emulated::thread % 32 / 4, t = emulated::thread % 4;
        float left[2][16], right[2][16];
        for (unsigned i = 0; i < 2; i++)
            for (unsigned k = 0; k < 16; k += 2) {
                uint32_t l = given(g * 4 + k % 8 / 2, i + k / 8 * 2), r = given((2 * t + i) * 4 + k % 8 / 2, 4 + k / 8);
                for (unsigned upper = 0; upper < 2; upper++) {
                    left[i][k + upper] = emulated::half_of(l, upper);
                    right[i][k + upper] = emulated::half_of(r, upper);
                }
            }
        for (unsigned i = 0; i < 4; i++)
            for (unsigned k = 0; k < 16; k++) c[i] += left[i / 2][k] * right[i % 2][k];
    });
}

inline void load_blocks(uint32_t (&out)[4], const uint4* row) { emulated::load_blocks(out, row, false); }
inline void load_transposed(uint32_t (&out)[4], const uint4* row) { emulated::load_blocks(out, row, true); }

inline uint32_t transposed(uint32_t block) {
    uint32_t out = 0;
    emulated::exchange(5, {block}, [&](auto given) {
        unsigned g = emulated::thread % 32 / 4, t = emulated::thread % 4;
        for (unsigned i = 0; i < 2; i++) out |= (given((2 * t + i) * 4 + g / 2, 0) >> (16 * (g % 2)) & 0xffffu) << (16 * i);
    });
    return out;
}

inline void copy(uint4* to, const void* from, bool there) {
    emulated::inside(reinterpret_cast<uint64_t>(to));
    if (reinterpret_cast<uint64_t>(from) % 16) emulated::fail("a copy from an address not on 16 bytes");
    std::memset(to, 0xff, sizeof *to);
    emulated::fibers[emulated::thread].copies.push_back({to, there ? from : nullptr});
}
inline void copied() {
    auto& copies = emulated::fibers[emulated::thread].copies;
    for (auto& one : copies) one.from ? std::memcpy(one.to, one.from, 16) : std::memset(one.to, 0, 16);
    copies.clear();
}

// Calls `kernel` for each thread of each block, of `tall` rows of threads.
template <typename Kernel> void run(dim3 grid, unsigned threads, unsigned order, Kernel kernel, unsigned tall = 1) {
    static Kernel* called;
    called = &kernel;
    emulated::body = [] { (*called)(); };
    gridDim = grid;
    blockDim = {threads / tall, tall, 1};
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) emulated::run_block(threads, order);
}
