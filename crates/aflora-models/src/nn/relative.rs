//! What is added to the scores of attention for distances: a number for each head and each bucket
//! of distances (T5's: Raffel et al. 2020, §2.1; MPNet has it from there).

use super::scope::Scope;
use aflora_core::nn::{self, Module};
use tch::{Kind, Tensor};

/// Which distances share a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buckets {
    /// Rows of the table; an even number of them.
    pub count: i64,
    /// From this distance on, all share a bucket.
    pub farthest: f64,
    /// Whether half of them are for keys that come after the query; otherwise these share one.
    pub both_sides: bool,
}

#[derive(Debug)]
pub(crate) struct RelativeBias {
    /// `[buckets, heads]`.
    table: nn::Embedding,
    buckets: Buckets,
}

impl RelativeBias {
    pub fn new(scope: &Scope, name: &str, heads: i64, buckets: Buckets) -> Self {
        RelativeBias { table: scope.embedding(name, buckets.count, heads), buckets }
    }

    /// What is added to the scores of the last `queries` of `keys` tokens, `[.., heads, queries,
    /// keys]`: negative infinity where `seen`, `[.., 1, 1 or queries, keys]`, is false.
    pub fn forward(&self, queries: i64, keys: i64, seen: &Tensor) -> Tensor {
        let at = Tensor::arange(keys, (Kind::Int64, seen.device()));
        let of_queries = at.narrow(0, keys - queries, queries);
        let distance = of_queries.unsqueeze(1) - at.unsqueeze(0);
        let bias = self.table.forward(&self.buckets.of(&distance));
        let bias = bias.permute([2, 0, 1]).unsqueeze(0);
        let bias = bias.masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
        // libtorch's attention takes another kernel for a bias that has a gradient, whose last
        // digits differ: so must the first run of a checkpointed block, which makes no graph.
        match self.table.ws.requires_grad() && !bias.requires_grad() {
            true => bias.set_requires_grad(true),
            false => bias,
        }
    }
}

impl Buckets {
    /// The bucket of the distance from a query to a key before it, negative where it comes after;
    /// Int64 to the same. Near distances have one each, farther ones share buckets that widen with
    /// the logarithm, in single precision as in transformers.
    fn of(&self, distance: &Tensor) -> Tensor {
        let half = if self.both_sides { self.count / 2 } else { self.count };
        let near = half / 2;
        let far = if self.both_sides { distance.abs() } else { distance.clamp_min(0) };
        let log = (far.to_kind(Kind::Float) / near as f64).log();
        let log = log / (self.farthest / near as f64).ln();
        let wide = (log * (half - near) as f64).to_kind(Kind::Int64) + near;
        let wide = wide.clamp_max(half - 1);
        let bucket = far.where_self(&far.lt(near), &wide);
        match self.both_sides {
            true => bucket + distance.lt(0).to_kind(Kind::Int64) * half,
            false => bucket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_a_bucket_each_and_both_sides_have_their_own() {
        let distances =
            Tensor::from_slice(&[0i64, 1, 7, 8, 11, 12, 63, 64, 127, 128, 999, -1, -7, -8, -999]);
        let both = Buckets { count: 32, farthest: 128.0, both_sides: true };
        let found = Vec::<i64>::try_from(both.of(&distances)).unwrap();
        // transformers' MPNetEncoder.relative_position_bucket
        assert_eq!(found, [0, 1, 7, 8, 8, 9, 13, 14, 15, 15, 15, 17, 23, 24, 31]);
        let before = Buckets { both_sides: false, ..both };
        let found = Vec::<i64>::try_from(before.of(&distances)).unwrap();
        // T5Attention._relative_position_bucket of a decoder
        assert_eq!(found, [0, 1, 7, 8, 11, 12, 26, 26, 31, 31, 31, 0, 0, 0, 0]);
    }
}
