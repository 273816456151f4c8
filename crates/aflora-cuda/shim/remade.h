// Inputs that a node's gradient reads and that are not kept for it: what made them keeps enough to make them again.
#pragma once

#include "gated.h"
#include "rms_norm.h"

namespace aflora {

class Remade : public torch::CustomClassHolder {
public:
    using Node = torch::autograd::Node;
    using Context = torch::autograd::AutogradContext;
    using Again = at::Tensor (*)(Context*);

    // How to make `x` again for one more reader; null if nothing knows.
    static c10::intrusive_ptr<Remade> of(const at::Tensor& x) {
        auto node = x.grad_fn();
        if (auto* norm = dynamic_cast<torch::autograd::CppNode<RmsNorm>*>(node.get()); norm && x.output_nr() == RmsNorm::NORM)
            return c10::make_intrusive<Remade>(node, &norm->ctx_, RmsNorm::again);
        if (auto* gate = dynamic_cast<torch::autograd::CppNode<Gated>*>(node.get())) return c10::make_intrusive<Remade>(node, &gate->ctx_, Gated::again);
        return {};
    }

    Remade(const std::shared_ptr<Node>& node, Context* context, Again again) : node_(node), context_(context), again_(again) {
        context_->saved_data[READERS] = count(READERS) + 1;
    }

    // The tensor: made when the first of its readers asks, let go when the last one did.
    at::Tensor again() {
        auto node = node_.lock();
        TORCH_CHECK(node, "what made a tensor is gone before what reads it");
        auto& data = context_->saved_data;
        auto found = data.find(MADE);
        auto made = found == data.end() ? again_(context_) : found->second.toTensor();
        int64_t asked = count(ASKED) + 1;
        data[ASKED] = asked;
        if (asked % count(READERS) == 0) {
            data.erase(MADE);
        } else {
            data[MADE] = made;
        }
        return made;
    }

private:
    static constexpr const char *READERS = "readers", *ASKED = "asked", *MADE = "made";

    int64_t count(const char* what) const {
        auto found = context_->saved_data.find(what);
        return found == context_->saved_data.end() ? 0 : found->second.toInt();
    }

    // The reader's edge to it holds it.
    std::weak_ptr<Node> node_;
    Context* context_;
    Again again_;
};

// What a node saves of its input `x`, for whose gradient it reads `flat`, `x` as a matrix.
inline at::Tensor keep_input(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& flat) {
    auto remade = Remade::of(x);
    if (!remade) return flat;
    ctx->saved_data["input"] = c10::IValue::make_capsule(remade);
    return {};
}

// The matrix, of `columns` columns.
inline at::Tensor kept_input(torch::autograd::AutogradContext* ctx, const at::Tensor& saved, int64_t columns) {
    auto found = ctx->saved_data.find("input");
    if (found == ctx->saved_data.end()) return saved;
    return c10::static_intrusive_pointer_cast<Remade>(found->second.toCapsule())->again().view({-1, columns});
}

}  // namespace aflora
