// The joint norm of gradients in a flat buffer, and what is done by it: kernels/joint_norm.cu.
#pragma once

#include "kernel.h"

#include <array>

namespace aflora {

class JointNorm {
public:
    // Whether steps can be counted in it.
    static bool counts(const at::Tensor& t) {
        return t.is_cuda() && t.scalar_type() == at::kLong && t.numel() == 1 && t.get_device() == c10::cuda::current_device();
    }

    // The norm, the same but zero where it or the loss is not finite, and whether one is not. Loss and counts may be missing.
    static std::array<at::Tensor, 3> judge(const at::Tensor& gradients, const at::Tensor& loss, const at::Tensor& total, const at::Tensor& in_a_row) {
        int64_t n = gradients.numel();
        auto shares = blocks(n);
        auto sums = at::empty({shares}, gradients.options());
        auto norm = at::empty({}, gradients.options()), finite_norm = at::empty_like(norm);
        auto bad = at::empty({}, gradients.options().dtype(at::kBool));
        launch(kernel("squares"), shares, THREADS, 0, gradients.const_data_ptr<float>(), static_cast<long long>(n), sums.data_ptr<float>());
        launch(kernel("judge"), 1, THREADS, 0, sums.const_data_ptr<float>(), static_cast<int>(shares), floats(loss), norm.data_ptr<float>(),
               finite_norm.data_ptr<float>(), bad.data_ptr<bool>(), count(total), count(in_a_row));
        return {norm, finite_norm, bad};
    }

    static void clear(const at::Tensor& gradients, const at::Tensor& pieces) {
        launch(kernel("clear"), static_cast<unsigned>(pieces.size(0)), THREADS, 0, gradients.data_ptr<float>(), ends(pieces));
    }

    static void forget(const at::Tensor& gradients, const at::Tensor& bad) {
        int64_t n = gradients.numel();
        launch(kernel("forget"), blocks(n), THREADS, 0, gradients.data_ptr<float>(), static_cast<long long>(n), bad.const_data_ptr<bool>());
    }

    static void clip(const at::Tensor& gradients, const at::Tensor& norm, double most) {
        int64_t n = gradients.numel();
        launch(kernel("clip"), blocks(n), THREADS, 0, gradients.data_ptr<float>(), static_cast<long long>(n), norm.const_data_ptr<float>(),
               static_cast<float>(most));
    }

private:
    static constexpr unsigned THREADS = 256;

    static long long* count(const at::Tensor& t) { return t.defined() ? reinterpret_cast<long long*>(t.data_ptr<int64_t>()) : nullptr; }

    static CUfunction kernel(const char* name) { return module("joint_norm.cu", kernels::joint_norm, {"BF16=0"})[name]; }

    // Four numbers a thread, and no more blocks than are at work at once.
    static unsigned blocks(int64_t n) { return std::max(1u, std::min(divided(n, 4 * THREADS), 512u)); }
};

}  // namespace aflora
