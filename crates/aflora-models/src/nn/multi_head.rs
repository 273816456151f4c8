//! Attention of several heads, between four projections.

use super::attention::{split_heads, Attention, ForwardContext, KeyValues};
use super::scope::Scope;
use aflora_core::nn::{Linear, Module};
use aflora_core::Block;
use tch::Tensor;

/// Keys and values, `[batch, heads, keys, size]` each.
pub(crate) type HeadKeyValues = [Tensor; 2];

/// out(softmax(scale · q kᵀ) v) of the projections q, k and v (Vaswani et al. 2017, §3.2.2).
#[derive(Debug)]
pub(crate) struct MultiHead {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: i64,
    attention: Attention,
}

impl MultiHead {
    /// `names` of the projections: of queries, keys and values, and of what comes out.
    pub fn new(
        scope: &Scope,
        [query, key, value, out]: [&str; 4],
        hidden: i64,
        heads: i64,
        attention: Attention,
    ) -> Self {
        let projection =
            |name: &str| scope.adaptable(Block::Attention, name, (hidden, hidden), true);
        MultiHead {
            query: projection(query),
            key: projection(key),
            value: projection(value),
            out: projection(out),
            heads,
            attention,
        }
    }

    /// The keys and values of `x`, `[batch, keys, hidden]`.
    pub fn keys_and_values(&self, x: &Tensor) -> HeadKeyValues {
        [&self.key, &self.value].map(|project| split_heads(&project.forward(x), self.heads))
    }

    /// Of `x`, `[batch, length, hidden]`, to the same. With `keys`, keys and values are kept there,
    /// and those already there are seen.
    pub fn forward(
        &self,
        x: &Tensor,
        [key, value]: HeadKeyValues,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let query = split_heads(&self.query.forward(x), self.heads);
        self.out.forward(&self.attention.attend(&query, key, value, context, keys))
    }
}
