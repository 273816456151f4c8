// Means of pieces of a flat buffer, and the k-th smallest number in them: kernels/order.cu.
#pragma once

#include "kernel.h"

#include <limits>

namespace aflora {

class Order {
public:
    static bool takes(const at::Tensor& x, const at::Tensor& pieces) {
        return are_pieces_of(pieces, x) && x.numel() < std::numeric_limits<uint32_t>::max();
    }

    // [pieces].
    static at::Tensor means(const at::Tensor& x, const at::Tensor& pieces) {
        auto out = at::empty({pieces.size(0)}, x.options());
        launch(kernel("mean"), static_cast<unsigned>(pieces.size(0)), THREADS, 0, x.const_data_ptr<float>(), ends(pieces), out.data_ptr<float>());
        return out;
    }

    // [1]; k counts from 1, and there are as many numbers.
    static at::Tensor kth_smallest(const at::Tensor& x, const at::Tensor& pieces, int64_t k) {
        auto counts = at::zeros({DIGITS, BINS}, x.options().dtype(at::kInt));
        auto* at = reinterpret_cast<unsigned*>(counts.data_ptr<int>());
        auto number = static_cast<int>(pieces.size(0));
        auto place = static_cast<unsigned>(k);
        for (int digit = 0; digit < DIGITS; digit++)
            launch(kernel("count"), static_cast<unsigned>(std::min(number, MOST)), THREADS, 0, x.const_data_ptr<float>(), ends(pieces), number, at, digit, place);
        auto out = at::empty({1}, x.options());
        launch(kernel("pick"), 1, THREADS, 0, static_cast<const unsigned*>(at), place, out.data_ptr<float>());
        return out;
    }

private:
    static constexpr unsigned THREADS = 256;
    static constexpr int DIGITS = 3, BINS = 2048;
    // Blocks that are at work at once.
    static constexpr int MOST = 512;

    static CUfunction kernel(const char* name) { return module("order.cu", kernels::order, {"BF16=0"})[name]; }
};

}  // namespace aflora
