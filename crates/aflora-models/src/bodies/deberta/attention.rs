//! Disentangled self-attention: what a query asks of a key's content, plus what it asks of the
//! key's relative position (c2p), plus what the key asks of the query's (p2c); He et al. 2021,
//! §3.1, with the one scale 1 / √(d · kinds) of the released models.

use super::config::DebertaConfig;
use super::position::{skew, DistanceRows, Stretch};
use super::projections::Projections;
use crate::nn::linear::dropout;
use crate::nn::scope::Scope;
use aflora_core::kernels;
use aflora_core::nn::{self, Module};
use tch::Tensor;

#[derive(Debug)]
pub(super) struct SelfAttention {
    projections: Projections,
    c2p: bool,
    p2c: bool,
    heads: i64,
    scale: f64,
    dropout: f64,
    pos_dropout: f64,
}

/// What all layers share of one forward pass.
#[derive(Debug)]
pub(super) struct Shared {
    /// 0 where a key is a token, very low where it is padding, `[batch, 1, 1, length]`.
    pub mask: Tensor,
    /// The table of relative positions, `[2 span, hidden]`, and its rows by distance.
    pub positions: Option<(Tensor, DistanceRows)>,
    pub train: bool,
}

impl SelfAttention {
    pub fn new(scope: Scope, config: &DebertaConfig) -> Self {
        let (c2p, p2c) = (config.has("c2p"), config.has("p2c"));
        let kinds = 1 + i64::from(c2p) + i64::from(p2c);
        SelfAttention {
            projections: Projections::new(&scope, config),
            c2p: config.relative_attention && c2p,
            p2c: config.relative_attention && p2c,
            heads: config.num_attention_heads,
            scale: 1.0 / ((config.head_size() * kinds) as f64).sqrt(),
            dropout: config.attention_probs_dropout_prob,
            pos_dropout: config.hidden_dropout_prob,
        }
    }

    /// `x` `[batch, length, hidden]` to the same.
    pub fn forward(&self, x: &Tensor, shared: &Shared) -> Tensor {
        if let Some(attended) = self.fused(x, shared) {
            return attended;
        }
        let (batch, length, hidden) = (x.size()[0], x.size()[1], x.size()[2]);
        let split = |x: Tensor| x.view([batch, length, self.heads, hidden / self.heads]);
        let [query, key, value] = self.projections.of_tokens(x, x, x).map(split);
        let bias = match self.position_scores(&query, &key, shared) {
            Some(scores) => self.kept_apart(scores + &shared.mask, x, shared.train),
            None => shared.mask.expand([batch, self.heads, length, length], false),
        };
        let dropout = if shared.train { self.dropout } else { 0.0 };
        Tensor::scaled_dot_product_attention(
            &query.transpose(1, 2),
            &key.transpose(1, 2),
            &value.transpose(1, 2),
            Some(bias),
            dropout,
            false,
            self.scale,
            false,
        )
        .transpose(1, 2)
        .reshape([batch, length, hidden])
    }

    /// `bias`, marked where it has a gradient in training. libtorch's attention takes another kernel
    /// then, whose last digits differ: so must the first run of a checkpointed block, which makes
    /// no graph, lest it give another output than the second.
    fn kept_apart(&self, bias: Tensor, x: &Tensor, train: bool) -> Tensor {
        let trains = || x.requires_grad() || self.projections.trains();
        match train && !bias.requires_grad() && trains() {
            true => bias.set_requires_grad(true),
            false => bias,
        }
    }

    /// [`forward`](Self::forward) in kernels of our own, where there are some. Tokens and the
    /// positions that share their projections go through them together: a row for each distance, or by
    /// tiles the rows of the table.
    fn fused(&self, x: &Tensor, shared: &Shared) -> Option<Tensor> {
        if !kernels::fuses(x) {
            return None;
        }
        let (length, hidden) = (x.size()[1], x.size()[2]);
        let x = x.flatten(0, 1);
        let stretch = shared.positions.as_ref().map(|(_, rows)| rows.stretch.as_ref());
        let tiled = kernels::tiles(&x, hidden / self.heads, length)
            && stretch.is_none_or(|stretch| stretch.is_some());
        let stretch = stretch.flatten().filter(|_| tiled);
        let positions = shared.positions.as_ref().map(|(table, rows)| {
            let table = dropout(table.shallow_clone(), self.pos_dropout, shared.train);
            match stretch {
                Some(stretch) => table.narrow(0, stretch.first, stretch.count),
                None => table.index_select(0, &rows.falling),
            }
        });
        // Tokens with positions behind them, made once for queries and keys.
        let joins = |wanted: bool, own: &Option<nn::Linear>| wanted && own.is_none();
        let Projections { pos_key, pos_query, .. } = &self.projections;
        let (join_key, join_query) = (joins(self.c2p, pos_key), joins(self.p2c, pos_query));
        let joined = match &positions {
            Some(positions) if join_key || join_query => Some(Tensor::cat(&[&x, positions], 0)),
            _ => None,
        };
        let rows = |join: bool| if join { joined.as_ref().unwrap_or(&x) } else { &x };
        let own =
            |project: &Option<nn::Linear>| Some(project.as_ref()?.forward(positions.as_ref()?));
        let (pos_key, pos_query) = (own(pos_key), own(pos_query));
        let mask = shared.mask.flatten(0, 2);
        let dropout = if shared.train { self.dropout } else { 0.0 };
        let [query, key, value] = self.projections.of_tokens(&x, rows(join_query), rows(join_key));
        let of = kernels::Disentangled {
            query: &query,
            key: &key,
            value: &value,
            pos_key: pos_key.as_ref(),
            pos_query: pos_query.as_ref(),
            mask: &mask,
            heads: self.heads,
            scale: self.scale,
            dropout,
        };
        if !tiled {
            return kernels::disentangled(&of);
        }
        let shared =
            stretch.map(|Stretch { rows, edges, .. }| kernels::SharedPositions { rows, edges });
        kernels::disentangled_tiled(&of, shared)
    }

    /// The scaled c2p and p2c scores, `[batch, heads, length, length]`, of `query` and `key`
    /// `[batch, length, heads, size]`.
    fn position_scores(&self, query: &Tensor, key: &Tensor, shared: &Shared) -> Option<Tensor> {
        let (table, rows) = shared.positions.as_ref()?;
        let table = dropout(table.shallow_clone(), self.pos_dropout, shared.train);
        let c2p = self.c2p.then(|| {
            let positions = table.index_select(0, &rows.falling);
            self.scores(query, self.projections.positions_as_keys(&positions))
        });
        let p2c = self.p2c.then(|| {
            let positions = table.index_select(0, &rows.rising);
            // Rows are keys here, columns queries.
            self.scores(key, self.projections.positions_as_queries(&positions)).transpose(2, 3)
        });
        match (c2p, p2c) {
            (Some(c2p), Some(p2c)) => Some(c2p + p2c),
            (c2p, p2c) => c2p.or(p2c),
        }
    }

    /// `content` `[batch, length, heads, size]` against projected positions `[width, hidden]`,
    /// each pair at its distance: `[batch, heads, length, length]`.
    fn scores(&self, content: &Tensor, positions: Tensor) -> Tensor {
        let size = content.size();
        let (batch, length, heads, size) = (size[0], size[1], size[2], size[3]);
        // One product a head over all tokens of the batch: no copy of the positions for each
        // text, and the scale on the smaller factor.
        let content = content.view([batch * length, heads, size]).transpose(0, 1);
        let positions = (positions * self.scale).view([-1, heads, size]).permute([1, 2, 0]);
        let scores = content.bmm(&positions);
        skew(&scores.view([heads, batch, length, -1])).transpose(0, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::{log_bucket, Positions};
    use super::*;
    use crate::nn::scope::build;
    use crate::Options;
    use tch::{Device, Kind};

    /// The attention as the paper writes it, an index for every pair and a gather for each score.
    fn literal(
        layer: &SelfAttention,
        x: &Tensor,
        mask: &Tensor,
        table: &Tensor,
        span: i64,
    ) -> Tensor {
        let (batch, length) = (x.size()[0], x.size()[1]);
        let heads = |x: Tensor| x.view([x.size()[0], x.size()[1], layer.heads, -1]).transpose(1, 2);
        let [query, key, value] = layer.projections.of_tokens(x, x, x).map(heads);
        let at = Tensor::arange(length, (Kind::Int64, Device::Cpu));
        let distance = at.unsqueeze(1) - at.unsqueeze(0);
        let relative = log_bucket(&distance, span, 512);
        let every = [batch, layer.heads, length, length];
        let index = |r: &Tensor| (r + span).clamp(0, 2 * span - 1).expand(every, false);
        let table = table.unsqueeze(0);
        let positions_k = |t: &Tensor| heads(layer.projections.positions_as_keys(t));
        let positions_q = |t: &Tensor| heads(layer.projections.positions_as_queries(t));
        let mut scores = query.matmul(&key.transpose(2, 3));
        if layer.c2p {
            let all = query.matmul(&positions_k(&table).transpose(2, 3));
            scores += all.gather(3, &index(&relative), false);
        }
        if layer.p2c {
            let all = key.matmul(&positions_q(&table).transpose(2, 3));
            scores += all.gather(3, &index(&-&relative), false).transpose(2, 3);
        }
        let weights = (scores * layer.scale + mask).softmax(-1, Kind::Float);
        weights.matmul(&value).transpose(1, 2).reshape([batch, length, -1])
    }

    #[test]
    fn the_fast_form_is_the_literal_one_at_every_length() {
        tch::manual_seed(3);
        for (kinds, share) in [("c2p|p2c", true), ("c2p|p2c", false), ("c2p", true), ("p2c", false)]
        {
            let config: DebertaConfig = serde_json::from_value(serde_json::json!({
                "hidden_size": 24, "num_attention_heads": 3, "relative_attention": true,
                "position_buckets": 16, "pos_att_type": kinds, "share_att_key": share,
            }))
            .unwrap();
            let mut vs = nn::VarStore::new(Device::Cpu);
            let options = Options::new(Device::Cpu);
            let (layer, _) = build(&mut vs, &options, |root| SelfAttention::new(root, &config));
            vs.unfreeze();
            for mut weight in vs.trainable_variables() {
                let _ = tch::no_grad(|| weight.normal_(0.0, 0.3));
            }
            let floats = (Kind::Float, Device::Cpu);
            let positions = Positions::new(&config, Device::Cpu);
            for length in [1, 2, 7, 24, 200, 600] {
                let table = Tensor::randn([32, 24], floats);
                let x = Tensor::randn([2, length, 24], floats).set_requires_grad(true);
                let mask = Tensor::zeros([2, 1, 1, length], floats);
                let _ = mask.get(1).narrow(2, length / 2, length - length / 2 - 1).fill_(-1e30);
                let shared = Shared {
                    mask: mask.shallow_clone(),
                    positions: Some((table.shallow_clone(), positions.rows(length))),
                    train: false,
                };
                let toward = Tensor::randn([2, length, 24], floats);
                let gradient = |out: &Tensor| {
                    Tensor::run_backward(&[(out * &toward).sum(Kind::Float)], &[&x], false, false)
                };
                let (fast, slow) =
                    (layer.forward(&x, &shared), literal(&layer, &x, &mask, &table, 16));
                let (fast_grad, slow_grad) = (gradient(&fast), gradient(&slow));
                for (what, found, expected) in
                    [("output", &fast, &slow), ("gradient", &fast_grad[0], &slow_grad[0])]
                {
                    let scale = expected.abs().max().double_value(&[]);
                    let error = (found - expected).abs().max().double_value(&[]) / scale;
                    assert!(error < 1e-5, "{kinds}, {share}, {length}: {what} {error:e}");
                }
            }
        }
    }
}
