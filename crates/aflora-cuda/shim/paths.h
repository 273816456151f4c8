// Low-rank paths beside frozen weights, y = W0 x + bias + s b ⊙ B (d ⊙ (A x)), as nodes of libtorch's graph have them:
// kernels/low_rank.cu and kernels/feed_forward.cu, and what a node keeps of its paths.
#pragma once

#include "path_shape.h"
#include "quantised_cuda.h"
#include "remade.h"

namespace aflora {

#include "../kernels/path.cuh"

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr size_t MOST_PATHS = 3;

// What of a layer does not train. It reads the first `rows` tokens.
struct PathLayer {
    FrozenWeight weight;
    at::Tensor bias;
    double scale;
    int64_t rows;
};

// Layers of a node, and whether their paths have vectors d and b.
struct PathLayers {
    std::vector<PathLayer> all;
    bool has_d, has_b;
};

struct Path {
    at::Tensor down, up, d, b;
    float scale;
    int64_t rows;
};

// Sums over stretches of columns and slabs of tokens, of which gradients are made.
struct PathSums {
    at::Tensor g, of_d, of_up[MOST_PATHS], of_down;
    int slabs_up = 0, slabs_down = 0, slabs_d = 0;
};

// The kernels, and what they are given.
struct PathKernels {
    bool tiled;
    std::vector<std::string> definitions;
    Module& module_;
    int64_t rank, count;
    PathShape shape;
    KernelPaths paths{};

    // In the kind of `x`, of so many paths.
    PathKernels(const at::Tensor& x, const Path* of, size_t paths_)
        : tiled(by_tiles(x.scalar_type())),
          definitions{bf16(x), "R=" + std::to_string(of->down.size(0)), "PATHS=" + std::to_string(paths_)},
          module_(tiled ? module("low_rank_tiled.cu", kernels::low_rank_tiled, definitions)
                        : module("low_rank.cu", kernels::low_rank, definitions)),
          rank(of->down.size(0)), count(int64_t(paths_)), shape(path_shape(unsigned(rank), unsigned(paths_), tiled)) {
        for (size_t i = 0; i < paths_; i++) {
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

    // Whether the tensor cores take it.
    static bool by_tiles(at::ScalarType kind) {
        int device = 0, major = 0;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        return kind == at::kBFloat16 && major >= 8;
    }

    // Blocks across the widest path.
    unsigned across() const {
        unsigned most = 0;
        for (int i = 0; i < count; i++) most = std::max(most, divided(paths.at[i].m, shape.width));
        return most;
    }

    // Tokens of a block of those that are of one path.
    int slab(int64_t n) const {
        unsigned blocks = 0;
        for (int i = 0; i < count; i++) blocks += divided(paths.at[i].m, shape.width);
        return slab(n, blocks);
    }

    // Tokens of a block: so many that all blocks run at once. With fewer tokens each, the last of them would begin when the first
    // have ended, and leave most of the GPU idle; and there would be more partial sums.
    int slab(int64_t n, unsigned across) const {
        int device = 0, multiprocessors = 0;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
        unsigned at_once = shape.at_once * unsigned(multiprocessors);
        return int(divided(divided(n, std::max(at_once / across, 1u)), shape.step)) * shape.step;
    }

    at::Tensor down(const at::Tensor& x) {
        int64_t n = x.size(0), k = x.size(1);
        auto h = at::empty({count, n, rank}, x.options().dtype(at::kFloat));
        launch(module_["down"], divided(n, shape.tokens_down), 256, shape.down, x.const_data_ptr(), paths, h.data_ptr<float>(), int(n), int(k));
        return h;
    }

    void up(const at::Tensor& h) {
        int64_t n = h.size(1);
        int tokens = slab(n);
        early(module_["up"], dim3(across(), divided(n, tokens), unsigned(count)), threads(), shape.up, paths, floats(h), int(n), tokens);
    }

    PathSums grad_up(const at::Tensor& h) {
        int64_t n = h.size(1);
        auto fp32 = h.options();
        int tokens = slab(n);
        unsigned most = across(), slabs = divided(n, tokens), blocks = divided(n, 256 / rank);
        int training = 0;
        PathSums sums;
        sums.slabs_up = int(slabs);
        sums.slabs_d = int(blocks);
        for (int i = 0; i < count; i++) {
            auto& path = paths.at[i];
            sums.of_up[i] = at::empty({slabs, path.dup ? rank : 1, path.m}, fp32);
            path.part_up = sums.of_up[i].data_ptr<float>();
            training += path.dup != nullptr;
        }
        auto part_g = at::empty({count, most, n, rank}, fp32);
        const char* kernel = tiled ? "grad_up" : training == count ? "grad_up_training" : training == 0 ? "grad_up_frozen" : "grad_up_mixed";
        launch(module_[kernel], dim3(most, slabs, unsigned(count)), threads(), shape.grad_up, paths, floats(h), part_g.data_ptr<float>(), int(n),
               tokens);
        sums.g = at::empty({count, n, rank}, fp32);
        sums.of_d = at::empty({count, blocks, rank}, fp32);
        early(module_["sum_g"], dim3(blocks, 1, unsigned(count)), 256, 0, paths, floats(part_g), floats(h), sums.g.data_ptr<float>(),
               sums.of_d.data_ptr<float>(), int(n), int(most));
        return sums;
    }

    // `dx` may be undefined, and `x` where no A trains.
    void grad_down(PathSums& sums, const at::Tensor& dx, const at::Tensor& x, int64_t k) {
        grad_down(module_["grad_down"], sums, dx, x, k);
    }

    // With an activation between x and what the path reads: `y` is what it is of, and `d` the gradient of what it gives, and then
    // that of y.
    void grad_down_activated(PathSums& sums, const at::Tensor& d, const at::Tensor& y, int64_t activation) {
        grad_down(with(activation)["grad_down_activated"], sums, d, y, y.size(1));
    }

    // As `up`, and what an activation makes of the outcome.
    at::Tensor up_activated(const at::Tensor& h, const at::Tensor& y, int64_t activation) {
        int64_t n = h.size(1);
        int tokens = slab(n);
        auto activated = at::empty_like(y);
        early(with(activation)["up_activated"], dim3(across(), divided(n, tokens)), threads(), shape.up, paths, activated.data_ptr(), floats(h),
               int(n), tokens);
        return activated;
    }

    void finish(const PathSums& sums, int64_t k) {
        unsigned most = 0;
        for (int i = 0; i < count; i++) {
            const auto& path = paths.at[i];
            unsigned blocks = (path.da ? divided(rank * k, 64) : 0) + (path.dup || path.db ? divided(path.m, 64 / (path.dup ? rank : 1)) : 0) + (path.dd ? 1 : 0);
            most = std::max(most, blocks);
        }
        if (!most) return;
        early(module_["finish"], dim3(most, 1, unsigned(count)), dim3(64, FINISH_TURNS), 0, paths, floats(sums.of_down), floats(sums.of_d), int(k),
               sums.slabs_up, sums.slabs_down, sums.slabs_d);
    }

private:
    // Launches what follows another of the paths' kernels; by tiles it need not wait for that one's end to begin.
    template <typename... A> void early(CUfunction kernel, dim3 grid, dim3 block, size_t bytes, A... arguments) const {
        tiled ? launch_early(kernel, grid, block, bytes, arguments...) : launch(kernel, grid, block, bytes, arguments...);
    }

    // Of a block that shares out columns and tokens.
    dim3 threads() const { return tiled ? dim3(256) : dim3(32, 8); }

    Module& with(int64_t activation) const {
        auto all = definitions;
        all.push_back("ACT=" + std::to_string(activation));
        if (tiled) return module("feed_forward_tiled.cu", kernels::feed_forward_tiled, all);
        return module("feed_forward.cu", kernels::feed_forward, all);
    }

    void grad_down(CUfunction kernel, PathSums& sums, const at::Tensor& dx, const at::Tensor& x, int64_t k) {
        int64_t n = sums.g.size(1);
        unsigned blocks = divided(k, shape.width_down);
        int tokens = slab(n, blocks);
        unsigned slabs = divided(n, tokens);
        sums.slabs_down = int(slabs);
        bool trains_a = false;
        for (int i = 0; i < count; i++) trains_a |= paths.at[i].da != nullptr;
        if (trains_a) sums.of_down = at::empty({slabs, rank * count, k}, sums.g.options());
        launch(kernel, dim3(blocks, slabs), threads(), shape.grad_down, dx.defined() ? dx.data_ptr() : nullptr,
               x.defined() ? x.const_data_ptr() : nullptr, floats(sums.g), paths, trains_a ? sums.of_down.data_ptr<float>() : nullptr, int(n), int(k),
               tokens);
    }
};

// The paths of a node with their weights, from its forward pass to its backward pass.
class NodePaths {
public:
    // The tensors of a path, in this order.
    enum Which { A, B, D, OF_B };

    std::vector<Path> paths;
    std::vector<FrozenWeight> weights;

    // Of path after path A, B, d and b, without those that there are not.
    NodePaths(at::TensorList tensors, const PathLayers& layers) {
        size_t each = 2 + layers.has_d + layers.has_b;
        for (size_t i = 0; i < layers.all.size(); i++) {
            const auto& layer = layers.all[i];
            auto own = tensors.slice(i * each, each);
            auto d = layers.has_d ? own[2] : at::Tensor(), b = layers.has_b ? own.back() : at::Tensor();
            // Behind a d of odd length, b may lie anywhere.
            paths.push_back({aligned(own[0]), aligned(own[1]), d.defined() ? d.contiguous() : d, b.defined() ? aligned(b) : b, float(layer.scale), layer.rows});
            weights.push_back(layer.weight);
            for (const auto& t : {own[0], own[1], d, b}) wants_.push_back(t.defined() && t.requires_grad());
        }
    }

    // Puts all of it behind what else the node saves, as the last.
    void save(AutogradContext* ctx, variable_list& saved) const {
        std::vector<double> scales;
        std::vector<int64_t> rows;
        for (const auto& path : paths) {
            for (const auto& t : {path.down, path.up, path.d, path.b}) saved.push_back(t);
            scales.push_back(path.scale);
            rows.push_back(path.rows);
        }
        for (size_t i = 0; i < weights.size(); i++) weights[i].save(ctx, saved, i);
        ctx->saved_data["scales"] = scales;
        ctx->saved_data["rows"] = rows;
        ctx->saved_data["wants"] = wants_;
    }

    // What `save` put there, from `at` on.
    NodePaths(AutogradContext* ctx, const variable_list& saved, size_t at) : wants_(ctx->saved_data["wants"].toIntVector()) {
        auto scales = ctx->saved_data["scales"].toDoubleVector();
        auto rows = ctx->saved_data["rows"].toIntVector();
        size_t behind = at + wants_.size();
        for (size_t i = 0; i < scales.size(); i++) {
            auto* own = &saved[at + 4 * i];
            paths.push_back({own[0], own[1], own[2], own[3], float(scales[i]), rows[i]});
            weights.emplace_back(ctx, saved, behind, i);
            for (size_t t = 0; t < 4; t++) given_.push_back(own[t].defined());
        }
        gradients_.resize(wants_.size());
    }

    // Whether a tensor of the path trains, whether its A does, anything behind it, or anything at all.
    bool trains(size_t i, Which which) const { return wants_[4 * i + which]; }
    bool trains_a(size_t i) const { return trains(i, A); }
    bool trains_u(size_t i) const { return trains(i, B) || trains(i, D) || trains(i, OF_B); }
    bool trains(size_t i) const { return trains_a(i) || trains_u(i); }

    // Whether an A trains.
    bool trains_a() const {
        for (size_t i = 0; i < paths.size(); i++)
            if (trains_a(i)) return true;
        return false;
    }

    // Lets the kernels' path `of_kernels` read this gradient of what the path `i` gave, and write those of its tensors.
    void give(PathKernels& kernels, size_t of_kernels, size_t i, const at::Tensor& dy) {
        auto place = [&](Which which) -> float* {
            if (!trains(i, which)) return nullptr;
            const auto& own = paths[i];
            const auto& of = which == A ? own.down : which == B ? own.up : which == D ? own.d : own.b;
            set(i, which, at::empty(of.sizes(), of.options()));
            return gradients_[4 * i + which].data_ptr<float>();
        };
        auto& path = kernels.paths.at[of_kernels];
        path.y = dy.data_ptr();
        path.da = place(A);
        path.dup = place(B);
        path.dd = place(D);
        path.db = place(OF_B);
    }

    // The gradient of a tensor that trains.
    void set(size_t i, Which which, const at::Tensor& gradient) { gradients_[4 * i + which] = gradient; }

    // What the node's backward pass gives: a gradient of x, of each tensor that the constructor took, and of so many things
    // that are no tensors.
    variable_list given(const at::Tensor& dx, size_t others) const {
        variable_list out{dx};
        for (size_t t = 0; t < gradients_.size(); t++)
            if (given_[t]) out.push_back(gradients_[t]);
        out.resize(out.size() + others);
        return out;
    }

private:
    std::vector<int64_t> wants_;
    std::vector<bool> given_;
    variable_list gradients_;
};

// Whether the kernels take such a layer by itself; `WidePath` takes any.
inline bool takes_path(int64_t rank, int64_t rows, int64_t columns) { return rank > 0 && rank <= 8 && rows % 8 == 0 && columns % 8 == 0; }

}  // namespace aflora
