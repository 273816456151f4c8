// y = W0 x + bias + s b ⊙ B (d ⊙ (A x)) of up to three layers that read one x, as one node of libtorch's graph:
// kernels/low_rank.cu around libtorch's own products with the frozen weights, dense or restored for them.
#pragma once

#include "quantised_cuda.h"
#include "remade.h"

namespace aflora {

#include "../kernels/path.cuh"

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct LowRank : torch::autograd::Function<LowRank> {
    static constexpr int64_t MAX_RANK = 8, MAX_PATHS = 3;
    // Components of several paths: with more, one pass for all of them takes longer than one for each.
    static constexpr int64_t MAX_TOGETHER = 12;

    // What of a layer does not train. It reads the first `rows` tokens.
    struct Layer {
        FrozenWeight weight;
        at::Tensor bias;
        double scale;
        int64_t rows;
    };

    // The layers, and whether their paths have vectors d and b.
    struct Layers {
        std::vector<Layer> all;
        bool has_d, has_b;

        size_t each() const { return 2 + has_d + has_b; }
    };

    // Of x and, path after path, A, B, d and b, without those that there are not: `tensors`.
    static variable_list forward(AutogradContext* ctx, at::TensorList tensors, const Layers& layers) {
        const auto& x = tensors[0];
        auto flat = aligned(x).view({-1, x.size(-1)});
        std::vector<Path> paths;
        std::vector<bool> wants;
        bool trains_a = false;
        for (size_t i = 0; i < layers.all.size(); i++) {
            auto own = tensors.slice(1 + i * layers.each(), layers.each());
            auto d = layers.has_d ? own[2] : at::Tensor(), b = layers.has_b ? own.back() : at::Tensor();
            // Behind a d of odd length, b may lie anywhere.
            paths.push_back({aligned(own[0]), aligned(own[1]), d, b.defined() ? aligned(b) : b, float(layers.all[i].scale), layers.all[i].rows});
            for (const auto& t : {own[0], own[1], d, b}) wants.push_back(t.defined() && t.requires_grad());
            trains_a |= own[0].requires_grad();
        }
        Kernels kernels(flat, paths);
        variable_list made;
        for (size_t i = 0; i < paths.size(); i++) {
            const auto& layer = layers.all[i];
            made.push_back(layer.weight.product(layer.rows == flat.size(0) ? flat : flat.narrow(0, 0, layer.rows), layer.bias));
            kernels.paths.at[i].y = made[i].data_ptr();
        }
        auto h = kernels.down(flat);
        kernels.up(h);
        // Only A's gradient reads x: once A is frozen, x need not be kept.
        variable_list saved{trains_a ? keep_input(ctx, x, flat) : at::Tensor(), h};
        std::vector<double> scales;
        std::vector<int64_t> rows;
        for (const auto& path : paths) {
            for (const auto& t : {path.down, path.up, path.d, path.b}) saved.push_back(t);
            scales.push_back(path.scale);
            rows.push_back(path.rows);
        }
        for (size_t i = 0; i < paths.size(); i++) layers.all[i].weight.save(ctx, saved, i);
        ctx->save_for_backward(saved);
        ctx->saved_data["scales"] = scales;
        ctx->saved_data["rows"] = rows;
        ctx->saved_data["shape"] = x.sizes().vec();
        ctx->saved_data["wants_x"] = x.requires_grad();
        ctx->saved_data["wants"] = std::vector<int64_t>(wants.begin(), wants.end());
        for (auto& y : made) {
            auto shape = x.sizes().vec();
            if (y.size(0) != flat.size(0)) shape = y.sizes().vec();
            shape.back() = y.size(1);
            y = at::_unsafe_view(y, shape);  // as in quantised.h
        }
        return made;
    }

    static variable_list backward(AutogradContext* ctx, variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        const auto& h = saved[1];
        auto scales = ctx->saved_data["scales"].toDoubleVector();
        auto rows = ctx->saved_data["rows"].toIntVector(), wants = ctx->saved_data["wants"].toIntVector();
        bool wants_x = ctx->saved_data["wants_x"].toBool(), trains_a = false;
        auto shape = ctx->saved_data["shape"].toIntVector();
        int64_t k = shape.back(), n = h.size(1);
        std::vector<Path> paths;
        std::vector<FrozenWeight> weights;
        size_t behind = 2 + 4 * scales.size();
        for (size_t i = 0; i < scales.size(); i++) {
            auto* own = &saved[2 + 4 * i];
            paths.push_back({own[0], own[1], own[2], own[3], float(scales[i]), rows[i]});
            weights.emplace_back(ctx, saved, behind, i);
            gradients[i] = aligned(gradients[i]).view({rows[i], weights[i].rows()});
            trains_a |= wants[4 * i] != 0;
        }
        Kernels kernels(gradients[0], paths);
        variable_list made(1 + wants.size());
        for (size_t i = 0; i < paths.size(); i++) {
            auto* own = &made[1 + 4 * i];
            const at::Tensor* like[] = {&paths[i].down, &paths[i].up, &paths[i].d, &paths[i].b};
            for (size_t t = 0; t < 4; t++)
                if (wants[4 * i + t]) own[t] = at::empty(like[t]->sizes(), h.options());
            auto place = [](at::Tensor& t) { return t.defined() ? t.data_ptr<float>() : nullptr; };
            auto& path = kernels.paths.at[i];
            path.y = gradients[i].data_ptr();
            path.da = place(own[0]);
            path.dup = place(own[1]);
            path.dd = place(own[2]);
            path.db = place(own[3]);
        }
        auto sums = kernels.grad_up(h);
        at::Tensor dx;
        if (wants_x) {
            dx = weights[0].gradient(gradients[0]);
            for (size_t i = 1; i < paths.size(); i++) {
                auto part = rows[i] == n ? dx : dx.narrow(0, 0, rows[i]);
                weights[i].add_gradient(part, gradients[i]);
            }
        }
        if (wants_x || trains_a) kernels.grad_down(sums, dx, trains_a ? kept_input(ctx, saved[0], k) : at::Tensor(), n, k);
        kernels.finish(sums, k);
        if (wants_x) made[0] = dx.view(shape);
        // One for each tensor that `forward` was given.
        variable_list out{made[0]};
        for (size_t i = 0; i < wants.size(); i++)
            if (saved[2 + i].defined()) out.push_back(made[1 + i]);
        out.emplace_back();
        return out;
    }

    // Whether these kernels take such a layer by itself; `WidePath` takes any.
    static bool takes(int64_t rank, int64_t rows, int64_t columns) {
        return rank > 0 && rank <= MAX_RANK && rows % 8 == 0 && columns % 8 == 0;
    }

    // Whether they take so many paths together.
    static bool takes_together(int64_t paths, int64_t rank) { return paths <= MAX_PATHS && paths * rank <= MAX_TOGETHER; }

private:
    struct Path {
        at::Tensor down, up, d, b;
        float scale;
        int64_t rows;
    };

    // Sums over stretches of columns and slabs of tokens, of which gradients are made.
    struct Sums {
        at::Tensor g, of_d, of_up[MAX_PATHS], of_down;
        int slabs_up = 0, slabs_down = 0, slabs_d = 0;
    };

    // The kernels, and what they are given.
    struct Kernels {
        Module& module_;
        int64_t rank, count;
        KernelPaths paths{};

        Kernels(const at::Tensor& x, const std::vector<Path>& of)
            : module_(module("low_rank.cu", kernels::low_rank,
                             {bf16(x), "R=" + std::to_string(of[0].down.size(0)), "PATHS=" + std::to_string(of.size())})),
              rank(of[0].down.size(0)), count(int64_t(of.size())) {
            for (size_t i = 0; i < of.size(); i++) {
                auto& path = paths.at[i];
                path.a = floats(of[i].down);
                path.up = floats(of[i].up);
                path.d = floats(of[i].d);
                path.b = floats(of[i].b);
                path.s = of[i].scale;
                path.m = int(of[i].up.size(0));
                path.rows = int(of[i].rows);
            }
        }

        int64_t all() const { return rank * count; }

        // Blocks across the widest path.
        unsigned across() const {
            unsigned most = 0;
            for (int i = 0; i < count; i++) most = std::max(most, across(paths.at[i].m));
            return most;
        }

        unsigned across(int64_t width) const { return divided(width, 32 * (rank <= 4 ? 8 : 4)); }

        unsigned across_down(int64_t width) const { return divided(width, 32 * (all() <= 4 ? 8 : all() <= 8 ? 4 : 2)); }

        // Tokens of a block of those that are of one path.
        int slab(int64_t n) const {
            unsigned blocks = 0;
            for (int i = 0; i < count; i++) blocks += across(paths.at[i].m);
            return slab(n, blocks);
        }

        // Tokens of a block: many, for few partial sums; but few enough to have blocks for every
        // multiprocessor of a large GPU, some times over.
        static int slab(int64_t n, unsigned across) {
            int tokens = 128;
            while (tokens > 8 && divided(n, tokens) * across < 264) tokens /= 2;
            return tokens;
        }

        at::Tensor down(const at::Tensor& x) {
            int64_t n = x.size(0), k = x.size(1);
            auto h = at::empty({count, n, rank}, x.options().dtype(at::kFloat));
            launch(module_["down"], divided(n, 8 * (all() <= 4 ? 4 : 2)), 256, 0, x.const_data_ptr(), paths, h.data_ptr<float>(), int(n), int(k));
            return h;
        }

        void up(const at::Tensor& h) {
            int64_t n = h.size(1);
            int tokens = slab(n);
            launch(module_["up"], dim3(across(), divided(n, tokens), unsigned(count)), dim3(32, 8), 0, paths, floats(h), int(n), tokens);
        }

        Sums grad_up(const at::Tensor& h) {
            int64_t n = h.size(1);
            auto fp32 = h.options();
            int tokens = slab(n);
            unsigned most = across(), slabs = divided(n, tokens), blocks = divided(n, 256 / rank);
            int training = 0;
            Sums sums;
            sums.slabs_up = int(slabs);
            sums.slabs_d = int(blocks);
            for (int i = 0; i < count; i++) {
                auto& path = paths.at[i];
                sums.of_up[i] = at::empty({slabs, path.dup ? rank : 1, path.m}, fp32);
                path.part_up = sums.of_up[i].data_ptr<float>();
                training += path.dup != nullptr;
            }
            auto part_g = at::empty({count, most, n, rank}, fp32);
            const char* kernel = training == count ? "grad_up_training" : training == 0 ? "grad_up_frozen" : "grad_up_mixed";
            launch(module_[kernel], dim3(most, slabs, unsigned(count)), dim3(32, 8), 0, paths, floats(h), part_g.data_ptr<float>(), int(n), tokens);
            sums.g = at::empty({count, n, rank}, fp32);
            sums.of_d = at::empty({count, blocks, rank}, fp32);
            launch(module_["sum_g"], dim3(blocks, 1, unsigned(count)), 256, 0, paths, floats(part_g), floats(h), sums.g.data_ptr<float>(),
                   sums.of_d.data_ptr<float>(), int(n), int(most));
            return sums;
        }

        // `dx` and `x` may be undefined.
        void grad_down(Sums& sums, at::Tensor& dx, const at::Tensor& x, int64_t n, int64_t k) {
            unsigned blocks = across_down(k);
            int tokens = slab(n, blocks);
            unsigned slabs = divided(n, tokens);
            sums.slabs_down = int(slabs);
            if (x.defined()) sums.of_down = at::empty({slabs, all(), k}, sums.g.options());
            launch(module_["grad_down"], dim3(blocks, slabs), dim3(32, 8), 0, dx.defined() ? dx.data_ptr() : nullptr,
                   x.defined() ? x.const_data_ptr() : nullptr, floats(sums.g), paths,
                   x.defined() ? sums.of_down.data_ptr<float>() : nullptr, int(n), int(k), tokens);
        }

        void finish(const Sums& sums, int64_t k) {
            unsigned most = 0;
            for (int i = 0; i < count; i++) {
                const auto& path = paths.at[i];
                unsigned blocks = (path.da ? divided(rank * k, 64) : 0) + (path.dup || path.db ? divided(path.m, 64 / (path.dup ? rank : 1)) : 0) + (path.dd ? 1 : 0);
                most = std::max(most, blocks);
            }
            if (!most) return;
            launch(module_["finish"], dim3(most, 1, unsigned(count)), dim3(64, 4), 0, paths, floats(sums.of_down), floats(sums.of_d), int(k),
                   sums.slabs_up, sums.slabs_down, sums.slabs_d);
        }
    };
};

}  // namespace aflora
