// The update of pieces of flat buffers: kernels/adamw.cu.
#pragma once

#include "kernel.h"

#include <c10/cuda/CUDAFunctions.h>

#include <cmath>

namespace aflora {

// The numbers of aflora-cuda's `AdamWUpdate`.
struct AdamWNumbers {
    double t, lr, beta1, beta2, eps, decay;
};

// Buffers are [n], fp32; `pieces` is [count, 2], int64, on their GPU.
inline void adamw(const at::Tensor& values, const at::Tensor& gradient, const at::Tensor& first, const at::Tensor& second, const at::Tensor& pieces,
                  const AdamWNumbers& by) {
    for (const auto* t : {&values, &gradient, &first, &second})
        TORCH_CHECK(t->is_cuda() && t->scalar_type() == at::kFloat && t->is_contiguous() && t->sizes() == values.sizes(), "adamw: not flat buffers of one size");
    // Where it is launched: another GPU than the current one is left to libtorch's operations.
    TORCH_CHECK(values.get_device() == c10::cuda::current_device(), "adamw: the buffers are not on the current GPU");
    auto count = pieces.size(0);
    TORCH_CHECK(pieces.is_cuda() && pieces.scalar_type() == at::kLong && pieces.is_contiguous(), "adamw: not pieces");
    if (!count) return;
    double correction1 = 1 - std::pow(by.beta1, by.t), correction2 = 1 - std::pow(by.beta2, by.t);
    auto number = [](double x) { return static_cast<float>(x); };
    launch(module("adamw.cu", kernels::adamw, {"BF16=0"})["adamw"], static_cast<unsigned>(count), 256, 0, values.data_ptr<float>(),
           gradient.const_data_ptr<float>(), first.data_ptr<float>(), second.data_ptr<float>(),
           reinterpret_cast<const long long*>(pieces.const_data_ptr<int64_t>()), number(1 - by.beta1), number(by.beta2), number(1 - by.beta2),
           number(1 - by.lr * by.decay), number(by.lr / correction1), number(1 / std::sqrt(correction2)), number(by.eps));
}

}  // namespace aflora
