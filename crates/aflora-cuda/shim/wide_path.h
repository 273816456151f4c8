// y = W0 x + bias + s b ⊙ B (d ⊙ (A drop(x))) of up to three layers that read one x, as one node of libtorch's graph, for ranks
// beyond kernels/low_rank.cu's, any widths, and dropout before a path alone: libtorch's products on the tensor cores, the paths'
// added into those with W0, and kernels/wide_path.cu around them.
//
// With U = s b ⊙ B ⊙ d: h = A drop(x), y = W0 x + bias + U h; and of a gradient ∂y, g = Uᵀ ∂y, ∂x = W0ᵀ ∂y + drop(Aᵀ g),
// ∂A = g drop(x)ᵀ, ∂U = ∂y hᵀ, from which come those of B, d and b. The A of all paths lie one below the other, so that one
// product makes all h, one all ∂A, and one adds what all paths give to ∂x. x and h are kept, the rest is made again.
#pragma once

#include "drawn.h"
#include "paths.h"

namespace aflora {

struct WidePath : torch::autograd::Function<WidePath> {
    // Of x and the tensors of the paths; of each layer its output.
    static variable_list forward(AutogradContext* ctx, at::TensorList tensors, const PathLayers& layers, double p) {
        const auto& x = tensors[0];
        auto flat = aligned(x).view({-1, x.size(-1)});
        NodePaths of(tensors.slice(1), layers);
        Folded by(of, flat.scalar_type());
        Drop drop{Dropout(p), p > 0 ? next_random() : Random{}};
        auto h = at::mm(drop.of(flat), by.a.t());
        bool of_u = false;
        variable_list made;
        for (size_t i = 0; i < of.paths.size(); i++) {
            int64_t rows = of.paths[i].rows;
            auto y = of.weights[i].product(flat.narrow(0, 0, rows), layers.all[i].bias);
            y.addmm_(by.part(h, i, rows), by.u[i].t());
            auto shape = rows == flat.size(0) ? x.sizes().vec() : y.sizes().vec();
            shape.back() = y.size(1);
            made.push_back(at::_unsafe_view(y, shape));  // as in quantised.h
            of_u |= of.trains_u(i);
        }
        variable_list saved{of.trains_a() ? keep_input(ctx, x, flat) : at::Tensor(), of_u ? h : at::Tensor()};
        of.save(ctx, saved);
        ctx->save_for_backward(saved);
        ctx->saved_data["shape"] = x.sizes().vec();
        ctx->saved_data["wants_x"] = x.requires_grad();
        ctx->saved_data["p"] = p;
        keep_random(ctx, drop.random);
        return made;
    }

    static variable_list backward(AutogradContext* ctx, variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        NodePaths of(ctx, saved, 2);
        bool wants_x = ctx->saved_data["wants_x"].toBool();
        auto shape = ctx->saved_data["shape"].toIntVector();
        Drop drop{Dropout(ctx->saved_data["p"].toDouble()), random_of(ctx)};
        for (size_t i = 0; i < of.paths.size(); i++) gradients[i] = aligned(gradients[i]).view({of.paths[i].rows, of.weights[i].rows()});
        const auto& dy = gradients[0];
        Folded by(of, dy.scalar_type());
        at::Tensor dx;
        if (wants_x || of.trains_a()) {
            auto g = at::empty({dy.size(0), by.a.size(0)}, dy.options());
            for (size_t i = 0; i < of.paths.size(); i++) {
                int64_t rows = of.paths[i].rows;
                auto part = by.part(g, i, rows);
                at::mm_out(part, gradients[i], by.u[i]);
                if (rows < g.size(0)) by.part(g, i, g.size(0)).narrow(0, rows, g.size(0) - rows).zero_();
            }
            if (of.trains_a()) {
                auto da = at::mm(g.t(), drop.of(kept_input(ctx, saved[0], shape.back())), at::kFloat);
                for (size_t i = 0; i < of.paths.size(); i++)
                    if (of.trains_a(i)) of.set(i, NodePaths::A, da.narrow(0, int64_t(i) * by.rank, by.rank));
            }
            if (wants_x) {
                dx = of.weights[0].gradient(dy);
                for (size_t i = 1; i < of.paths.size(); i++) {
                    auto part = dx.narrow(0, 0, of.paths[i].rows);
                    of.weights[i].add_gradient(part, gradients[i]);
                }
                drop.add(dx, g, by.a);
                dx = dx.view(shape);
            }
        }
        for (size_t i = 0; i < of.paths.size(); i++) {
            if (!of.trains_u(i)) continue;
            const auto& path = of.paths[i];
            auto du = at::mm(gradients[i].t(), by.part(saved[1], i, path.rows), at::kFloat);
            auto terms = of.trains(i, NodePaths::D) || of.trains(i, NodePaths::OF_B) ? du.mul(path.up) : at::Tensor();
            if (of.trains(i, NodePaths::D)) of.set(i, NodePaths::D, (path.b.defined() ? at::mv(terms.t(), path.b) : terms.sum(0)).mul_(path.scale));
            if (of.trains(i, NodePaths::OF_B)) of.set(i, NodePaths::OF_B, (path.d.defined() ? at::mv(terms, path.d) : terms.sum(1)).mul_(path.scale));
            if (of.trains(i, NodePaths::B)) of.set(i, NodePaths::B, unfolded(path, du));
        }
        return of.given(dx, 2);
    }

    // Whether the layer is one for dropout: eight elements draw together.
    static bool drops(int64_t columns) { return columns % 8 == 0; }

private:
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

    // A of all paths, one below the other, and U of each, in the wide kind.
    struct Folded {
        int64_t rank;
        at::Tensor a;
        std::vector<at::Tensor> u;

        Folded(const NodePaths& of, at::ScalarType kind) : rank(of.paths[0].down.size(0)) {
            auto options = of.paths[0].down.options().dtype(kind);
            a = at::empty({rank * int64_t(of.paths.size()), of.paths[0].down.size(1)}, options);
            for (const auto& path : of.paths) {
                auto own = a.narrow(0, rank * int64_t(u.size()), rank);
                u.push_back(at::empty(path.up.sizes(), options));
                launch(kernels_for(kind)["fold"], divided(path.down.numel() + path.up.numel(), 256), 256, 0, floats(path.down), floats(path.up),
                       floats(path.d), floats(path.b), path.scale, own.data_ptr(), u.back().data_ptr(), unsigned(path.down.numel()),
                       unsigned(path.up.numel()), unsigned(rank));
            }
        }

        // A path's components, of so many tokens.
        at::Tensor part(const at::Tensor& of_all, size_t i, int64_t rows) const { return of_all.narrow(1, int64_t(i) * rank, rank).narrow(0, 0, rows); }
    };

    // ∂B, in the memory of ∂U.
    static at::Tensor unfolded(const Path& path, const at::Tensor& du) {
        launch(kernels_for(at::kFloat)["unfold"], divided(du.numel(), 256), 256, 0, du.data_ptr<float>(), floats(path.d), floats(path.b), path.scale,
               unsigned(du.numel()), unsigned(path.up.size(1)));
        return du;
    }
};

}  // namespace aflora
