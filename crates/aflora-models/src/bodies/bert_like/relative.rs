//! What MPNet adds to the scores of attention: a number for each head and each bucket of distances
//! (as T5 does; Raffel et al. 2020, §2.1).

use crate::nn::scope::Scope;
use aflora_core::nn::{self, Module};
use tch::{Kind, Tensor};

/// Rows of the table, half of them for keys that come after the query.
pub(super) const BUCKETS: i64 = 32;
/// From this distance on, all share a bucket.
const FARTHEST: f64 = 128.0;

#[derive(Debug)]
pub(super) struct RelativeBias {
    /// `[buckets, heads]`.
    table: nn::Embedding,
}

impl RelativeBias {
    pub fn new(scope: &Scope, name: &str, heads: i64) -> Self {
        RelativeBias { table: scope.embedding(name, BUCKETS, heads) }
    }

    /// What is added to the scores, `[batch, heads, length, length]`: negative infinity where
    /// `tokens`, `[batch, 1, 1, length]`, has padding.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let at = Tensor::arange(tokens.size()[3], (Kind::Int64, tokens.device()));
        let bias = self.table.forward(&bucket(&(at.unsqueeze(1) - at.unsqueeze(0))));
        let bias = bias.permute([2, 0, 1]).unsqueeze(0);
        let bias = bias.masked_fill(&tokens.logical_not(), f64::NEG_INFINITY);
        // libtorch's attention takes another kernel for a bias that has a gradient, whose last
        // digits differ: so must the first run of a checkpointed block, which makes no graph.
        match self.table.ws.requires_grad() && !bias.requires_grad() {
            true => bias.set_requires_grad(true),
            false => bias,
        }
    }
}

/// The bucket of the distance from a query to a key before it, negative where it comes after;
/// Int64 to the same. Near distances have one each, farther ones share buckets that widen with the
/// logarithm, in single precision as in transformers.
fn bucket(distance: &Tensor) -> Tensor {
    let (half, near) = (BUCKETS / 2, BUCKETS / 4);
    let far = distance.abs();
    let log = (far.to_kind(Kind::Float) / near as f64).log() / (FARTHEST / near as f64).ln();
    let wide = (log * (half - near) as f64).to_kind(Kind::Int64) + near;
    let wide = wide.clamp_max(half - 1);
    let after = distance.lt(0).to_kind(Kind::Int64) * half;
    far.where_self(&far.lt(near), &wide) + after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_a_bucket_each_and_both_sides_have_their_own() {
        let distances =
            Tensor::from_slice(&[0i64, 1, 7, 8, 11, 12, 63, 64, 127, 128, 999, -1, -7, -8, -999]);
        let found = Vec::<i64>::try_from(bucket(&distances)).unwrap();
        // transformers' MPNetEncoder.relative_position_bucket
        assert_eq!(found, [0, 1, 7, 8, 8, 9, 13, 14, 15, 15, 15, 17, 23, 24, 31]);
    }
}
