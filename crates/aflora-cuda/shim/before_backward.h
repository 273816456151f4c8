// A node of libtorch's graph that passes a tensor and its gradient on as they are, and calls out before the gradient goes on.
#pragma once

#include "guard.h"
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>

extern "C" {

// Gives null, or words for why it failed, which live until the thread's next call: the backward pass fails then.
typedef const char* (*aflora_call)(void* data);
typedef void (*aflora_free)(void* data);

}  // extern "C"

namespace aflora {

class BeforeBackward : public torch::autograd::Node {
public:
    BeforeBackward(aflora_call call, std::shared_ptr<void> data) : call_(call), data_(std::move(data)) {}

    torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
        const char* words = call_(data_.get());
        TORCH_CHECK(!words, words);
        return std::move(gradients);
    }

    std::string name() const override { return "BeforeBackward"; }

private:
    aflora_call call_;
    std::shared_ptr<void> data_;
};

// `x`, in its memory, with the node behind it.
inline at::Tensor before_backward(const at::Tensor& x, aflora_call call, std::shared_ptr<void> data) {
    std::shared_ptr<BeforeBackward> node(new BeforeBackward(call, std::move(data)), torch::autograd::deleteNode);
    node->set_next_edges(torch::autograd::collect_next_edges(x));
    auto y = x.detach();
    torch::autograd::set_history(y, node);
    return y;
}

}  // namespace aflora
