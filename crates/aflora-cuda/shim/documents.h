// Attention within documents that lie one behind the other, by libtorch's flash attention over texts of any lengths.
#pragma once

#include "kernel.h"

#include <ATen/ops/_flash_attention_forward.h>

namespace aflora {

inline bool takes_documents(const at::Tensor& query, const at::Tensor& bounds) {
    if (!query.is_cuda() || query.scalar_type() != at::kBFloat16 || query.dim() != 4 || query.size(3) % 8 != 0 || query.size(3) > 256) return false;
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, query.get_device());
    return major >= 8 && bounds.is_cuda() && bounds.scalar_type() == at::kInt;
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
