// The middle of a gated feed-forward layer as one node of libtorch's graph: kernels/gated.cu.
#pragma once

#include "kernel.h"
#include <torch/csrc/autograd/custom_function.h>

namespace aflora {

struct Gated : torch::autograd::Function<Gated> {
    // Activations, by the kernels' numbers.
    static constexpr int64_t ACTIVATIONS = 3;

    // act(gate) ⊙ up. Without an up, `gate` is [.., 2 · wide]: the gate, and up behind it.
    static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& gate, const Maybe& maybe_up, int64_t activation) {
        auto up = or_none(maybe_up);
        auto first = aligned(gate), second = up.defined() ? aligned(up) : up;
        ctx->save_for_backward({first, second});
        ctx->saved_data["activation"] = activation;
        return product(first, second, activation);
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        auto dgate = at::empty_like(saved[0]);
        auto dup = saved[1].defined() ? at::empty_like(saved[1]) : at::Tensor();
        auto dy = aligned(gradients[0]);
        Rows of(saved[0], saved[1]);
        Rows to(dgate, dup);
        launch(kernels_for(dy, ctx->saved_data["activation"].toInt())["gated_grad"], divided(of.total, 256), 256, 0, dy.const_data_ptr(), of.gate,
               of.up, to.gate, to.up, of.total, of.groups, of.stride);
        return {dgate, dup, {}};
    }

    // The output once more.
    static at::Tensor again(torch::autograd::AutogradContext* ctx) {
        auto saved = ctx->get_saved_variables();
        return product(saved[0], saved[1], ctx->saved_data["activation"].toInt());
    }

    static bool takes(const at::Tensor& gate, const at::Tensor* up, int64_t activation) {
        if (!is_wide(gate) || gate.dim() == 0 || gate.numel() == 0 || activation < 0 || activation >= ACTIVATIONS) return false;
        if (gate.size(-1) % (up ? 8 : 16) != 0 || gate.numel() / 8 >= int64_t(1) << 31) return false;
        return !up || (up->is_cuda() && up->scalar_type() == gate.scalar_type() && up->sizes() == gate.sizes());
    }

private:
    // How the kernels go through both, contiguous: `up` behind each row of `gate` if it is none of its own.
    struct Rows {
        void *gate, *up;
        unsigned total, groups, stride;
        Rows(const at::Tensor& first, const at::Tensor& second) {
            int64_t row = first.size(-1), wide = second.defined() ? row : row / 2;
            gate = first.data_ptr();
            up = second.defined() ? second.data_ptr() : static_cast<char*>(gate) + wide * first.element_size();
            groups = unsigned(wide / 8);
            total = unsigned(first.numel() / row * groups);
            stride = unsigned(row);
        }
    };

    static Module& kernels_for(const at::Tensor& x, int64_t activation) {
        return module("gated.cu", kernels::gated, {bf16(x), "ACT=" + std::to_string(activation)});
    }

    static at::Tensor product(const at::Tensor& first, const at::Tensor& second, int64_t activation) {
        auto shape = first.sizes().vec();
        if (!second.defined()) shape.back() /= 2;
        auto y = at::empty(shape, first.options());
        Rows rows(first, second);
        launch(kernels_for(first, activation)["gated"], divided(rows.total, 256), 256, 0, rows.gate, rows.up, y.data_ptr(), rows.total, rows.groups,
               rows.stride);
        return y;
    }
};

}  // namespace aflora
