// DeBERTa's attention as one node of libtorch's graph: libtorch's batched products around
// kernels/disentangled.cu.
#pragma once

#include "drawn.h"
#include "heads.h"

namespace aflora {

struct Disentangled : torch::autograd::Function<Disentangled> {
    static Module& kernels_for(const at::Tensor& x, int64_t length) {
        int together = length % 4 == 0 ? 4 : 1, items = together;
        while (items * 32 < length) items *= 2;
        return module("disentangled.cu", kernels::disentangled,
                      {bf16(x), "ITEMS=" + std::to_string(items), "VEC=" + std::to_string(together)});
    }

    // value [tokens, hidden] and mask [batch, length], added to the scores. Rows of query and key
    // beyond the tokens are projected positions; where there are none, positions may come by
    // themselves, [width, hidden].
    static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                              const Maybe& maybe_pos_key, const Maybe& maybe_pos_query, const at::Tensor& mask, int64_t heads, double scale,
                              double p) {
        auto own_pos_key = or_none(maybe_pos_key), own_pos_query = or_none(maybe_pos_query);
        int64_t batch = mask.size(0), length = mask.size(1), size = value.size(1) / heads, texts = heads * batch, tokens = batch * length;
        Heads split(heads, size, true);
        std::vector<at::Tensor> held;  // what is moved lives until it is launched
        auto by_head = [&](const at::Tensor& t) {
            held.push_back(t.contiguous());
            auto to = at::empty({heads, t.size(0), size}, t.options());
            split.add(held.back(), to);
            return to;
        };
        auto beyond = [&](const at::Tensor& t) { return t.size(0) > tokens ? t.narrow(0, tokens, t.size(0) - tokens) : at::Tensor(); };
        auto pos_key = own_pos_key.defined() ? own_pos_key : beyond(key);
        auto pos_query = own_pos_query.defined() ? own_pos_query : beyond(query);
        auto q = by_head(query.narrow(0, 0, tokens)), k = by_head(key.narrow(0, 0, tokens)), v = by_head(value);
        auto pk = pos_key.defined() ? by_head(pos_key) : at::Tensor(), pq = pos_query.defined() ? by_head(pos_query) : at::Tensor();
        split.launch();
        auto each = [&](const at::Tensor& t) { return t.view({texts, length, -1}); };
        at::Tensor c2p, p2c;
        int64_t width = 0;
        if (pk.defined()) {
            width = pk.size(1);
            c2p = at::bmm(q, pk.transpose(1, 2));
        }
        if (pq.defined()) {
            width = pq.size(1);
            p2c = at::bmm(k, pq.transpose(1, 2));
        }
        auto scores = at::bmm(each(q), each(k).transpose(1, 2));
        auto weights = at::empty_like(scores), dropped = p > 0 ? at::empty_like(scores) : weights;
        Dropout dropout(p);
        Random random = p > 0 ? next_random() : Random{};
        auto element = scores.element_size();
        auto added = mask.contiguous();
        launch(kernels_for(scores, length)["disentangled"], dim3(divided(length, 32), unsigned(texts)), 256, p2c.defined() ? length * 33 * element : 0,
               scores.const_data_ptr(), c2p.defined() ? c2p.const_data_ptr() : nullptr, p2c.defined() ? p2c.const_data_ptr() : nullptr,
               added.const_data_ptr(), weights.data_ptr(), dropped.data_ptr(), int(batch), int(length), int(width), float(scale), dropout.threshold,
               dropout.keep, random);
        auto attended = at::bmm(dropped, each(v)), out = at::empty({batch, length, heads * size}, v.options());
        Heads join(heads, size, false);
        join.add(attended, out);
        join.launch();
        ctx->save_for_backward({q, k, v, pk, pq, weights, dropped});
        ctx->saved_data["scale"] = scale;
        ctx->saved_data["p"] = p;
        keep_random(ctx, random);
        ctx->saved_data["joined_key"] = key.size(0) > tokens;
        ctx->saved_data["joined_query"] = query.size(0) > tokens;
        return out;
    }

    // `out` [heads, width, size] = Σ over tokens of scoresᵀ content, in stretches: one product a head would leave most of a GPU
    // idle.
    static at::Tensor over_tokens(at::Tensor out, const at::Tensor& scores, const at::Tensor& content) {
        int64_t heads = scores.size(0), tokens = scores.size(1), parts = 1;
        while (parts < 16 && tokens % (parts * 2) == 0 && tokens / (parts * 2) >= 128) parts *= 2;
        auto in_parts = [&](const at::Tensor& t) { return t.view({heads * parts, tokens / parts, t.size(2)}); };
        auto left = in_parts(scores).transpose(1, 2), right = in_parts(content);
        if (parts == 1) return at::bmm_out(out, left, right);
        return at::sum_out(out, at::bmm(left, right).view({heads, parts, scores.size(2), content.size(2)}), 1);
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        auto &q = saved[0], &k = saved[1], &v = saved[2], &pk = saved[3], &pq = saved[4], &weights = saved[5], &dropped = saved[6];
        double p = ctx->saved_data["p"].toDouble();
        auto shape = gradients[0].sizes().vec();
        int64_t batch = shape[0], length = shape[1], heads = q.size(0), texts = heads * batch, tokens = batch * length;
        auto each = [&](const at::Tensor& t) { return t.view({texts, length, -1}); };
        auto arrived = gradients[0].contiguous(), dout = at::empty_like(v);
        Heads split(heads, v.size(2), true);
        split.add(arrived, dout);
        split.launch();
        dout = each(dout);
        auto dv = at::bmm(dropped.transpose(1, 2), dout);
        auto ddropped = at::bmm(dout, each(v).transpose(1, 2));
        auto dqk = at::empty_like(weights);
        at::Tensor dc2p, dp2c;
        int64_t width = 0;
        if (pk.defined()) { width = pk.size(1); dc2p = at::empty({heads, tokens, width}, q.options()); }
        if (pq.defined()) { width = pq.size(1); dp2c = at::empty({heads, tokens, width}, q.options()); }
        Dropout dropout(p);
        launch(kernels_for(weights, length)["disentangled_grad"], dim3(divided(length, 32), unsigned(texts)), 256,
               dp2c.defined() ? length * 33 * weights.element_size() : 0, ddropped.const_data_ptr(), weights.const_data_ptr(), dqk.data_ptr(),
               dc2p.defined() ? dc2p.data_ptr() : nullptr, dp2c.defined() ? dp2c.data_ptr() : nullptr, int(length), int(width),
               float(ctx->saved_data["scale"].toDouble()), dropout.threshold, dropout.keep, random_of(ctx));
        auto dq = at::bmm(dqk, each(k)).view_as(q);
        auto dk = at::bmm(dqk.transpose(1, 2), each(q)).view_as(k);
        at::Tensor dpk, dpq;
        if (dc2p.defined()) {
            dq.baddbmm_(dc2p, pk);
            dpk = over_tokens(at::empty(pk.sizes(), pk.options()), dc2p, q);
        }
        if (dp2c.defined()) {
            dk.baddbmm_(dp2c, pq);
            dpq = over_tokens(at::empty(pq.sizes(), pq.options()), dp2c, k);
        }
        bool joined_key = ctx->saved_data["joined_key"].toBool(), joined_query = ctx->saved_data["joined_query"].toBool();
        Heads join(heads, v.size(2), false);
        auto rows = [&](const at::Tensor& own, const at::Tensor& positions) {
            int64_t more = positions.defined() ? positions.size(1) : 0;
            auto out = at::empty({own.size(1) + more, shape[2]}, own.options());
            join.add(own, out.narrow(0, 0, own.size(1)));
            if (more) join.add(positions, out.narrow(0, own.size(1), more));
            return out;
        };
        auto dquery = rows(dq, joined_query ? dpq : at::Tensor());
        auto dkey = rows(dk, joined_key ? dpk : at::Tensor());
        dv = dv.view_as(v);
        auto dvalue = rows(dv, {});
        auto own = [&](const at::Tensor& t, bool joined) { return t.defined() && !joined ? rows(t, {}) : at::Tensor(); };
        auto dpos_key = own(dpk, joined_key), dpos_query = own(dpq, joined_query);
        join.launch();
        return {dquery, dkey, dvalue, dpos_key, dpos_query, {}, {}, {}, {}};
    }

    static bool takes(const at::Tensor& value, const at::Tensor& mask, int64_t heads) {
        return is_wide(value) && value.dim() == 2 && mask.size(1) <= 1024 && mask.size(0) * heads < 65536 && value.numel() > 0 &&
               mask.scalar_type() == value.scalar_type();
    }
};

}  // namespace aflora
