// Tokens by head and back: kernels/heads.cu.
#pragma once

#include "kernel.h"

namespace aflora {

// Moves of one launch; the kernels' struct of the same name.
class Heads {
public:
    // With `to_heads`, [n, heads · size] becomes [heads, n, size]; else the other way round.
    Heads(int64_t heads, int64_t size, bool to_heads) : heads_(heads), size_(size), to_heads_(to_heads) {}

    // All of `from`, contiguous, to `to`, which is as large; both live until `launch`.
    void add(const at::Tensor& from, const at::Tensor& to) {
        if (from.numel() == 0) return;
        TORCH_CHECK(count_ < MOST, "too many tensors by head at once");
        segments_.from[count_] = from.const_data_ptr();
        segments_.to[count_] = to.data_ptr();
        segments_.rows[count_] = int(from.numel() / (heads_ * size_));
        most_ = std::max(most_, from.numel());
        element_ = from.element_size();
        for (const void* at : {segments_.from[count_], static_cast<const void*>(segments_.to[count_])})
            while (reinterpret_cast<uintptr_t>(at) % unit_) unit_ /= unit_ == 16 ? 4 : 2;
        count_++;
    }

    void launch() {
        if (!count_) return;
        while (size_ * element_ % unit_) unit_ /= unit_ == 16 ? 4 : 2;
        auto& kernel = module("heads.cu", kernels::heads, {"BF16=0"});
        const char* name = unit_ == 16 ? "move16" : unit_ == 4 ? "move4" : "move2";
        TORCH_CHECK(most_ * element_ / unit_ < (int64_t(1) << 31), "more tokens than can be moved at once");
        unsigned blocks = divided(most_ * element_ / unit_, 512);
        aflora::launch(kernel[name], dim3(blocks, unsigned(count_)), 256, 0, segments_, int(heads_), int(size_ * element_ / unit_), int(to_heads_));
    }

private:
    static constexpr int MOST = 5;
    struct Segments {
        const void* from[MOST] = {};
        void* to[MOST] = {};
        int rows[MOST] = {};
    } segments_;
    int64_t heads_, size_, most_ = 0, element_ = 1, unit_ = 16;
    bool to_heads_;
    int count_ = 0;
};

}  // namespace aflora
