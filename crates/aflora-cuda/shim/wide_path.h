// y = W0 x + bias + s b ⊙ B (d ⊙ (A drop(x))) as one node of libtorch's graph, for ranks beyond kernels/low_rank.cu's, any
// widths, and dropout: libtorch's products on the tensor cores, the path's added into those with W0, and
// kernels/wide_path.cu around them.
//
// With U = s b ⊙ B ⊙ d: h = A drop(x), y = W0 x + bias + U h; and of a gradient ∂y, g = Uᵀ ∂y, ∂x = W0ᵀ ∂y + drop(Aᵀ g),
// ∂A = g drop(x)ᵀ, ∂U = ∂y hᵀ, from which come those of B, d and b. x and h are kept, the rest is made again.
#pragma once

#include "drawn.h"
#include "quantised_cuda.h"
#include "remade.h"

namespace aflora {

struct WidePath : torch::autograd::Function<WidePath> {
    using Context = torch::autograd::AutogradContext;

    static at::Tensor forward(Context* ctx, const at::Tensor& x, const FrozenWeight& weight, const Maybe& maybe_bias, const at::Tensor& down,
                              const Maybe& maybe_d, const at::Tensor& up, const Maybe& maybe_b, double scale, double p) {
        auto bias = or_none(maybe_bias);
        Path path{down.contiguous(), up.contiguous(), contiguous(or_none(maybe_d)), contiguous(or_none(maybe_b)), float(scale)};
        int64_t k = weight.columns(), m = weight.rows();
        auto flat = aligned(x).view({-1, k});
        auto [a, u] = path.folded(flat.scalar_type());
        Drop drop{Dropout(p), p > 0 ? next_random() : Random{}};
        auto h = at::mm(drop.of(flat), a.t());
        auto y = weight.product(flat, bias);
        y.addmm_(h, u.t());
        auto wants = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
        bool of_u = wants(up) || wants(path.d) || wants(path.b);
        torch::autograd::variable_list saved{down.requires_grad() ? keep_input(ctx, x, flat) : at::Tensor(), of_u ? h : at::Tensor(), path.down, path.up,
                                             path.d, path.b};
        weight.save(ctx, saved);
        ctx->save_for_backward(saved);
        ctx->saved_data["scale"] = scale;
        ctx->saved_data["p"] = p;
        keep_random(ctx, drop.random);
        ctx->saved_data["wants"] =
            int64_t(x.requires_grad()) | int64_t(wants(down)) << 1 | int64_t(wants(path.d)) << 2 | int64_t(wants(up)) << 3 | int64_t(wants(path.b)) << 4;
        auto shape = x.sizes().vec();
        shape.back() = m;
        return at::_unsafe_view(y, shape);  // as in quantised.h
    }

    static torch::autograd::variable_list backward(Context* ctx, torch::autograd::variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        Path path{saved[2], saved[3], saved[4], saved[5], float(ctx->saved_data["scale"].toDouble())};
        FrozenWeight weight(ctx, saved, 6);
        int64_t wants = ctx->saved_data["wants"].toInt(), k = weight.columns(), m = weight.rows();
        bool wants_x = wants & 1, trains_a = wants & 2, trains_d = wants & 4, trains_up = wants & 8, trains_b = wants & 16;
        Drop drop{Dropout(ctx->saved_data["p"].toDouble()), random_of(ctx)};
        auto dy = aligned(gradients[0]).view({-1, m});
        auto [a, u] = path.folded(dy.scalar_type());
        at::Tensor dx, da, dd, dup, db;
        if (wants_x || trains_a) {
            auto g = at::mm(dy, u);
            if (trains_a) da = at::mm(g.t(), drop.of(kept_input(ctx, saved[0], k)), at::kFloat);
            if (wants_x) {
                dx = weight.gradient(dy);
                drop.add(dx, g, a);
                auto shape = gradients[0].sizes().vec();
                shape.back() = k;
                dx = dx.view(shape);
            }
        }
        if (trains_up || trains_d || trains_b) {
            auto du = at::mm(dy.t(), saved[1], at::kFloat);
            if (trains_d || trains_b) {
                auto terms = du.mul(path.up);
                if (trains_d) dd = (path.b.defined() ? at::mv(terms.t(), path.b) : terms.sum(0)).mul_(path.scale);
                if (trains_b) db = (path.d.defined() ? at::mv(terms, path.d) : terms.sum(1)).mul_(path.scale);
            }
            if (trains_up) dup = path.unfolded(du);
        }
        return {dx, {}, {}, da, dd, dup, db, {}, {}};
    }

    // Whether the layer is one for dropout: eight elements draw together.
    static bool drops(int64_t columns) { return columns % 8 == 0; }

private:
    static at::Tensor contiguous(const at::Tensor& t) { return t.defined() ? t.contiguous() : t; }

    static Module& kernels_for(at::ScalarType kind) { return module("wide_path.cu", kernels::wide_path, {kind == at::kBFloat16 ? "BF16=1" : "BF16=0"}); }

    struct Drop {
        Dropout dropout;
        Random random;

        // The share of `x` that stays.
        at::Tensor of(const at::Tensor& x) const {
            if (!dropout.threshold) return x;
            auto dropped = at::empty_like(x);
            launch(kernels_for(x.scalar_type())["drop"], divided(x.numel(), 8 * 256), 256, 0, x.const_data_ptr(), dropped.data_ptr(),
                   unsigned(x.numel() / 8), dropout.threshold, dropout.keep, random);
            return dropped;
        }

        // dx += of(g a).
        void add(at::Tensor& dx, const at::Tensor& g, const at::Tensor& a) const {
            if (!dropout.threshold) return void(dx.addmm_(g, a));
            auto through = at::mm(g, a);
            launch(kernels_for(dx.scalar_type())["add_dropped"], divided(dx.numel(), 8 * 256), 256, 0, dx.data_ptr(), through.const_data_ptr(),
                   unsigned(dx.numel() / 8), dropout.threshold, dropout.keep, random);
        }
    };

    struct Path {
        at::Tensor down, up, d, b;
        float scale;

        // A and U in the wide kind.
        std::pair<at::Tensor, at::Tensor> folded(at::ScalarType kind) const {
            auto a = at::empty_like(down, at::TensorOptions().dtype(kind)), u = at::empty_like(up, at::TensorOptions().dtype(kind));
            launch(kernels_for(kind)["fold"], divided(down.numel() + up.numel(), 256), 256, 0, floats(down), floats(up), floats(d), floats(b), scale,
                   a.data_ptr(), u.data_ptr(), unsigned(down.numel()), unsigned(up.numel()), unsigned(up.size(1)));
            return {a, u};
        }

        // ∂B, in the memory of ∂U.
        at::Tensor unfolded(const at::Tensor& du) const {
            launch(kernels_for(at::kFloat)["unfold"], divided(du.numel(), 256), 256, 0, du.data_ptr<float>(), floats(d), floats(b), scale,
                   unsigned(du.numel()), unsigned(up.size(1)));
            return du;
        }
    };
};

}  // namespace aflora
