// Shapes that kernels/disentangled_tiled.cu has, for those who launch it. tests/emulation compares.
#pragma once

namespace aflora {

// Of its three kernels.
enum class Tiled { Output, Queries, Keys };

// What a block of threads takes at once, of heads of `size` and with positions or without.
struct TileShape {
    unsigned size;
    bool positions;

    // Tokens of its own side, sixteen for each warp, and of the other.
    constexpr unsigned rows() const { return positions || size > 64 ? 64 : 32; }
    constexpr unsigned columns() const { return size > (positions ? 64 : 32) ? 32 : 64; }
    constexpr unsigned threads() const { return 2 * rows(); }

    // Whether the own side's tokens are held in registers.
    constexpr bool held(Tiled of) const { return of == Tiled::Output || (of == Tiled::Queries ? size <= 64 : !positions && size <= 32); }

    // Bytes of shared memory: the kernels' struct Tile, and what is not held in registers, OwnTile.
    constexpr unsigned shared(Tiled of) const {
        unsigned distances = positions ? rows() + columns() - 1 : 1, tokens = held(Tiled::Queries) ? size : size / 2;
        unsigned scores = positions && columns() + 24 > tokens ? columns() + 24 : tokens;
        unsigned window = positions ? (distances + 31) / 32 * 32 : 1;
        unsigned vectors = 2 * columns() + 2 * window, numbers = rows() * scores + 2 * columns() + 2 * distances + 1;
        unsigned bytes = 2 * size * vectors + 4 * numbers;
        return (bytes + 15) / 16 * 16 + (held(of) ? 0 : 4 * size * rows());
    }
};

}  // namespace aflora
