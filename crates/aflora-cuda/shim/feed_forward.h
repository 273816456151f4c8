// Two layers with paths and an activation between them, z = W2 a + .., a = act(y), y = W1 x + .. (paths.h), as one node of libtorch's
// graph. It keeps y alone: a is made again for the gradient of the second layer's A.
#pragma once

#include "paths.h"

namespace aflora {

struct FeedForward : torch::autograd::Function<FeedForward> {
    // Of x and the tensors of both paths. Activations have kernels/activation.cuh's numbers.
    static at::Tensor forward(AutogradContext* ctx, at::TensorList tensors, const PathLayers& layers, int64_t activation) {
        const auto& x = tensors[0];
        auto flat = aligned(x).view({-1, x.size(-1)});
        NodePaths of(tensors.slice(1), layers);
        PathKernels first(flat, &of.paths[0], 1), second(flat, &of.paths[1], 1);
        auto y = of.weights[0].product(flat, layers.all[0].bias);
        first.paths.at[0].y = y.data_ptr();
        auto h = first.down(flat);
        auto a = first.up_activated(h, y, activation);
        auto z = of.weights[1].product(a, layers.all[1].bias);
        second.paths.at[0].y = z.data_ptr();
        auto h2 = second.down(a);
        second.up(h2);
        variable_list saved{of.trains_a(0) ? keep_input(ctx, x, flat) : at::Tensor(), h, y, h2};
        of.save(ctx, saved);
        ctx->save_for_backward(saved);
        ctx->saved_data["shape"] = x.sizes().vec();
        ctx->saved_data["wants_x"] = x.requires_grad();
        ctx->saved_data["activation"] = activation;
        auto shape = x.sizes().vec();
        shape.back() = z.size(1);
        return at::_unsafe_view(z, shape);  // as in quantised.h
    }

    static variable_list backward(AutogradContext* ctx, variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        const auto &h = saved[1], &y = saved[2], &h2 = saved[3];
        NodePaths of(ctx, saved, 4);
        bool wants_x = ctx->saved_data["wants_x"].toBool(), wants_y = wants_x || of.trains(0);
        auto shape = ctx->saved_data["shape"].toIntVector();
        int64_t k = shape.back(), activation = ctx->saved_data["activation"].toInt();
        auto dz = aligned(gradients[0]).view({y.size(0), of.weights[1].rows()});
        PathKernels first(dz, &of.paths[0], 1), second(dz, &of.paths[1], 1);
        of.give(second, 0, 1, dz);
        auto sums = second.grad_up(h2);
        at::Tensor dy, dx;
        if (wants_y) dy = of.weights[1].gradient(dz);
        if (wants_y || of.trains_a(1)) second.grad_down_activated(sums, dy, y, activation);
        second.finish(sums, y.size(1));
        if (!wants_y) return of.given(dx, 2);
        of.give(first, 0, 0, dy);
        sums = first.grad_up(h);
        if (wants_x) dx = of.weights[0].gradient(dy);
        if (wants_x || of.trains_a(0)) first.grad_down(sums, dx, of.trains_a(0) ? kept_input(ctx, saved[0], k) : at::Tensor(), k);
        first.finish(sums, k);
        return of.given(wants_x ? dx.view(shape) : dx, 2);
    }
};

}  // namespace aflora
