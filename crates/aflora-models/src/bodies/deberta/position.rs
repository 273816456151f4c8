//! Relative positions: which row of the table each distance reads, and attention scores
//! against positions without a gather.
//!
//! The row for a query at i and a key at j depends on i - j alone. So the table is expanded
//! once to one row per distance, 2L - 1 of them, and multiplied with queries (or keys). What is
//! wanted, `out[i, j] = scores[i, j - i + L - 1]`, is then a view: reading the flat scores with
//! rows one shorter moves each row one to the left of the row before. The usual gather costs an
//! index tensor as large as the scores, and a scatter in the backward pass.

use super::config::DebertaConfig;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Rows of the table by distance, for one length.
#[derive(Debug)]
pub(super) struct DistanceRows {
    /// `[width]`; entry t is for i - j = L - 1 - t.
    pub falling: Tensor,
    /// `[width]`; entry t is for i - j = t - (L - 1).
    pub rising: Tensor,
}

impl DistanceRows {
    pub fn shallow_clone(&self) -> Self {
        DistanceRows { falling: self.falling.shallow_clone(), rising: self.rising.shallow_clone() }
    }
}

/// Makes [`DistanceRows`], once a length.
#[derive(Debug)]
pub(super) struct Positions {
    buckets: i64,
    max_distance: i64,
    span: i64,
    device: Device,
    rows: Mutex<HashMap<i64, DistanceRows>>,
}

impl Positions {
    pub fn new(config: &DebertaConfig, device: Device) -> Self {
        Positions {
            buckets: config.position_buckets,
            max_distance: config.max_distance(),
            span: config.span(),
            device,
            rows: Mutex::default(),
        }
    }

    /// The rows for texts of `length` tokens.
    pub fn rows(&self, length: i64) -> DistanceRows {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry(length).or_insert_with(|| self.make(length)).shallow_clone()
    }

    fn make(&self, length: i64) -> DistanceRows {
        let distances = Tensor::arange_start(1 - length, length, (Kind::Int64, Device::Cpu));
        let bucket = if self.buckets > 0 {
            log_bucket(&distances, self.buckets, self.max_distance)
        } else {
            distances
        };
        let rising = (bucket + self.span).clamp(0, 2 * self.span - 1);
        let falling = rising.flip([0]);
        // Matrix products run slowly at odd widths; the extra columns are never read.
        let pad = |rows: Tensor| {
            rows.constant_pad_nd([0, padded(2 * length - 1) - (2 * length - 1)]).to(self.device)
        };
        DistanceRows { falling: pad(falling), rising: pad(rising) }
    }
}

fn padded(width: i64) -> i64 {
    (width + 7) / 8 * 8
}

/// Distances below half of `buckets` one by one, farther ones in buckets whose width grows with
/// the logarithm, up to `max_distance`; `[n]` Int64 to the same.
///
/// In single precision, the precision of transformers, because a distance at a bucket's edge
/// would else fall on the other side of it.
pub(super) fn log_bucket(distance: &Tensor, buckets: i64, max_distance: i64) -> Tensor {
    let middle = buckets / 2;
    let far = distance.abs().clamp_min(middle - 1);
    let edge = Tensor::from((max_distance - 1) as f32 / middle as f32).log();
    let log = (far.to_kind(Kind::Float) / middle as f64).log() / edge * (middle - 1) as f64;
    let bucket = (log.ceil() + middle as f64) * distance.sign();
    distance.where_self(&far.le(middle), &bucket.to_kind(Kind::Int64))
}

/// `out[.., i, j] = scores[.., i, j - i + L - 1]` for contiguous `scores` `[.., L, width]` of at
/// least 2L - 1 columns: `[.., L, L]`, a view.
pub(super) fn skew(scores: &Tensor) -> Tensor {
    let mut size = scores.size();
    let mut stride = scores.stride();
    let n = size.len();
    let (length, width) = (size[n - 2], size[n - 1]);
    debug_assert!(width >= 2 * length - 1 && scores.is_contiguous());
    size[n - 1] = length;
    stride[n - 2] = width - 1;
    scores.as_strided(size, stride, length - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_view_reads_the_column_of_the_distance() {
        for (length, width) in [(1, 1), (1, 8), (3, 5), (4, 8), (5, 16)] {
            let scores = Tensor::arange(2 * length * width, (Kind::Int64, Device::Cpu));
            let scores = scores.view([2, length, width]);
            let view = skew(&scores);
            for batch in 0..2 {
                for i in 0..length {
                    for j in 0..length {
                        let found = view.int64_value(&[batch, i, j]);
                        let expected = scores.int64_value(&[batch, i, j - i + length - 1]);
                        assert_eq!(found, expected, "{length}, {width}: {i}, {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn near_distances_have_rows_of_their_own_and_far_ones_share() {
        let distances = Tensor::from_slice(&[-511i64, -129, -128, -1, 0, 1, 127, 128, 300, 511]);
        let found = Vec::<i64>::try_from(log_bucket(&distances, 256, 512)).unwrap();
        // numpy: ceil(log(|d| / 128) / log(511 / 128) * 127) + 128, with the sign of d
        assert_eq!(found, [-255, -129, -128, -1, 0, 1, 127, 128, 207, 255]);
    }
}
