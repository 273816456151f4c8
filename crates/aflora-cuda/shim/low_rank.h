// y = W0 x + bias + s b ⊙ B (d ⊙ (A x)) of up to three layers that read one x, as one node of libtorch's graph: kernels/low_rank.cu
// around libtorch's own products with the frozen weights, dense or restored for them.
#pragma once

#include "paths.h"

namespace aflora {

struct LowRank : torch::autograd::Function<LowRank> {
    // Components of several paths: without the tensor cores, one pass for more of them takes longer than one for each.
    static constexpr int64_t MOST_TOGETHER = 12;

    // Of x and the tensors of the paths; of each layer its output.
    static variable_list forward(AutogradContext* ctx, at::TensorList tensors, const PathLayers& layers) {
        const auto& x = tensors[0];
        auto flat = aligned(x).view({-1, x.size(-1)});
        NodePaths of(tensors.slice(1), layers);
        PathKernels kernels(flat, of.paths.data(), of.paths.size());
        variable_list made;
        for (size_t i = 0; i < of.paths.size(); i++) {
            int64_t rows = of.paths[i].rows;
            made.push_back(of.weights[i].product(rows == flat.size(0) ? flat : flat.narrow(0, 0, rows), layers.all[i].bias));
            kernels.paths.at[i].y = made[i].data_ptr();
        }
        auto h = kernels.down(flat);
        kernels.up(h);
        // Only A's gradient reads x: once A is frozen, x need not be kept.
        variable_list saved{of.trains_a() ? keep_input(ctx, x, flat) : at::Tensor(), h};
        of.save(ctx, saved);
        ctx->save_for_backward(saved);
        ctx->saved_data["shape"] = x.sizes().vec();
        ctx->saved_data["wants_x"] = x.requires_grad();
        for (auto& y : made) {
            auto shape = y.size(0) == flat.size(0) ? x.sizes().vec() : y.sizes().vec();
            shape.back() = y.size(1);
            y = at::_unsafe_view(y, shape);  // as in quantised.h
        }
        return made;
    }

    static variable_list backward(AutogradContext* ctx, variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        NodePaths of(ctx, saved, 2);
        bool wants_x = ctx->saved_data["wants_x"].toBool();
        auto shape = ctx->saved_data["shape"].toIntVector();
        int64_t k = shape.back();
        for (size_t i = 0; i < of.paths.size(); i++) gradients[i] = aligned(gradients[i]).view({of.paths[i].rows, of.weights[i].rows()});
        PathKernels kernels(gradients[0], of.paths.data(), of.paths.size());
        for (size_t i = 0; i < of.paths.size(); i++) of.give(kernels, i, i, gradients[i]);
        auto sums = kernels.grad_up(saved[1]);
        at::Tensor dx;
        if (wants_x) {
            dx = of.weights[0].gradient(gradients[0]);
            for (size_t i = 1; i < of.paths.size(); i++) {
                int64_t rows = of.paths[i].rows;
                auto part = rows == dx.size(0) ? dx : dx.narrow(0, 0, rows);
                of.weights[i].add_gradient(part, gradients[i]);
            }
        }
        if (wants_x || of.trains_a()) kernels.grad_down(sums, dx, of.trains_a() ? kept_input(ctx, saved[0], k) : at::Tensor(), k);
        kernels.finish(sums, k);
        return of.given(wants_x ? dx.view(shape) : dx, 1);
    }

    // Whether so many paths are computed together.
    static bool takes_together(const at::Tensor& x, int64_t paths, int64_t rank) {
        return paths * rank <= MOST_TOGETHER || PathKernels::by_tiles(x.scalar_type());
    }
};

}  // namespace aflora
