// The update of pieces of flat buffers: kernels/adamw.cu.
#pragma once

#include "kernel.h"

#include <cmath>

// The tensors and numbers of aflora-cuda's `AdamWUpdate`: buffers are [n], fp32; `pieces` is [count, 2], int64, on their GPU.
struct aflora_adamw_update {
    const at::Tensor *values, *gradient, *first, *second, *pieces;
    double lr, decay;
};

// The numbers of aflora-cuda's `AdamWStep`.
struct aflora_adamw_step {
    double t, beta1, beta2, eps;
};

namespace aflora {

class AdamW {
public:
    explicit AdamW(const aflora_adamw_step& by) : by_(by) {}

    // All are looked at before anything moves.
    void update(const aflora_adamw_update* all, int count) const {
        for (int i = 0; i < count; i++) check(all[i]);
        Groups groups{};
        int taken = 0;
        unsigned blocks = 0;
        for (int i = 0; i < count; i++) {
            auto own = static_cast<unsigned>(all[i].pieces->size(0));
            if (!own) continue;
            groups.of[taken++] = group(all[i], own);
            blocks += own;
            if (taken == GROUPS) {
                launch(groups, blocks);
                taken = 0, blocks = 0;
            }
        }
        if (taken) launch(groups, blocks);
    }

private:
    static constexpr int GROUPS = 8;

    // The kernel's structs.
    struct Group {
        float* p;
        const float* g;
        float *m, *v;
        const long long* pieces;
        unsigned blocks;
        float kept, step;
    };

    struct Groups {
        Group of[GROUPS];
    };

    static void check(const aflora_adamw_update& of) {
        for (const auto* t : {of.values, of.gradient, of.first, of.second})
            TORCH_CHECK(is_flat(*t) && t->sizes() == of.values->sizes(), "adamw: not flat buffers of one size on the current GPU");
        TORCH_CHECK(of.pieces->is_cuda() && of.pieces->scalar_type() == at::kLong && of.pieces->is_contiguous(), "adamw: not pieces");
    }

    Group group(const aflora_adamw_update& of, unsigned blocks) const {
        auto* pieces = reinterpret_cast<const long long*>(of.pieces->const_data_ptr<int64_t>());
        return {of.values->data_ptr<float>(), of.gradient->const_data_ptr<float>(), of.first->data_ptr<float>(), of.second->data_ptr<float>(), pieces, blocks,
                static_cast<float>(1 - of.lr * of.decay), static_cast<float>(of.lr / (1 - std::pow(by_.beta1, by_.t)))};
    }

    void launch(const Groups& groups, unsigned blocks) const {
        auto number = [](double x) { return static_cast<float>(x); };
        double correction = 1 - std::pow(by_.beta2, by_.t);
        aflora::launch(module("adamw.cu", kernels::adamw, {"BF16=0"})["adamw"], blocks, 256, 0, groups, number(1 - by_.beta1), number(by_.beta2),
                       number(1 - by_.beta2), number(1 / std::sqrt(correction)), number(by_.eps));
    }

    aflora_adamw_step by_;
};

}  // namespace aflora
