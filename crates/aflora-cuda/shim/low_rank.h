// y = W0 x + bias + s b ⊙ B (d ⊙ (A x)) as one node of libtorch's graph: kernels/low_rank.cu
// around libtorch's own product with the frozen weight.
#pragma once

#include "kernel.h"
#include <torch/csrc/autograd/custom_function.h>

namespace aflora {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct LowRank : torch::autograd::Function<LowRank> {
    static constexpr int64_t MAX_RANK = 32;

    static Module& kernels_for(const at::Tensor& x, int64_t rank) {
        return module("low_rank.cu", kernels::low_rank, {bf16(x), "R=" + std::to_string(rank)});
    }

    static int columns(int64_t rank) { return rank <= 4 ? 8 : rank <= 8 ? 4 : 2; }

    // Tokens that a block takes: few where there are few, for blocks enough.
    static int slab(int64_t n) { return n >= 16384 ? 128 : n >= 2048 ? 32 : 8; }

    static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& weight, const Maybe& maybe_bias, const Variable& down,
                            const Maybe& maybe_d, const Variable& up, const Maybe& maybe_b, double scale) {
        auto bias = or_none(maybe_bias), d = or_none(maybe_d), b = or_none(maybe_b);
        int64_t k = weight.size(1), m = weight.size(0), rank = down.size(0);
        auto flat = aligned(x).view({-1, k});
        int64_t n = flat.size(0);
        auto a = aligned(down), up_ = aligned(up);
        auto y = bias.defined() ? at::addmm(bias, flat, weight.t()) : at::mm(flat, weight.t());
        auto h = at::empty({n, rank}, flat.options().dtype(at::kFloat));
        auto& kernel = kernels_for(x, rank);
        int rows = rank <= 4 ? 4 : rank <= 16 ? 2 : 1;
        launch(kernel["down"], divided(n, 8 * rows), 256, 0, flat.const_data_ptr(), floats(a), h.data_ptr<float>(), int(n), int(k));
        int tokens = slab(n);
        launch(kernel["up"], dim3(divided(m, 32 * columns(rank)), divided(n, tokens)), dim3(32, 8), 0, y.data_ptr(), floats(h), floats(up_),
               floats(d), floats(b), float(scale), int(n), int(m), tokens);
        ctx->save_for_backward({flat, weight, h, a, d, up_, b});
        ctx->saved_data["scale"] = scale;
        ctx->saved_data["wants"] = int64_t(x.requires_grad()) | int64_t(down.requires_grad()) << 1 | int64_t(d.defined() && d.requires_grad()) << 2 |
                                   int64_t(up.requires_grad()) << 3 | int64_t(b.defined() && b.requires_grad()) << 4;
        auto shape = x.sizes().vec();
        shape.back() = m;
        return y.view(shape);
    }

    static variable_list backward(AutogradContext* ctx, variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        auto &x = saved[0], &weight = saved[1], &h = saved[2], &a = saved[3], &d = saved[4], &up = saved[5], &b = saved[6];
        float scale = float(ctx->saved_data["scale"].toDouble());
        int64_t wants = ctx->saved_data["wants"].toInt();
        bool wants_x = wants & 1, trains_a = wants & 2, trains_d = wants & 4, trains_up = wants & 8, trains_b = wants & 16;
        int64_t k = x.size(1), m = weight.size(0), n = x.size(0), rank = a.size(0);
        auto dy = aligned(gradients[0]).view({n, m});
        auto fp32 = h.options();
        auto& kernel = kernels_for(x, rank);
        int tokens = slab(n), slabs = int(divided(n, tokens)), cols = columns(rank);
        int64_t width = trains_up ? rank : 1;

        auto g = at::empty({n, rank}, fp32);
        auto part_up = at::empty({slabs, m, width}, fp32);
        auto part_d = at::empty({slabs, rank}, fp32);
        int64_t across = std::min<int64_t>(divided(divided(m, cols), 32) * 32, 256);
        int lanes = int(std::max<int64_t>(1, std::min<int64_t>(8, 384 / across)));
        size_t shared = sizeof(float) * (tokens * (across / 32) * rank + across * cols * width);
        launch(kernel[trains_up ? "grad_up_training" : "grad_up_frozen"], unsigned(slabs), dim3(unsigned(across), unsigned(lanes)), shared,
               dy.const_data_ptr(), floats(h), floats(up), floats(d), floats(b), scale, g.data_ptr<float>(), part_up.data_ptr<float>(),
               part_d.data_ptr<float>(), int(n), int(m), tokens);

        at::Tensor dx, part_down;
        if (wants_x) dx = at::mm(dy, weight);
        // Fewer sums over slabs: this kernel's tokens are spread over blocks of columns too.
        int tokens_down = std::min(tokens * 2, 128), slabs_down = int(divided(n, tokens_down));
        if (trains_a) part_down = at::empty({slabs_down, rank, k}, fp32);
        if (wants_x || trains_a) {
            launch(kernel["grad_down"], dim3(divided(k, 32 * cols), unsigned(slabs_down)), dim3(32, 8), sizeof(float) * 8 * 32 * cols,
                   wants_x ? dx.data_ptr() : nullptr, x.const_data_ptr(), floats(g), floats(a), floats(d),
                   trains_a ? part_down.data_ptr<float>() : nullptr, int(n), int(k), tokens_down, int(wants_x), int(trains_a));
        }

        at::Tensor da, dup, dd, db;
        if (trains_a) da = at::empty({rank, k}, fp32);
        if (trains_up) dup = at::empty({m, rank}, fp32);
        if (trains_d) dd = at::empty({rank}, fp32);
        if (trains_b) db = at::empty({m}, fp32);
        auto place = [](at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; };
        unsigned blocks = (trains_a ? divided(rank * k, 64) : 0) + (trains_up || trains_b ? divided(m, 64 / width) : 0) + (trains_d ? 1 : 0);
        if (blocks) {
            launch(kernel["finish"], blocks, dim3(64, 4), 0, const_cast<const float*>(place(part_down)), floats(part_up), floats(part_d), floats(up),
                   floats(d), floats(b), scale, place(da), place(dup), place(dd), place(db), int(k), int(m), slabs, slabs_down);
        }
        if (wants_x) {
            auto shape = gradients[0].sizes().vec();
            shape.back() = k;
            dx = dx.view(shape);
        }
        return {dx, {}, {}, da, dd, dup, db, {}};
    }

    // Whether these kernels take the layer; otherwise it is computed from libtorch's operations.
    static bool takes(const Variable& x, const Variable& weight, const Variable& down) {
        return is_wide(x) && x.scalar_type() == weight.scalar_type() && !weight.requires_grad() && weight.is_non_overlapping_and_dense() &&
               down.scalar_type() == at::kFloat && down.size(0) <= MAX_RANK && weight.size(0) % 8 == 0 && weight.size(1) % 8 == 0 &&
               x.numel() > 0;
    }
};

}  // namespace aflora
