// Where a random stream stood, kept by a node of libtorch's graph for its gradient.
#pragma once

#include "kernel.h"
#include <torch/csrc/autograd/custom_function.h>

namespace aflora {

inline void keep_random(torch::autograd::AutogradContext* ctx, const Random& random) {
    ctx->saved_data["seed_at"] = reinterpret_cast<int64_t>(random.seed_at);
    ctx->saved_data["offset_at"] = reinterpret_cast<int64_t>(random.offset_at);
    ctx->saved_data["seed"] = static_cast<int64_t>(random.seed);
    ctx->saved_data["offset"] = static_cast<int64_t>(random.offset);
}

inline Random random_of(torch::autograd::AutogradContext* ctx) {
    Random random;
    random.seed_at = reinterpret_cast<const int64_t*>(ctx->saved_data["seed_at"].toInt());
    random.offset_at = reinterpret_cast<const int64_t*>(ctx->saved_data["offset_at"].toInt());
    random.seed = static_cast<uint64_t>(ctx->saved_data["seed"].toInt());
    random.offset = static_cast<uint64_t>(ctx->saved_data["offset"].toInt());
    return random;
}

}  // namespace aflora
