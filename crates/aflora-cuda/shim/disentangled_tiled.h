// DeBERTa's attention, and attention without positions, as one node of libtorch's graph, by kernels/disentangled_tiled.cu: nothing
// of L × L exists. What the backward pass makes of scores against positions is [tokens, positions] a head, one
// side after the other, and libtorch's products take it from there.
#pragma once

#include "disentangled.h"
#include "tiled_shape.h"

namespace aflora {

struct DisentangledTiled : torch::autograd::Function<DisentangledTiled> {
    static constexpr int64_t LONGEST = 8192;

    // The kernels' structs of the same names.
    struct Attention {
        const void *query, *key, *value, *pos_key = nullptr, *pos_query = nullptr, *mask;
        const int *rows = nullptr, *edges = nullptr;
        int length, positions = 0;
        float scale;
        uint32_t threshold;
        float keep;
        Random where;
    };

    struct Gradients {
        const void *out, *dout;
        const float* lse;
        float* delta;
        void *dx, *dvalue = nullptr, *dpositions = nullptr, *by_head = nullptr;
    };

    // From so many tokens on tiles of padding are looked for with positions, too, and no tiles have a way of their own because each
    // distance has a row.
    static constexpr int64_t SKIPS_FROM = 256;

    static Module& kernels_for(const TileShape& tile, int64_t length) {
        bool skips = !tile.positions || length >= SKIPS_FROM;
        std::vector<std::string> definitions = {"BF16=1", "SIZE=" + std::to_string(tile.size), "POSITIONS=" + std::to_string(tile.positions),
                                                "SKIPS=" + std::to_string(skips)};
        return module("disentangled_tiled.cu", kernels::disentangled_tiled, definitions);
    }

    // Tensors of one attention, as they are saved for the backward pass.
    struct Of {
        at::Tensor query, key, value, own_pos_key, own_pos_query, mask, rows, edges;
        int64_t heads, batch, length, tokens, size;

        Of(at::Tensor query, at::Tensor key, at::Tensor value, at::Tensor own_pos_key, at::Tensor own_pos_query, at::Tensor mask, at::Tensor rows,
           at::Tensor edges, int64_t heads)
            : query(query), key(key), value(value), own_pos_key(own_pos_key), own_pos_query(own_pos_query), mask(mask), rows(rows), edges(edges), heads(heads),
              batch(mask.size(0)), length(mask.size(1)), tokens(batch * length), size(value.size(1) / heads) {}

        // Positions lie behind the tokens, or by themselves, or there are none.
        at::Tensor positions(const at::Tensor& own, const at::Tensor& joined) const {
            if (own.defined() || joined.size(0) == tokens) return own;
            return joined.narrow(0, tokens, joined.size(0) - tokens);
        }
        at::Tensor pos_key() const { return positions(own_pos_key, key); }
        at::Tensor pos_query() const { return positions(own_pos_query, query); }
        TileShape tile() const { return {unsigned(size), pos_key().defined() || pos_query().defined()}; }

        Attention attention(double scale, double p, const Random& random) const {
            Attention of;
            of.query = query.const_data_ptr();
            of.key = key.const_data_ptr();
            of.value = value.const_data_ptr();
            of.mask = mask.const_data_ptr();
            for (const auto& [positions, at] : {std::pair(pos_key(), &of.pos_key), std::pair(pos_query(), &of.pos_query)}) {
                if (!positions.defined()) continue;
                *at = positions.const_data_ptr();
                of.positions = int(positions.size(0));
                of.rows = rows.const_data_ptr<int>();
                of.edges = edges.const_data_ptr<int>();
                TORCH_CHECK(rows.numel() >= 2 * length - 1 && edges.numel() == of.positions + 1, "rows and edges are not of these positions");
            }
            Dropout dropout(p);
            of.length = int(length);
            of.scale = float(scale);
            of.threshold = dropout.threshold;
            of.keep = dropout.keep;
            of.where = random;
            return of;
        }

        dim3 grid() const { return dim3(divided(length, tile().rows()), unsigned(heads), unsigned(batch)); }

        // [n, heads · size] seen as [heads, n, size].
        at::Tensor by_head(const at::Tensor& t) const { return t.view({-1, heads, size}).transpose(0, 1); }
    };

    // As of Disentangled; positions are rows that distances share: `rows` [2 length - 1] says which, falling by
    // 0 or 1 a step, and `edges` [positions + 1] where each ends.
    static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                              const Maybe& pos_key, const Maybe& pos_query, const at::Tensor& mask, const Maybe& rows, const Maybe& edges, int64_t heads,
                              double scale, double p) {
        auto own = [](const Maybe& t) { return t ? aligned(*t) : at::Tensor(); };
        Of of(aligned(query), aligned(key), aligned(value), own(pos_key), own(pos_query), mask.contiguous(), or_none(rows), or_none(edges), heads);
        auto out = at::empty({of.batch, of.length, heads * of.size}, value.options());
        auto lse = at::empty({of.batch, heads, of.length}, value.options().dtype(at::kFloat));
        Random random = p > 0 ? next_random() : Random{};
        auto tile = of.tile();
        launch(kernels_for(tile, of.length)["disentangled_tiled"], of.grid(), tile.threads(), tile.shared(Tiled::Output), of.attention(scale, p, random), out.data_ptr(),
               lse.data_ptr<float>());
        ctx->save_for_backward({of.query, of.key, of.value, of.own_pos_key, of.own_pos_query, of.mask, of.rows, of.edges, out, lse});
        ctx->saved_data["heads"] = heads;
        ctx->saved_data["scale"] = scale;
        ctx->saved_data["p"] = p;
        keep_random(ctx, random);
        return out;
    }

    // Gradients of one side's tokens, `content` [heads, tokens, size], and of the positions that they were compared with, if
    // any: `dx` [tokens.., hidden] has what came by the other side's tokens, `scores` [heads, tokens, positions] the rest.
    static void add_positions(const Of& of, const at::Tensor& content, const at::Tensor& dx, const at::Tensor& positions, const at::Tensor& dpositions,
                              const at::Tensor& scores) {
        of.by_head(dx.narrow(0, 0, of.tokens)).baddbmm_(scores, of.by_head(positions));
        Disentangled::over_tokens(of.by_head(dpositions), scores, content);
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, torch::autograd::variable_list gradients) {
        auto saved = ctx->get_saved_variables();
        Of of(saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], saved[6], saved[7], ctx->saved_data["heads"].toInt());
        const auto &out = saved[8], &lse = saved[9];
        auto attention = of.attention(ctx->saved_data["scale"].toDouble(), ctx->saved_data["p"].toDouble(), random_of(ctx));
        auto dout = aligned(gradients[0]), delta = at::empty_like(lse);
        auto dquery = at::empty_like(of.query), dkey = at::empty_like(of.key), dvalue = at::empty_like(of.value);
        auto tile = of.tile();
        auto& kernel = kernels_for(tile, of.length);
        auto own = [](const at::Tensor& positions) { return positions.defined() ? at::empty_like(positions) : at::Tensor(); };
        auto dpos_key = own(of.own_pos_key), dpos_query = own(of.own_pos_query);
        auto side = [&](const char* name, const at::Tensor& dx, void* dvalue, const at::Tensor& positions, const at::Tensor& dpositions) {
            Gradients with{out.const_data_ptr(), dout.const_data_ptr(), floats(lse), delta.data_ptr<float>(), dx.data_ptr(), dvalue};
            at::Tensor scores, content;
            if (positions.defined()) {
                scores = at::empty({of.heads, of.tokens, positions.size(0)}, dx.options());
                content = at::empty({of.heads, of.tokens, of.size}, dx.options());
                with.dpositions = scores.data_ptr();
                with.by_head = content.data_ptr();
            }
            launch(kernel[name], of.grid(), tile.threads(), tile.shared(dvalue ? Tiled::Keys : Tiled::Queries), attention, with);
            if (scores.defined()) add_positions(of, content, dx, positions, dpositions, scores);
        };
        // Positions as keys belong to queries, and the other way round. The first writes delta for the second.
        side("disentangled_tiled_queries", dquery, nullptr, of.pos_key(), of.positions(dpos_key, dkey));
        side("disentangled_tiled_keys", dkey, dvalue.data_ptr(), of.pos_query(), of.positions(dpos_query, dquery));
        return {dquery, dkey, dvalue, dpos_key, dpos_query, {}, {}, {}, {}, {}, {}};
    }

    static bool takes(const at::Tensor& x, int64_t size, int64_t length) {
        if (!x.is_cuda() || x.scalar_type() != at::kBFloat16 || (size != 32 && size != 64 && size != 128) || length > LONGEST) return false;
        int device = x.get_device(), major = 0, most = 0;
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
        return major >= 8 && int(TileShape{unsigned(size), true}.shared(Tiled::Keys)) <= most - Module::SPARED;
    }

    static bool takes(const at::Tensor& value, const at::Tensor& mask, int64_t heads) {
        return value.dim() == 2 && value.numel() > 0 && heads < 65536 && mask.size(0) < 65536 && mask.scalar_type() == value.scalar_type() &&
               takes(value, value.size(1) / heads, mask.size(1));
    }
};

}  // namespace aflora
