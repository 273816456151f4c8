// Attention within documents that lie one behind the other, by libtorch's flash attention over texts of any lengths.
#pragma once

#include "kernel.h"

#include <ATen/ops/_flash_attention_forward.h>

namespace aflora {

inline bool takes_documents(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& bounds, double p) {
    if (!query.is_cuda() || query.dim() != 4 || key.dim() != 4 || key.sizes() != value.sizes()) return false;
    for (const auto* t : {&query, &key, &value})
        if (t->scalar_type() != at::kBFloat16 || t->device() != query.device()) return false;
    if (bounds.scalar_type() != at::kInt || bounds.device() != query.device() || bounds.dim() != 1 || bounds.numel() < 2 || !bounds.is_contiguous()) return false;
    int64_t size = query.size(3);
    // A key for each query, and as many heads or fewer.
    if (key.size(0) != query.size(0) || key.size(2) != query.size(2) || key.size(3) != size || query.size(1) % key.size(1) != 0) return false;
    if (size % 8 != 0 || size > 256) return false;
    int major = 0, shared = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, query.get_device());
    cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, query.get_device());
    // Heads of 193 to 224 numbers, and larger ones with dropout, have no gradients in less shared memory than this; libtorch's own way
    // here refuses them by a list of GPUs.
    bool large = size > 192 && (size <= 224 || p > 0);
    return major >= 8 && !(large && shared < (144 << 10));
}

// [batch, heads, length, size] to [batch, length, heads · size].
inline at::Tensor document_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& bounds, double scale,
                                     double p, int64_t window) {
    // No copy where tokens lie one behind the other already, as a projection leaves them.
    auto flat = [](const at::Tensor& t) { return t.transpose(1, 2).reshape({-1, t.size(1), t.size(3)}); };
    int64_t length = query.size(2);
    std::optional<int64_t> before, behind;
    if (window > 0) {
        before = window - 1;
        behind = 0;
    }
    auto out = std::get<0>(at::_flash_attention_forward(flat(query), flat(key), flat(value), bounds, bounds, length, length, p, true, false, scale,
                                                        before, behind));
    return out.view({query.size(0), length, query.size(1) * query.size(3)});
}

}  // namespace aflora
