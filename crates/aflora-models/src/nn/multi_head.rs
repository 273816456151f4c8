//! Attention of several heads, between four projections.

use super::attention::{split_heads, Attention, ForwardContext, KeyValues};
use super::scope::Scope;
use aflora_core::nn::{together, Linear, Module};
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

/// The sizes of a [`MultiHead`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct MultiHeadSizes {
    pub hidden: i64,
    pub heads: i64,
    /// The size of a head.
    pub head: i64,
    /// Whether projections have biases.
    pub bias: bool,
}

impl MultiHeadSizes {
    /// Of heads that share the hidden size, with biases.
    pub fn shared(hidden: i64, heads: i64) -> Self {
        MultiHeadSizes { hidden, heads, head: hidden / heads, bias: true }
    }
}

impl MultiHead {
    /// `names` of the projections: of queries, keys and values, and of what comes out.
    pub fn new(
        scope: &Scope,
        [query, key, value, out]: [&str; 4],
        sizes: MultiHeadSizes,
        attention: Attention,
    ) -> Self {
        let MultiHeadSizes { hidden, heads, head, bias } = sizes;
        let linear = |name: &str, shape| scope.adaptable(Block::Attention, name, shape, bias);
        let projection = |name: &str| linear(name, (hidden, heads * head));
        MultiHead {
            query: projection(query),
            key: projection(key),
            value: projection(value),
            out: linear(out, (heads * head, hidden)),
            heads,
            attention,
        }
    }

    /// The keys and values of `x`, `[batch, keys, hidden]`.
    pub fn keys_and_values(&self, x: &Tensor) -> HeadKeyValues {
        together([&self.key, &self.value], x).map(|part| split_heads(&part, self.heads))
    }

    /// Of `x`, `[batch, length, hidden]`, which attends to itself, to the same. With `keys`, keys and
    /// values are kept there, and those already there are seen.
    pub fn forward(
        &self,
        x: &Tensor,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let parts = together([&self.key, &self.value, &self.query], x);
        let [key, value, query] = parts.map(|part| split_heads(&part, self.heads));
        self.out.forward(&self.attention.attend(&query, key, value, context, keys))
    }

    /// Of `x`, `[batch, length, hidden]`, which attends to what has these keys and values, to the same.
    pub fn across(
        &self,
        x: &Tensor,
        [key, value]: HeadKeyValues,
        context: &ForwardContext,
    ) -> Tensor {
        let query = split_heads(&self.query.forward(x), self.heads);
        self.out.forward(&self.attention.attend(&query, key, value, context, None))
    }
}
