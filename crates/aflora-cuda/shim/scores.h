// Freezing scores of elements: kernels/scores.cu.
#pragma once

#include "kernel.h"

#include <initializer_list>

namespace aflora {

class Scores {
public:
    // Buffers of one size.
    static bool takes(std::initializer_list<const at::Tensor*> buffers) {
        return std::all_of(buffers.begin(), buffers.end(), [&](const at::Tensor* t) { return is_flat(*t) && t->sizes() == (*buffers.begin())->sizes(); });
    }

    static at::Tensor sensitivity(const at::Tensor& p, const at::Tensor& g, int score) {
        auto out = at::empty_like(p);
        auto n = static_cast<long long>(p.numel());
        launch(kernel("sensitivity"), blocks(n), THREADS, 0, p.const_data_ptr<float>(), g.const_data_ptr<float>(), n, score, out.data_ptr<float>());
        return out;
    }

    // `observed` may be missing.
    static void smooth(const at::Tensor& now, const at::Tensor& observed, const at::Tensor& mean, const at::Tensor& deviation, double mean_share,
                       double deviation_share, bool updated) {
        auto n = static_cast<long long>(now.numel());
        launch(kernel("smooth"), blocks(n), THREADS, 0, now.const_data_ptr<float>(), floats(observed), mean.data_ptr<float>(), deviation.data_ptr<float>(), n,
               static_cast<float>(mean_share), static_cast<float>(deviation_share), updated);
    }

private:
    static constexpr unsigned THREADS = 256;

    static CUfunction kernel(const char* name) { return module("scores.cu", kernels::scores, {"BF16=0"})[name]; }

    // Four numbers a thread, and no more blocks than share the memory's rate.
    static unsigned blocks(int64_t n) { return std::max(1u, std::min(divided(n, 4 * THREADS), 2048u)); }
};

}  // namespace aflora
