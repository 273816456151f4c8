// A frozen weight in few bits, and the product with it as one node of libtorch's graph: the weight
// is restored for the forward pass, and again for the backward pass, and kept by neither. One in e4m3
// has what it is multiplied by rounded to e4m3, too, so that tensor cores may do it.
#pragma once

#include "guard.h"
#include <torch/csrc/autograd/custom_function.h>

extern "C" {

// The tensors and numbers of aflora-cuda's `Quantised`; null for what a format has not.
struct aflora_quantised {
    const at::Tensor* codes;
    const at::Tensor* map;
    const at::Tensor* scales;
    const at::Tensor* nested_map;
    const at::Tensor* nested_scales;
    double offset;
    int64_t block;
    int64_t nested_block;
    int64_t rows;
    int64_t columns;
    int64_t format;
    int64_t dynamic;
};

}  // extern "C"

namespace aflora {

// W = map[code] · scale of the block, in blocks of row-major numbers; without a map, W = code · scale of
// the row / 127, or, with codes in e4m3, code · scale of the row. Scales that are codes themselves are nested_map[scale] · nested_scale + offset. With a
// `format`, that of GGUF's blocks: codes are the blocks, and hold their scales.
struct Quantised {
    at::Tensor codes, map, scales, nested_map, nested_scales;
    float offset;
    int64_t block, nested_block, rows, columns, format;
    // Of codes of i8, on a CPU: whether what they are multiplied by is rounded to such, too.
    bool dynamic;

    explicit Quantised(const aflora_quantised& q)
        : codes(*q.codes), map(or_none(given(q.map))), scales(or_none(given(q.scales))), nested_map(or_none(given(q.nested_map))),
          nested_scales(or_none(given(q.nested_scales))), offset(static_cast<float>(q.offset)), block(q.block), nested_block(q.nested_block),
          rows(q.rows), columns(q.columns), format(q.format), dynamic(q.dynamic != 0) {}

    torch::autograd::variable_list tensors() const { return {codes, map, scales, nested_map, nested_scales}; }

    Quantised(const torch::autograd::variable_list& tensors, float offset, const std::vector<int64_t>& numbers)
        : codes(tensors[0]), map(tensors[1]), scales(tensors[2]), nested_map(tensors[3]), nested_scales(tensors[4]), offset(offset),
          block(numbers[0]), nested_block(numbers[1]), rows(numbers[2]), columns(numbers[3]), format(numbers[4]),
          dynamic(numbers[5] != 0) {}

    // Whether what it is multiplied by is rounded, too, row by row.
    bool rounds() const { return codes.scalar_type() == at::kFloat8_e4m3fn; }

    std::vector<int64_t> numbers() const { return {block, nested_block, rows, columns, format, dynamic}; }
};

// y = x Wᵀ + bias. `Device::product` makes y of x, [n, columns]; `Device::gradient` makes dx of dy, [n, rows].
template <typename Device> struct QuantisedLinear : torch::autograd::Function<QuantisedLinear<Device>> {
    static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const Quantised& weight, const Maybe& maybe_bias) {
        auto bias = or_none(maybe_bias);
        auto flat = x.reshape({-1, weight.columns});
        auto y = Device::product(weight, flat, bias);
        ctx->save_for_backward(weight.tensors());
        ctx->saved_data["numbers"] = weight.numbers();
        ctx->saved_data["offset"] = double(weight.offset);
        ctx->saved_data["wants_x"] = x.requires_grad();
        ctx->saved_data["wants_bias"] = bias.defined() && bias.requires_grad();
        auto shape = x.sizes().vec();
        shape.back() = weight.rows;
        // No view: libtorch lets nobody add in place to a view that a node of ours made.
        return at::_unsafe_view(y, shape);
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        Quantised weight(ctx->get_saved_variables(), float(ctx->saved_data["offset"].toDouble()), ctx->saved_data["numbers"].toIntVector());
        auto dy = gradients[0].reshape({-1, weight.rows});
        at::Tensor dx, dbias;
        if (ctx->saved_data["wants_x"].toBool()) {
            auto shape = gradients[0].sizes().vec();
            shape.back() = weight.columns;
            dx = Device::gradient(weight, dy).view(shape);
        }
        if (ctx->saved_data["wants_bias"].toBool()) dbias = dy.sum(0);
        return {dx, at::Tensor(), dbias};
    }
};

}  // namespace aflora
