// The cross entropy of logits with labels, summed over tokens, as one node of libtorch's graph: kernels/cross_entropy.cu. What
// it keeps is its gradient, so that logits may go.
#pragma once

#include "kernel.h"
#include <torch/csrc/autograd/custom_function.h>

namespace aflora {

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
    // Of logits [n, even], and [n, rest] of the last few words, where they lie apart; with a bias [words].
    static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& logits, const Maybe& maybe_rest, const Maybe& maybe_bias,
                              const at::Tensor& labels, double smoothing) {
        auto rest = or_none(maybe_rest), bias = or_none(maybe_bias);
        auto first = aligned(logits), last = rest.defined() ? rest.contiguous() : rest, by = bias.defined() ? aligned(bias) : bias;
        auto of = labels.contiguous();
        at::Tensor d, d_rest;
        if (logits.requires_grad()) {
            d = at::empty_like(first);
            if (last.defined()) d_rest = at::empty_like(last);
        }
        auto pointer = [](const at::Tensor& t) { return t.defined() ? t.data_ptr() : nullptr; };
        auto losses = at::empty({first.size(0)}, first.options().dtype(at::kFloat));
        launch(kernels_for(first)["cross_entropy"], unsigned(first.size(0)), 512, 0, first.const_data_ptr(), const_cast<const void*>(pointer(last)),
               floats(by), of.const_data_ptr<int64_t>(), losses.data_ptr<float>(), pointer(d), pointer(d_rest), int(first.size(1)),
               last.defined() ? int(last.size(1)) : 0, float(smoothing));
        ctx->save_for_backward({d, d_rest});
        return losses.sum();
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        TORCH_CHECK(!ctx->saved_data.count("given"), "the gradient of a cross entropy is given once: it is scaled where it lies");
        ctx->saved_data["given"] = true;
        auto saved = ctx->get_saved_variables();
        auto by = gradients[0].to(at::kFloat);
        for (auto& d : saved)
            if (d.defined())
                launch(kernels_for(d)["scale"], std::min(divided(d.numel(), 256), 1024u), 256, 0, d.data_ptr(), floats(by), uint64_t(d.numel()));
        return {saved[0], saved[1], {}, {}, {}};
    }

    static bool takes(const at::Tensor& logits, const at::Tensor* rest, const at::Tensor* bias, const at::Tensor& labels) {
        if (!is_wide(logits) || logits.dim() != 2 || !logits.numel() || logits.size(1) % 8 != 0 || logits.size(1) >= int64_t(1) << 30) return false;
        if (labels.dim() != 1 || labels.size(0) != logits.size(0) || !labels.is_cuda() || labels.scalar_type() != at::kLong) return false;
        int64_t words = logits.size(1);
        if (rest) {
            if (!rest->is_cuda() || rest->scalar_type() != logits.scalar_type() || rest->dim() != 2 || rest->size(0) != logits.size(0)) return false;
            if (rest->size(1) > 512 || rest->requires_grad() != logits.requires_grad()) return false;
            words += rest->size(1);
        }
        return !bias || (bias->is_cuda() && bias->scalar_type() == at::kFloat && bias->numel() == words && !bias->requires_grad());
    }

private:
    static Module& kernels_for(const at::Tensor& t) { return module("cross_entropy.cu", kernels::cross_entropy, {bf16(t)}); }
};

}  // namespace aflora
