// A weight in few bits as kernels are given it: the same on both sides (shim/quantised_cuda.h).

struct KernelWeight {
    const void* codes;
    const float* map;
    const void* scales;
    const float* nested_map;
    const float* nested_scales;
    float offset;
    int block;
    int nested_block;
};
