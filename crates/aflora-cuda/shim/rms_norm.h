// A residual sum and its RMSNorm as one node of libtorch's graph: kernels/rms_norm.cu.
#pragma once

#include "kernel.h"
#include <torch/csrc/autograd/custom_function.h>

namespace aflora {

struct RmsNorm : torch::autograd::Function<RmsNorm> {
    // Which of the outputs the norm is.
    static constexpr uint32_t NORM = 1;

    static int threads(int64_t hidden) { return hidden <= 1024 ? 32 : 256; }

    static Module& kernels_for(const at::Tensor& x, int64_t hidden) {
        return module("rms_norm.cu", kernels::rms_norm, {bf16(x), "H=" + std::to_string(hidden), "THREADS=" + std::to_string(threads(hidden))});
    }

    static unsigned blocks(int64_t n, int64_t hidden) { return divided(n, 256 / threads(hidden)); }

    // x + delta (x itself without one), and its norm times weight + plus.
    static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const Maybe& maybe_delta,
                                                  const at::Tensor& weight, double plus, double eps) {
        auto delta = or_none(maybe_delta);
        int64_t hidden = x.size(-1), n = x.numel() / hidden;
        auto in = aligned(x), w = aligned(weight);
        auto other = delta.defined() ? aligned(delta) : delta;
        auto sum = delta.defined() ? at::empty_like(in) : in;
        auto y = at::empty_like(in), rstd = at::empty({n}, in.options().dtype(at::kFloat));
        launch(kernels_for(in, hidden)["rms_norm"], blocks(n, hidden), 256, 0, in.const_data_ptr(), delta.defined() ? other.const_data_ptr() : nullptr,
               w.const_data_ptr(), float(plus), float(eps), delta.defined() ? sum.data_ptr() : nullptr, y.data_ptr(), rstd.data_ptr<float>(), int(n));
        ctx->save_for_backward({sum, w, rstd});
        ctx->saved_data["plus"] = plus;
        ctx->saved_data["adds"] = delta.defined();
        return {delta.defined() ? sum : x, y};
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        auto dx = gradients[0];
        if (gradients[1].defined()) {
            auto saved = ctx->get_saved_variables();
            auto &sum = saved[0], &weight = saved[1], &rstd = saved[2];
            int64_t hidden = sum.size(-1), n = rstd.size(0);
            auto dy = aligned(gradients[1]);
            auto ds = gradients[0].defined() ? aligned(gradients[0]) : at::Tensor();
            dx = at::empty_like(sum);
            launch(kernels_for(sum, hidden)["rms_norm_grad"], blocks(n, hidden), 256, 0, dy.const_data_ptr(),
                   ds.defined() ? ds.const_data_ptr() : nullptr, sum.const_data_ptr(), weight.const_data_ptr(),
                   float(ctx->saved_data["plus"].toDouble()), floats(rstd), dx.data_ptr(), int(n));
        }
        // libtorch takes no gradient of a tensor that was not given.
        return {dx, ctx->saved_data["adds"].toBool() ? dx : at::Tensor(), {}, {}, {}};
    }

    // The norm once more.
    static at::Tensor again(torch::autograd::AutogradContext* ctx) {
        auto saved = ctx->get_saved_variables();
        auto &sum = saved[0], &weight = saved[1], &rstd = saved[2];
        int64_t hidden = sum.size(-1), n = rstd.size(0);
        auto y = at::empty_like(sum);
        launch(kernels_for(sum, hidden)["rms_norm_again"], blocks(n, hidden), 256, 0, sum.const_data_ptr(), weight.const_data_ptr(),
               float(ctx->saved_data["plus"].toDouble()), floats(rstd), y.data_ptr(), int(n));
        return y;
    }

    static bool takes(const at::Tensor& x, const at::Tensor* delta, const at::Tensor& weight) {
        auto like = [&](const at::Tensor& t) { return t.is_cuda() && t.scalar_type() == x.scalar_type(); };
        return is_wide(x) && x.dim() > 0 && x.numel() > 0 && x.size(-1) % 8 == 0 && x.size(-1) <= 8192 && like(weight) && !weight.requires_grad() &&
               weight.dim() == 1 && weight.size(0) == x.size(-1) && (!delta || (like(*delta) && delta->sizes() == x.sizes()));
    }
};

}  // namespace aflora
