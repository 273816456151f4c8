// Shapes that kernels/disentangled_tiled.cu has, for those who launch it. tests/emulation compares.
#pragma once

namespace aflora {

// Tokens of a block.
constexpr int TILED_ROWS = 64;

// Of its three kernels.
enum class Tiled { Output, Queries, Keys };

// Bytes of shared memory for heads of `size`: the kernels' struct Tile, and where gradients do not hold their own side's
// tokens in registers, OwnTile.
constexpr unsigned tiled_shared(unsigned size, Tiled of) {
    bool own = of == Tiled::Keys || (of == Tiled::Queries && size > 64);
    unsigned columns = size > 64 ? 32 : 64, distances = TILED_ROWS + columns - 1;
    unsigned rows = 2 * columns + 2 * distances, pitch = columns + 24 > size / 2 ? columns + 24 : size / 2;
    unsigned numbers = TILED_ROWS * pitch + 2 * columns + 2 * distances + 1;
    unsigned bytes = 2 * size * rows + 4 * numbers;
    return (bytes + 15) / 16 * 16 + (own ? 4 * size * TILED_ROWS : 0);
}

}  // namespace aflora
