// Kernels of low-rank paths on a CPU, in T, of PATHS paths of rank R: by tiles or without.
#include "cuda.h"
#include "../../kernels/common.cuh"
#include "../../shim/path_shape.h"

constexpr auto SHAPE = aflora::path_shape(R, PATHS, TILED);
// Rows of threads of a block that shares out columns and tokens.
constexpr unsigned TALL = TILED ? 1 : 8;

unsigned divided(unsigned n, unsigned by) { return (n + by - 1) / by; }
