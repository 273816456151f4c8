// Rotary position embeddings of queries and keys as one node of libtorch's graph: kernels/rotary.cu.
#pragma once

#include "kernel.h"
#include <torch/csrc/autograd/custom_function.h>

namespace aflora {

struct Rotary : torch::autograd::Function<Rotary> {
    // Queries and keys [batch, heads, length, size], each with its own heads; cos and sin [batch or 1, 1, length, half].
    static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& query, const at::Tensor& key,
                                                  const at::Tensor& cos, const at::Tensor& sin, bool interleaved) {
        auto c = aligned(cos), s = aligned(sin);
        ctx->save_for_backward({c, s});
        ctx->saved_data["interleaved"] = interleaved;
        return turned(query, key, c, s, interleaved, 1.f);
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        auto back = turned(gradients[0], gradients[1], saved[0], saved[1], ctx->saved_data["interleaved"].toBool(), -1.f);
        return {back[0], back[1], {}, {}, {}};
    }

    static bool takes(const at::Tensor& query, const at::Tensor& key, const at::Tensor& cos, const at::Tensor& sin, bool interleaved) {
        auto like = [&](const at::Tensor& t) { return t.is_cuda() && t.scalar_type() == query.scalar_type() && t.dim() == 4 && t.numel() > 0; };
        if (!is_wide(query) || !like(query) || !like(key) || !like(cos) || !like(sin) || cos.sizes() != sin.sizes()) return false;
        if (cos.requires_grad() || sin.requires_grad()) return false;
        int64_t batch = query.size(0), length = query.size(2), size = query.size(3), half = cos.size(3);
        bool same = key.size(0) == batch && key.size(2) == length && key.size(3) == size;
        bool angles = (cos.size(0) == batch || cos.size(0) == 1) && cos.size(1) == 1 && cos.size(2) == length && 2 * half <= size;
        bool units = half % (interleaved ? 4 : 8) == 0 && (size - 2 * half) % 8 == 0;
        return same && angles && units && std::max(query.numel(), key.numel()) / 8 < int64_t(1) << 31;
    }

private:
    // The kernels' structs of the same names.
    struct Turned {
        const void* from = nullptr;
        void* to = nullptr;
        unsigned heads = 0, units = 0;
        long long batch = 0, position = 0, head = 0;
    };
    struct Both {
        Turned of[2];
    };

    // Eight elements of a head lie together, on 16 bytes.
    static at::Tensor readable(const at::Tensor& x) {
        bool lies = x.stride(3) == 1 && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
        for (int dim = 0; dim < 3; dim++) lies = lies && x.stride(dim) % 8 == 0;
        return lies ? x : x.clone(at::MemoryFormat::Contiguous);
    }

    // One of the two may be missing, as a gradient.
    static torch::autograd::variable_list turned(const at::Tensor& query, const at::Tensor& key, const at::Tensor& cos, const at::Tensor& sin,
                                                 bool interleaved, float sign) {
        int64_t length = cos.size(2), half = cos.size(3), size = 0;
        Both both;
        torch::autograd::variable_list from(2), to(2);
        unsigned count = 0, most = 0;
        for (int i = 0; i < 2; i++) {
            const auto& x = i == 0 ? query : key;
            if (!x.defined()) continue;
            from[i] = readable(x);
            size = x.size(3);
            int64_t batch = x.size(0), heads = x.size(1);
            // In memory as the linear layers before and after have it: [batch, length, heads, size].
            to[i] = at::empty_strided(x.sizes(), {length * heads * size, size, heads * size, 1}, x.options());
            int64_t units = (interleaved ? half / 4 : half / 8) + (size - 2 * half) / 8;
            auto& one = both.of[count++];
            one.from = from[i].const_data_ptr();
            one.to = to[i].data_ptr();
            one.heads = unsigned(heads);
            one.units = unsigned(batch * length * heads * units);
            one.batch = from[i].stride(0);
            one.head = from[i].stride(1);
            one.position = from[i].stride(2);
            most = std::max(most, one.units);
        }
        if (count) {
            auto& kernel = module("rotary.cu", kernels::rotary, {bf16(cos), std::string("INTERLEAVED=") + (interleaved ? "1" : "0")});
            unsigned of_text = cos.size(0) == 1 ? 0 : unsigned(length * half);
            launch(kernel["rotary"], dim3(divided(most, 256), count), 256, 0, both, cos.const_data_ptr(), sin.const_data_ptr(), of_text, sign,
                   unsigned(length), unsigned(half), unsigned(size));
        }
        return to;
    }
};

}  // namespace aflora
