// y = W0 x + bias + s b ⊙ B (d ⊙ (A x)) as one node of libtorch's graph: kernels/low_rank.cu
// around libtorch's own product with the frozen weight, dense or restored for it.
#pragma once

#include "quantised_cuda.h"
#include "remade.h"

namespace aflora {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct LowRank : torch::autograd::Function<LowRank> {
    static constexpr int64_t MAX_RANK = 8;

    static Module& kernels_for(const at::Tensor& x, int64_t rank) {
        return module("low_rank.cu", kernels::low_rank, {bf16(x), "R=" + std::to_string(rank)});
    }

    static int columns(int64_t rank) { return rank <= 4 ? 8 : 4; }

    // Blocks across `width` columns.
    static unsigned across(int64_t width, int64_t rank) { return divided(width, 32 * columns(rank)); }

    // Tokens of a block: many, for few partial sums; but few enough to have blocks for every
    // multiprocessor of a large GPU, some times over.
    static int slab(int64_t n, unsigned across) {
        int tokens = 128;
        while (tokens > 8 && divided(n, tokens) * across < 264) tokens /= 2;
        return tokens;
    }

    static Variable forward(AutogradContext* ctx, const Variable& x, const FrozenWeight& weight, const Maybe& maybe_bias, const Variable& down,
                            const Maybe& maybe_d, const Variable& up, const Maybe& maybe_b, double scale) {
        auto bias = or_none(maybe_bias), d = or_none(maybe_d), b = or_none(maybe_b);
        int64_t k = weight.columns(), m = weight.rows(), rank = down.size(0);
        auto flat = aligned(x).view({-1, k});
        int64_t n = flat.size(0);
        auto a = aligned(down), up_ = aligned(up);
        // Behind a d of odd length, b may lie anywhere.
        auto b_ = b.defined() ? aligned(b) : b;
        auto y = weight.product(flat, bias);
        auto h = at::empty({n, rank}, flat.options().dtype(at::kFloat));
        auto& kernel = kernels_for(x, rank);
        int rows = rank <= 4 ? 4 : 2;
        launch(kernel["down"], divided(n, 8 * rows), 256, 0, flat.const_data_ptr(), floats(a), h.data_ptr<float>(), int(n), int(k));
        unsigned blocks = across(m, rank);
        int tokens = slab(n, blocks);
        launch(kernel["up"], dim3(blocks, divided(n, tokens)), dim3(32, 8), 0, y.data_ptr(), floats(h), floats(up_),
               floats(d), floats(b_), float(scale), int(n), int(m), tokens);
        // Only A's gradient reads x: once A is frozen, x need not be kept.
        variable_list saved{down.requires_grad() ? keep_input(ctx, x, flat) : at::Tensor(), h, a, d, up_, b_};
        weight.save(ctx, saved);
        ctx->save_for_backward(saved);
        ctx->saved_data["scale"] = scale;
        ctx->saved_data["wants"] = int64_t(x.requires_grad()) | int64_t(down.requires_grad()) << 1 | int64_t(d.defined() && d.requires_grad()) << 2 |
                                   int64_t(up.requires_grad()) << 3 | int64_t(b.defined() && b.requires_grad()) << 4;
        auto shape = x.sizes().vec();
        shape.back() = m;
        return at::_unsafe_view(y, shape);  // as in quantised.h
    }

    static variable_list backward(AutogradContext* ctx, variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        auto &h = saved[1], &a = saved[2], &d = saved[3], &up = saved[4], &b = saved[5];
        FrozenWeight weight(ctx, saved, 6);
        float scale = float(ctx->saved_data["scale"].toDouble());
        int64_t wants = ctx->saved_data["wants"].toInt();
        bool wants_x = wants & 1, trains_a = wants & 2, trains_d = wants & 4, trains_up = wants & 8, trains_b = wants & 16;
        int64_t k = weight.columns(), m = weight.rows(), n = h.size(0), rank = a.size(0);
        auto dy = aligned(gradients[0]).view({n, m});
        auto fp32 = h.options();
        auto& kernel = kernels_for(dy, rank);
        unsigned across_m = across(m, rank), across_k = across(k, rank);
        int tokens = slab(n, across_m), slabs = int(divided(n, tokens));

        auto part_g = at::empty({across_m, n, rank}, fp32);
        auto part_up = at::empty({slabs, trains_up ? rank : 1, m}, fp32);
        launch(kernel[trains_up ? "grad_up_training" : "grad_up_frozen"], dim3(across_m, unsigned(slabs)), dim3(32, 8), 0, dy.const_data_ptr(),
               floats(h), floats(up), floats(d), floats(b), scale, part_g.data_ptr<float>(), part_up.data_ptr<float>(), int(n), int(m), tokens);
        unsigned sums = divided(n, 256 / rank);
        auto g = at::empty({n, rank}, fp32);
        auto part_d = at::empty({sums, rank}, fp32);
        launch(kernel["sum_g"], sums, 256, 0, floats(part_g), floats(h), g.data_ptr<float>(), part_d.data_ptr<float>(), int(n), int(across_m));

        at::Tensor dx, part_down;
        if (wants_x) dx = weight.gradient(dy);
        int tokens_down = slab(n, across_k), slabs_down = int(divided(n, tokens_down));
        if (trains_a) part_down = at::empty({slabs_down, rank, k}, fp32);
        if (wants_x || trains_a) {
            auto x = trains_a ? kept_input(ctx, saved[0], k) : at::Tensor();
            launch(kernel["grad_down"], dim3(across_k, unsigned(slabs_down)), dim3(32, 8), 0, wants_x ? dx.data_ptr() : nullptr,
                   trains_a ? x.const_data_ptr() : nullptr, floats(g), floats(a), floats(d), trains_a ? part_down.data_ptr<float>() : nullptr, int(n), int(k),
                   tokens_down, int(wants_x), int(trains_a));
        }

        at::Tensor da, dup, dd, db;
        if (trains_a) da = at::empty({rank, k}, fp32);
        if (trains_up) dup = at::empty({m, rank}, fp32);
        if (trains_d) dd = at::empty({rank}, fp32);
        if (trains_b) db = at::empty({m}, fp32);
        auto place = [](at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; };
        unsigned blocks = (trains_a ? divided(rank * k, 64) : 0) + (trains_up || trains_b ? divided(m, 64 / (trains_up ? rank : 1)) : 0) + (trains_d ? 1 : 0);
        if (blocks) {
            launch(kernel["finish"], blocks, dim3(64, 4), 0, const_cast<const float*>(place(part_down)), floats(part_up), floats(part_d), floats(up),
                   floats(d), floats(b), scale, place(da), place(dup), place(dd), place(db), int(k), int(m), slabs, slabs_down, int(sums));
        }
        if (wants_x) {
            auto shape = gradients[0].sizes().vec();
            shape.back() = k;
            dx = dx.view(shape);
        }
        return {dx, {}, {}, da, dd, dup, db, {}};
    }

    // Whether these kernels take such a layer; `WidePath` takes any.
    static bool takes(int64_t rank, int64_t rows, int64_t columns) {
        return rank <= MAX_RANK && rows % 8 == 0 && columns % 8 == 0;
    }
};

}  // namespace aflora
