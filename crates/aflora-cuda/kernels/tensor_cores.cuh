// What the tensor cores are fed with: products of 16 × 8 × 16 in bf16 with sums in fp32, the loads and
// the transposition that go with their layout, and copies into shared memory that nobody waits for.
// From compute capability 8.0 on; tests/emulation has the same on a CPU.
//
// A lane's place in the 8 × 8 blocks of a fragment: row lane / 4, columns 2 (lane % 4) and the next.
#ifndef EMULATED

// c += a b: a [16, 16] by rows, b [16, 8] by columns. Of c, a lane has two neighbours in a row, and two
// eight rows below.
__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four blocks of 8 × 8; lane l names row l % 8 of block l / 8, 16 bytes in shared memory.
__device__ __forceinline__ void load_blocks(u32 (&out)[4], const uint4* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

// The same, each block transposed.
__device__ __forceinline__ void load_transposed(u32 (&out)[4], const uint4* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

// A block of 8 × 8 that lies in the lanes, transposed.
__device__ __forceinline__ u32 transposed(u32 block) {
    u32 out;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(block));
    return out;
}

// 16 bytes from global to shared memory, or zeros; there after `copied`.
__device__ __forceinline__ void copy(uint4* to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

// Waits for this thread's copies.
__device__ __forceinline__ void copied() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// A number of which the compiler is to know nothing: it counts from it, in place of making each sum with it anew.
__device__ __forceinline__ int opaque(int x) {
    asm("" : "+r"(x));
    return x;
}

__device__ __forceinline__ float exp2_of(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}

#endif
