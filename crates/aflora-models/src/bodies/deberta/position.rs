//! Relative positions: which row of the table each distance reads, and attention scores
//! against positions without a gather.
//!
//! The row for a query at i and a key at j depends on i - j alone. So the table is expanded
//! once to one row per distance, 2L - 1 of them, and multiplied with queries (or keys). What is
//! wanted, `out[i, j] = scores[i, j - i + L - 1]`, is then a view: reading the flat scores with
//! rows one shorter moves each row one to the left of the row before. The usual gather costs an
//! index tensor as large as the scores, and a scatter in the backward pass.
//!
//! Attention by tiles reads the table itself, of which distances far apart share rows.

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
    /// None where neighbouring distances are more than a row apart.
    pub stretch: Option<Stretch>,
}

impl DistanceRows {
    pub fn shallow_clone(&self) -> Self {
        DistanceRows {
            falling: self.falling.shallow_clone(),
            rising: self.rising.shallow_clone(),
            stretch: self.stretch.as_ref().map(Stretch::shallow_clone),
        }
    }
}

/// The rows of the table that the distances of one length have, and which is whose.
#[derive(Debug)]
pub(super) struct Stretch {
    /// The first row of the table, and how many.
    pub first: i64,
    pub count: i64,
    /// `[2L - 1]`, Int: of the stretch; entry t is for i - j = L - 1 - t.
    pub rows: Tensor,
    /// `[count + 1]`, Int: entry r is how many distances have row r or a later one.
    pub edges: Tensor,
}

impl Stretch {
    /// Of the rows of a table of `table` rows that fall with the distances.
    fn new(falling: &[i64], table: i64, device: Device) -> Option<Self> {
        if falling.windows(2).any(|pair| !(0..=1).contains(&(pair[0] - pair[1]))) {
            return None;
        }
        let (last, lowest) = (falling.first()?, falling.last()?);
        // Matrix products run slowly at odd widths; the extra rows belong to no distance.
        let count = padded(last - lowest + 1).min(table);
        let first = *lowest.min(&(table - count));
        let rows: Vec<i32> = falling.iter().map(|row| (row - first) as i32).collect();
        let edges: Vec<i32> =
            (0..=count).map(|r| rows.partition_point(|&row| i64::from(row) >= r) as i32).collect();
        let there = |numbers: &[i32]| Tensor::from_slice(numbers).to(device);
        Some(Stretch { first, count, rows: there(&rows), edges: there(&edges) })
    }

    fn shallow_clone(&self) -> Self {
        Stretch { rows: self.rows.shallow_clone(), edges: self.edges.shallow_clone(), ..*self }
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
        let stretch = Vec::<i64>::try_from(&falling)
            .ok()
            .and_then(|rows| Stretch::new(&rows, 2 * self.span, self.device));
        // Matrix products run slowly at odd widths; the extra columns are never read.
        let pad = |rows: Tensor| {
            rows.constant_pad_nd([0, padded(2 * length - 1) - (2 * length - 1)]).to(self.device)
        };
        DistanceRows { falling: pad(falling), rising: pad(rising), stretch }
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
    fn a_stretch_has_the_rows_of_all_distances_and_where_each_ends() {
        let table = |rows: &[i64], table| Stretch::new(rows, table, Device::Cpu);
        let stretch = table(&[9, 9, 8, 7, 7, 7, 6], 12).unwrap();
        assert_eq!((stretch.first, stretch.count), (4, 8), "eight rows, the last of them");
        assert_eq!(Vec::<i32>::try_from(&stretch.rows).unwrap(), [5, 5, 4, 3, 3, 3, 2]);
        assert_eq!(Vec::<i32>::try_from(&stretch.edges).unwrap(), [7, 7, 7, 6, 3, 2, 0, 0, 0]);
        assert!(table(&[9, 7], 12).is_none(), "a row between them belongs to no distance");
        assert!(table(&[7, 8], 12).is_none(), "rows that rise");
        let config = serde_json::from_value(serde_json::json!({
            "hidden_size": 24, "num_attention_heads": 3, "relative_attention": true,
            "position_buckets": 256, "max_position_embeddings": 512,
        }));
        let positions = Positions::new(&config.unwrap(), Device::Cpu);
        for length in [1, 2, 33, 128, 600, 8192] {
            let DistanceRows { falling, stretch, .. } = positions.rows(length);
            let stretch = stretch.unwrap();
            assert!(stretch.count <= 512 && stretch.count % 8 == 0, "{length}");
            let whole = falling.narrow(0, 0, 2 * length - 1);
            assert_eq!(whole, stretch.rows.to_kind(Kind::Int64) + stretch.first, "{length}");
            let rows = Vec::<i32>::try_from(&stretch.rows).unwrap();
            for (r, edge) in Vec::<i32>::try_from(&stretch.edges).unwrap().into_iter().enumerate() {
                assert_eq!(edge, rows.iter().filter(|&&row| row >= r as i32).count() as i32);
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
