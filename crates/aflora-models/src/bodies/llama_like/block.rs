//! A block: attention and a feed-forward layer.

use super::description::{Description, FeedForward, LayerChoice, Projections, Residual};
use crate::bodies::decoder::DecoderBlock;
use crate::nn::attention::{Attention, ForwardContext, KeyValues};
use crate::nn::linear::dropout;
use crate::nn::mlp::{GatedMlp, JoinedGatedMlp, Mlp};
use crate::nn::norm::Norm;
use crate::nn::rotary::{rotate, RotaryPairs};
use crate::nn::scope::Scope;
use aflora_core::nn::{self, Module};
use aflora_core::Block::{Attention as InAttention, Ffn};
use tch::Tensor;

#[derive(Debug)]
pub(super) struct Block {
    before_attention: Norm,
    attention: SelfAttention,
    after_attention: Option<Norm>,
    before_mlp: Norm,
    mlp: AnyMlp,
    after_mlp: Option<Norm>,
    parallel: bool,
    dropout: f64,
}

impl Block {
    pub fn new(scope: Scope, description: &Description, choice: &LayerChoice) -> Self {
        let (kind, hidden, eps) = (description.norm, description.hidden, description.eps);
        let norm = |name: &str| scope.norm(kind, name, hidden, eps);
        let sandwich = description.residual == Residual::Sandwich;
        let before_mlp = match sandwich {
            true => "pre_feedforward_layernorm",
            false => "post_attention_layernorm",
        };
        let attention = &scope / description.names.attention;
        Block {
            before_attention: norm("input_layernorm"),
            attention: SelfAttention::new(attention, description, choice),
            after_attention: sandwich.then(|| norm("post_attention_layernorm")),
            before_mlp: norm(before_mlp),
            mlp: AnyMlp::new(&scope / "mlp", description),
            after_mlp: sandwich.then(|| norm("post_feedforward_layernorm")),
            parallel: description.residual == Residual::Parallel,
            dropout: description.dropout.residual,
        }
    }
}

impl DecoderBlock for Block {
    fn forward(
        &self,
        x: &Tensor,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let out = |out: Tensor, norm: &Option<Norm>| {
            let out = norm.as_ref().map_or_else(|| out.shallow_clone(), |norm| norm.forward(&out));
            dropout(out, self.dropout, context.train)
        };
        let (x, normed) = self.before_attention.of_sum(x, None);
        let attended = self.attention.forward(&normed, context, keys);
        let attended = out(attended, &self.after_attention);
        if self.parallel {
            let wide = out(self.mlp.forward(&self.before_mlp.forward(&x)), &self.after_mlp);
            return wide + attended + x;
        }
        let (x, normed) = self.before_mlp.of_sum(&x, Some(&attended));
        x + out(self.mlp.forward(&normed), &self.after_mlp)
    }
}

#[derive(Debug)]
struct SelfAttention {
    projections: AnyProjections,
    out: nn::Linear,
    /// Of queries and of keys.
    norms: Option<[Norm; 2]>,
    heads: i64,
    key_value_heads: i64,
    /// Which of the context's rotations.
    rope: Option<usize>,
    attention: Attention,
}

/// What makes queries, keys and values.
#[derive(Debug)]
enum AnyProjections {
    Apart([nn::Linear; 3]),
    Joined(nn::Linear),
    JoinedByHead(nn::Linear),
}

impl SelfAttention {
    fn new(scope: Scope, description: &Description, choice: &LayerChoice) -> Self {
        let Description { hidden, heads, key_value_heads, head_dim, bias, .. } = *description;
        let linear = |name: &str, shape, bias| scope.adaptable(InAttention, name, shape, bias);
        let (queries, keys) = (heads * head_dim, key_value_heads * head_dim);
        let project = |name, to| linear(name, (hidden, to), bias.queries_keys_values);
        let norm = |name: &str| scope.norm(description.norm, name, head_dim, description.eps);
        let projections = match description.projections {
            Projections::Apart => AnyProjections::Apart([
                project("q_proj", queries),
                project("k_proj", keys),
                project("v_proj", keys),
            ]),
            Projections::Joined(name) => AnyProjections::Joined(project(name, queries + 2 * keys)),
            Projections::JoinedByHead(name) => {
                AnyProjections::JoinedByHead(project(name, 3 * queries))
            }
        };
        SelfAttention {
            projections,
            out: linear(description.names.attention_out, (queries, hidden), bias.attention_out),
            norms: description.normed_heads.then(|| ["q_norm", "k_norm"].map(norm)),
            heads,
            key_value_heads,
            rope: choice.rope,
            attention: Attention {
                dropout: description.dropout.attention,
                scale: description.scale,
                window: choice.window,
                softcap: description.softcaps.attention,
            },
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let [query, key, value] = self.queries_keys_values(x);
        let (query, key) = match &self.norms {
            Some([of_queries, of_keys]) => (of_queries.forward(&query), of_keys.forward(&key)),
            None => (query, key),
        };
        let [query, key, value] = [query, key, value].map(|x| x.transpose(1, 2));
        let [query, key] = match self.rope {
            Some(rope) => rotate(&query, &key, &context.rotations[rope], RotaryPairs::Halves),
            None => [query, key],
        };
        self.out.forward(&self.attention.attend(&query, key, value, context, keys))
    }

    /// Of `x`, `[batch, length, hidden]`: `[batch, length, heads, head size]` each.
    fn queries_keys_values(&self, x: &Tensor) -> [Tensor; 3] {
        let size = x.size();
        let split = |x: &Tensor, heads| x.unflatten(2, [heads, -1]);
        let heads = [self.heads, self.key_value_heads, self.key_value_heads];
        match &self.projections {
            AnyProjections::Apart(layers) => {
                let parts = nn::together(layers.each_ref(), x);
                [0, 1, 2].map(|i| split(&parts[i], heads[i]))
            }
            AnyProjections::Joined(layer) => {
                let all = split(&layer.forward(x), heads.iter().sum());
                let parts = all.split_with_sizes(heads, 2);
                [0, 1, 2].map(|i| parts[i].shallow_clone())
            }
            AnyProjections::JoinedByHead(layer) => {
                let parts = layer.forward(x).view([size[0], size[1], self.heads, -1]).chunk(3, 3);
                [0, 1, 2].map(|i| parts[i].shallow_clone())
            }
        }
    }
}

/// A block's feed-forward layer.
#[derive(Debug)]
enum AnyMlp {
    Gated(GatedMlp),
    JoinedGated(JoinedGatedMlp),
    Plain(Mlp),
}

impl AnyMlp {
    fn new(scope: Scope, description: &Description) -> Self {
        let Description { hidden, wide, activation, .. } = *description;
        let bias = description.bias.feed_forward;
        let linear = |name: &str, shape| scope.adaptable(Ffn, name, shape, bias);
        match description.feed_forward {
            FeedForward::Gated => AnyMlp::Gated(GatedMlp {
                gate: linear("gate_proj", (hidden, wide)),
                up: linear("up_proj", (hidden, wide)),
                down: linear("down_proj", (wide, hidden)),
                activation,
            }),
            FeedForward::JoinedGated => AnyMlp::JoinedGated(JoinedGatedMlp {
                gate_up: linear("gate_up_proj", (hidden, 2 * wide)),
                down: linear("down_proj", (wide, hidden)),
                activation,
            }),
            FeedForward::Plain { up, down } => AnyMlp::Plain(Mlp {
                up: linear(up, (hidden, wide)),
                down: linear(down, (wide, hidden)),
                activation,
            }),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            AnyMlp::Gated(mlp) => mlp.forward(x),
            AnyMlp::JoinedGated(mlp) => mlp.forward(x),
            AnyMlp::Plain(mlp) => mlp.forward(x),
        }
    }
}
