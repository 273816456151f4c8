// Weights in few bits on a GPU: kernels/quantised.cu, and a frozen weight of either sort.
#pragma once

#include "fp8.h"

namespace aflora {

#include "../kernels/weight.cuh"

inline KernelWeight for_kernels(const Quantised& q) {
    const void* scales = q.scales.defined() ? q.scales.const_data_ptr() : nullptr;
    int block = int(q.map.defined() ? q.block : q.columns);
    return {q.codes.const_data_ptr(), floats(q.map), scales, floats(q.nested_map), floats(q.nested_scales), q.offset, block, int(q.nested_block)};
}

struct QuantisedOnGpu {
    static constexpr int64_t EACH = 8, FEW_ROWS = 8;

    static Module& kernels_for(const Quantised& q, at::ScalarType kind) {
        std::string bf16 = kind == at::kBFloat16 ? "BF16=1" : "BF16=0", int8 = q.map.defined() ? "INT8=0" : "INT8=1";
        std::string e4m3 = q.rounds() ? "E4M3=1" : "E4M3=0";
        return module("quantised.cu", kernels::quantised, {bf16, int8, e4m3, "BLOCKS=" + std::to_string(q.format), "ROWS=" + std::to_string(FEW_ROWS)});
    }

    static at::Tensor restore(const Quantised& q, at::ScalarType kind) {
        auto out = at::empty({q.rows, q.columns}, q.codes.options().dtype(kind));
        auto groups = static_cast<unsigned long long>(out.numel() / EACH);
        unsigned blocks = std::min(divided(int64_t(groups), 256), 1u << 16);
        launch(kernels_for(q, kind)["restore"], blocks, 256, 0, for_kernels(q), out.data_ptr(), groups);
        return out;
    }

    // x Wᵀ + bias; for few rows the weight is read where it lies.
    static at::Tensor product(const Quantised& q, const at::Tensor& x, const at::Tensor& bias) {
        if (q.rounds() && x.size(0) > FEW_ROWS && Fp8::multiplies(q, x)) return Fp8::product(q, x, bias);
        auto rows = q.rounds() ? Fp8::rounded(x, nullptr) : x;
        if (x.size(0) > FEW_ROWS) {
            auto restored = restore(q, x.scalar_type());
            return bias.defined() ? at::addmm(bias, rows, restored.t()) : at::mm(rows, restored.t());
        }
        rows = aligned(rows);
        auto addend = bias.defined() ? bias.contiguous() : bias;
        auto y = at::empty({rows.size(0), q.rows}, rows.options());
        launch(kernels_for(q, x.scalar_type())["few_rows"], divided(q.rows, 8), 256, 0, for_kernels(q), rows.const_data_ptr(),
               addend.defined() ? addend.const_data_ptr() : static_cast<const void*>(nullptr), y.data_ptr(), int(rows.size(0)), int(q.columns),
               int(q.rows));
        return y;
    }

    // dy W.
    static at::Tensor gradient(const Quantised& q, const at::Tensor& dy) {
        if (q.rounds() && dy.size(0) > FEW_ROWS && Fp8::multiplies(q, dy)) return Fp8::gradient(q, dy);
        auto rows = q.rounds() ? Fp8::rounded(dy, floats(q.scales)) : dy;
        return at::mm(rows, restore(q, dy.scalar_type()));
    }

    static bool takes(const aflora_quantised& q, at::ScalarType kind) {
        auto aligned = [](const at::Tensor* t) { return reinterpret_cast<uintptr_t>(t->const_data_ptr()) % 8 == 0; };
        bool rounds = q.codes->scalar_type() == at::kFloat8_e4m3fn;
        return (!rounds || q.rows % EACH == 0) && q.codes->is_cuda() && (kind == at::kBFloat16 || kind == at::kFloat) && q.columns % EACH == 0 && q.rows > 0 && q.columns > 0 &&
               q.columns < (1 << 30) && q.block % EACH == 0 && q.rows * q.columns / q.block < (int64_t(1) << 31) && aligned(q.codes);
    }
};

// Whether a weight is one, dense, that products in `kind` take.
inline bool is_frozen(const at::Tensor& weight, at::ScalarType kind) {
    return weight.scalar_type() == kind && !weight.requires_grad() && weight.is_non_overlapping_and_dense();
}

// A frozen weight, dense or quantised, as a node keeps it between its passes.
struct FrozenWeight {
    at::Tensor dense;
    std::optional<Quantised> quantised;

    explicit FrozenWeight(at::Tensor dense) : dense(std::move(dense)) {}
    explicit FrozenWeight(Quantised quantised) : quantised(std::move(quantised)) {}

    int64_t rows() const { return quantised ? quantised->rows : dense.size(0); }
    int64_t columns() const { return quantised ? quantised->columns : dense.size(1); }

    at::Tensor product(const at::Tensor& x, const at::Tensor& bias) const {
        if (quantised) return QuantisedOnGpu::product(*quantised, x, bias);
        return bias.defined() ? at::addmm(bias, x, dense.t()) : at::mm(x, dense.t());
    }

    // dy W.
    at::Tensor gradient(const at::Tensor& dy) const { return quantised ? QuantisedOnGpu::gradient(*quantised, dy) : at::mm(dy, dense); }

    // dx += dy W.
    void add_gradient(at::Tensor& dx, const at::Tensor& dy) const {
        if (quantised) {
            dx.add_(QuantisedOnGpu::gradient(*quantised, dy));
        } else {
            dx.addmm_(dy, dense);
        }
    }

    // Puts its tensors behind what else a node saves; of several weights each under a number of its own.
    void save(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list& saved, size_t number = 0) const {
        if (!quantised) return saved.push_back(dense);
        for (auto& tensor : quantised->tensors()) saved.push_back(tensor);
        ctx->saved_data[key("numbers", number)] = quantised->numbers();
        ctx->saved_data[key("offset", number)] = double(quantised->offset);
    }

    // What `save` put there, from `at` on, which is then behind it.
    FrozenWeight(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& saved, size_t&& at, size_t number = 0)
        : FrozenWeight(ctx, saved, at, number) {}
    FrozenWeight(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& saved, size_t& at, size_t number = 0) {
        auto numbers = ctx->saved_data.find(key("numbers", number));
        if (numbers == ctx->saved_data.end()) {
            dense = saved[at++];
        } else {
            torch::autograd::variable_list tensors(saved.begin() + at, saved.begin() + at + 5);
            at += tensors.size();
            quantised.emplace(tensors, float(ctx->saved_data[key("offset", number)].toDouble()), numbers->second.toIntVector());
        }
    }

private:
    static std::string key(const char* what, size_t number) { return std::string("weight.") + what + std::to_string(number); }
};

}  // namespace aflora
