// Low-rank paths of layers that read one input, as kernels are given them: the same on both sides (shim/low_rank.h).

// One of them, y += s b ⊙ B (d ⊙ (A x)), and the sums that its gradients come of. What there is not, or is not wanted, is null.
struct KernelPath {
    void* y;         // [rows, m], wide; in a backward pass its gradient
    const float* a;  // A [R, k]
    const float* up; // B [m, R]
    const float* d;  // [R]
    const float* b;  // [m]
    float* part_up;
    float* da;
    float* dup;
    float* dd;
    float* db;
    float s;
    int m;
    int rows;        // it is of the first so many tokens
};

struct KernelPaths {
    KernelPath at[3];
};
