// Shapes that the kernels of low-rank paths have, for those who launch them: of kernels/low_rank.cu and kernels/feed_forward.cu, and of
// the same passes by tiles. tests/emulation compares.
#pragma once

namespace aflora {

struct PathShape {
    unsigned width;        // columns of a block of what is of one path
    unsigned width_down;   // and of what is of all
    unsigned tokens_down;  // tokens of a block of `down`
    int step;              // a block takes tokens by so many
    unsigned at_once;      // blocks on a multiprocessor
    // Bytes of shared memory that a launch asks for.
    unsigned down = 0, up = 0, grad_up = 0, grad_down = 0;
};

// Threads of a block of `finish` that share out a sum.
constexpr unsigned FINISH_TURNS = 8;

// Of so many paths of a rank.
constexpr PathShape path_shape(unsigned rank, unsigned paths, bool tiled) {
    unsigned all = rank * paths, groups = (all + 7) / 8;
    if (!tiled) return {32u * (rank <= 4 ? 8 : 4), 32u * (all <= 4 ? 8 : all <= 8 ? 4 : 2), 8u * (all <= 8 ? 4 : 2), 8, 2};
    constexpr unsigned WIDTH = 128, HEIGHT = 96, ROWS = 2 * 16 * (WIDTH + HEIGHT), TILE = 2 * WIDTH * HEIGHT;
    return {WIDTH, WIDTH, 16, 16, 3, 4 * 8 * 16 * 8 * groups, ROWS, TILE + ROWS + 4 * 2 * 8 * HEIGHT, TILE + ROWS * groups};
}

}  // namespace aflora
