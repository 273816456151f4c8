// Blocks of GGUF files as numbers, by one thread; needs nothing of libtorch.

#include "blocks.h"

extern "C" {

// Writes the numbers of so many blocks.
void aflora_blocks(int format, const unsigned char* from, int64_t count, float* out) {
    aflora::with_format(format, [&](auto constant) { aflora::restore_blocks<decltype(constant)::value>(from, 0, count, out); });
}

}  // extern "C"
