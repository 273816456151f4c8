//! What attention makes of tokens, and of positions, before it compares them.

use super::config::DebertaConfig;
use crate::nn::scope::Scope;
use aflora_core::nn::{self, Linear, Module};
use aflora_core::Block;
use tch::Tensor;

/// The projections of one block's attention.
#[derive(Debug)]
pub(super) struct Projections {
    tokens: OfTokens,
    /// Of positions, as keys and as queries: None where they share those of tokens, or where there
    /// is nothing to be compared with them.
    pub pos_key: Option<Linear>,
    pub pos_query: Option<Linear>,
}

#[derive(Debug)]
enum OfTokens {
    /// A layer each (v2 and v3).
    Apart { query: Linear, key: Linear, value: Linear },
    /// One layer, whose output has for each head its queries, keys and values, and biases of its
    /// queries and values, `[hidden]` (v1).
    Joined { all: Linear, query_bias: Tensor, value_bias: Tensor, heads: i64 },
}

impl Projections {
    pub fn new(scope: &Scope, config: &DebertaConfig) -> Self {
        let hidden = config.hidden_size;
        let linear =
            |name: &str, bias| scope.adaptable(Block::Attention, name, (hidden, hidden), bias);
        let tokens = match config.joined {
            false => OfTokens::Apart {
                query: linear("query_proj", true),
                key: linear("key_proj", true),
                value: linear("value_proj", true),
            },
            true => {
                let bias = |name| scope.path().var(name, &[hidden], nn::Init::Const(0.0));
                OfTokens::Joined {
                    all: scope.adaptable(Block::Attention, "in_proj", (hidden, 3 * hidden), false),
                    query_bias: bias("q_bias"),
                    value_bias: bias("v_bias"),
                    heads: config.num_attention_heads,
                }
            }
        };
        // v1's projection of positions as keys has no bias, as that of tokens.
        let (key, query) = match config.joined {
            false => ("pos_key_proj", "pos_query_proj"),
            true => ("pos_proj", "pos_q_proj"),
        };
        let own = config.relative_attention && !config.share_att_key;
        Projections {
            tokens,
            pos_key: (own && config.has("c2p")).then(|| linear(key, !config.joined)),
            pos_query: (own && config.has("p2c")).then(|| linear(query, true)),
        }
    }

    /// Queries, keys and values, `[.., hidden]` each, of `x`, `[.., hidden]`; those of the first two
    /// of further rows behind its own where positions are projected with the tokens.
    pub fn of_tokens(&self, x: &Tensor, query_rows: &Tensor, key_rows: &Tensor) -> [Tensor; 3] {
        match &self.tokens {
            OfTokens::Apart { query, key, value } => {
                let apart = || [query.forward(query_rows), key.forward(key_rows), value.forward(x)];
                if !std::ptr::eq(query_rows, key_rows) {
                    return apart();
                }
                let tokens = (!std::ptr::eq(query_rows, x)).then(|| x.size()[0]);
                let all = [(query, None), (key, None), (value, tokens)];
                nn::joined(all, query_rows).unwrap_or_else(apart)
            }
            OfTokens::Joined { all, query_bias, value_bias, heads } => {
                let whole = x.size();
                let all = all.forward(x).unflatten(-1, [*heads, 3, -1]);
                let part = |i: i64, bias: Option<&Tensor>| {
                    let part = all.select(-2, i);
                    let part = match bias {
                        Some(bias) => part + bias.to_kind(all.kind()).view([*heads, -1]),
                        None => part,
                    };
                    part.reshape(&whole[..])
                };
                [part(0, Some(query_bias)), part(1, None), part(2, Some(value_bias))]
            }
        }
    }

    /// Positions, `[width, hidden]`, as keys.
    pub fn positions_as_keys(&self, positions: &Tensor) -> Tensor {
        match (&self.pos_key, &self.tokens) {
            (Some(own), _) => own.forward(positions),
            (None, OfTokens::Apart { key, .. }) => key.forward(positions),
            (None, OfTokens::Joined { .. }) => unreachable!("v1's positions share no projection"),
        }
    }

    /// Positions, `[width, hidden]`, as queries.
    pub fn positions_as_queries(&self, positions: &Tensor) -> Tensor {
        match (&self.pos_query, &self.tokens) {
            (Some(own), _) => own.forward(positions),
            (None, OfTokens::Apart { query, .. }) => query.forward(positions),
            (None, OfTokens::Joined { .. }) => unreachable!("v1's positions share no projection"),
        }
    }

    /// Whether queries, keys or positions have a gradient of these layers' own.
    pub fn trains(&self) -> bool {
        let tokens = match &self.tokens {
            OfTokens::Apart { query, key, .. } => query.trains() || key.trains(),
            OfTokens::Joined { all, query_bias, .. } => all.trains() || query_bias.requires_grad(),
        };
        tokens || [&self.pos_key, &self.pos_query].into_iter().flatten().any(Linear::trains)
    }
}
