// Blocks of GGUF files on the host.
#pragma once

#include "../kernels/blocks.cuh"

#include <cstdint>
#include <type_traits>

namespace aflora {

// Calls `work` with the format as a constant; false if there is none of that number.
template <typename F> bool with_format(int64_t format, F work) {
    switch (format) {
    case blocks::Q4_0: work(std::integral_constant<int, blocks::Q4_0>()); return true;
    case blocks::Q4_1: work(std::integral_constant<int, blocks::Q4_1>()); return true;
    case blocks::Q5_0: work(std::integral_constant<int, blocks::Q5_0>()); return true;
    case blocks::Q5_1: work(std::integral_constant<int, blocks::Q5_1>()); return true;
    case blocks::Q8_0: work(std::integral_constant<int, blocks::Q8_0>()); return true;
    case blocks::Q2_K: work(std::integral_constant<int, blocks::Q2_K>()); return true;
    case blocks::Q3_K: work(std::integral_constant<int, blocks::Q3_K>()); return true;
    case blocks::Q4_K: work(std::integral_constant<int, blocks::Q4_K>()); return true;
    case blocks::Q5_K: work(std::integral_constant<int, blocks::Q5_K>()); return true;
    case blocks::Q6_K: work(std::integral_constant<int, blocks::Q6_K>()); return true;
    default: return false;
    }
}

// The numbers of the blocks from `begin` to `end` of those at `from`, each at its place of `out`.
template <int FORMAT, typename T> void restore_blocks(const unsigned char* from, int64_t begin, int64_t end, T* out) {
    constexpr int NUMBERS = blocks::numbers(FORMAT), BYTES = blocks::bytes(FORMAT);
    for (int64_t b = begin; b < end; b++) {
        for (int first = 0; first < NUMBERS; first += 8) {
            float numbers[8];
            blocks::restore_eight<FORMAT>(from + b * BYTES, first, numbers);
            for (int i = 0; i < 8; i++) out[b * NUMBERS + first + i] = static_cast<T>(numbers[i]);
        }
    }
}

}  // namespace aflora
