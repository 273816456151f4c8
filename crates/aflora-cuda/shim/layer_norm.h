// LayerNorm(dropout(x) + residual) as one node of libtorch's graph.
#pragma once

#include "drawn.h"

namespace aflora {

struct AddLayerNorm : torch::autograd::Function<AddLayerNorm> {
    static int threads(int64_t hidden) { return hidden <= 1024 ? 32 : 256; }

    static Module& kernels_for(const at::Tensor& x, int64_t hidden) {
        return module("layer_norm.cu", kernels::layer_norm, {bf16(x), "H=" + std::to_string(hidden), "THREADS=" + std::to_string(threads(hidden))});
    }

    static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& residual, const at::Tensor& gamma,
                              const at::Tensor& beta, double eps, double p) {
        int64_t hidden = x.size(-1), n = x.numel() / hidden;
        auto in = aligned(x), other = aligned(residual), scale = aligned(gamma);
        auto y = at::empty_like(in), sum = at::empty_like(in);
        auto mean = at::empty({n}, in.options().dtype(at::kFloat)), rstd = at::empty_like(mean);
        Dropout dropout(p);
        Random random = p > 0 ? next_random() : Random{};
        auto& kernel = kernels_for(in, hidden);
        launch(kernel["layer_norm"], divided(n, 256 / threads(hidden)), 256, 0, in.const_data_ptr(), other.const_data_ptr(), scale.const_data_ptr(),
               aligned(beta).const_data_ptr(), float(eps), y.data_ptr(), sum.data_ptr(), mean.data_ptr<float>(), rstd.data_ptr<float>(), int(n),
               dropout.threshold, dropout.keep, random);
        ctx->save_for_backward({sum, scale, mean, rstd});
        ctx->saved_data["p"] = p;
        keep_random(ctx, random);
        return y;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        auto &sum = saved[0], &gamma = saved[1], &mean = saved[2], &rstd = saved[3];
        double p = ctx->saved_data["p"].toDouble();
        int64_t hidden = sum.size(-1), n = mean.size(0);
        auto dy = aligned(gradients[0]);
        auto dresidual = at::empty_like(sum), dx = p > 0 ? at::empty_like(sum) : dresidual;
        Dropout dropout(p);
        launch(kernels_for(sum, hidden)["layer_norm_grad"], divided(n, 256 / threads(hidden)), 256, 0, dy.const_data_ptr(), sum.const_data_ptr(),
               gamma.const_data_ptr(), floats(mean), floats(rstd), dresidual.data_ptr(), dx.data_ptr(), int(n), dropout.threshold, dropout.keep,
               random_of(ctx));
        return {dx, dresidual, {}, {}, {}, {}};
    }

    static bool takes(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& gamma, const at::Tensor& beta) {
        auto like = [&](const at::Tensor& t) { return t.defined() && t.is_cuda() && t.scalar_type() == x.scalar_type(); };
        return is_wide(x) && like(residual) && like(gamma) && like(beta) && !gamma.requires_grad() && !beta.requires_grad() &&
               x.size(-1) % 8 == 0 && x.size(-1) <= 8192 && x.numel() > 0 && x.sizes() == residual.sizes();
    }
};

}  // namespace aflora
