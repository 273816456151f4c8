// AdamW with decoupled decay (Loshchilov and Hutter 2019), of pieces of flat buffers, several of them in one launch: a block goes
// over one piece, [begin, end), and nothing beside pieces moves.
//
//   p ← p · kept      m ← m + (1 - β₁)(g - m)      v ← β₂ v + (1 - β₂) g²      p ← p - step · m / (√v · root + ε)
//
// `kept` is 1 - lr λ, `step` lr / (1 - β₁ᵗ), `root` 1 / √(1 - β₂ᵗ).

#define GROUPS 8

// Buffers with a rate and a decay of their own. Blocks are counted through from group to group.
struct AdamWGroup {
    float* p;
    const float* g;
    float *m, *v;
    const long long* pieces;
    u32 blocks;
    float kept, step;
};

struct AdamWGroups {
    AdamWGroup of[GROUPS];
};

extern "C" __global__ void __launch_bounds__(256) adamw(const __grid_constant__ AdamWGroups groups, float toward, float beta2, float square, float root, float eps) {
    u32 block = blockIdx.x;
    int i = 0;
    while (block >= groups.of[i].blocks) block -= groups.of[i++].blocks;
    const AdamWGroup& of = groups.of[i];
    long long end = of.pieces[2 * block + 1];
    for (long long at = of.pieces[2 * block] + threadIdx.x; at < end; at += 256) {
        float gradient = of.g[at];
        float first = of.m[at] + toward * (gradient - of.m[at]);
        float second = beta2 * of.v[at] + square * gradient * gradient;
        of.m[at] = first;
        of.v[at] = second;
        of.p[at] = of.p[at] * of.kept - of.step * first / (sqrtf(second) * root + eps);
    }
}
