//! From element scores and r(t) to the matrices that freeze now.
//!
//! The paper's text and the authors' released code differ; both are here, under their own names.
//! Figure 5 of the paper (RTE, 48 candidates, T = 780) can only come from the released code:
//!
//! | step | 60 | 80 | 100 | 120 | 150 | 170 |
//! |---|---|---|---|---|---|---|
//! | r(t) | .29 | .51 | .68 | .80 | .92 | .965 |
//! | frozen of 48 in Figure 5 | 1 | 6 | 22 | 37 | 46 | 48 |
//! | frozen of 48 by `matrix_rank` | 13 | 24 | 32 | 38 | 44 | 46 |

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How scores become freezes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The released code. I is the mean |g| over a window of ΔT steps; Ī and Ū move once a
    /// window and U uses the already updated Ī. Every ΔT steps a threshold is set at the
    /// r(t)-quantile of the *elements* of all matrices that still train, and a matrix whose
    /// mean score lies strictly below it freezes.
    #[default]
    ElementQuantile,
    /// The text. Scores move every step and U uses the previous Ī. The matrices with the lowest
    /// mean scores freeze, so that ⌊r(t) · n⌋ of all n candidates are frozen after step t.
    MatrixRank,
}

impl Rule {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Rule::ElementQuantile => "element_quantile",
            Rule::MatrixRank => "matrix_rank",
        }
    }
}

/// What a rule decided at one step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    /// The score below which (`element_quantile`) or up to which (`matrix_rank`) a matrix freezes.
    pub threshold: Option<f64>,
    /// Whether each matrix freezes, in the order given.
    pub freeze: Vec<bool>,
}

/// The released code's test: the threshold is the k-th smallest element score, k = ⌊N · r⌋.
///
/// k = 0 freezes nothing. At r = 1 everything left freezes: the strict comparison alone would
/// keep a matrix whose element scores all equal the largest that is left, such as the 0 of
/// matrices that never had a gradient.
pub(super) fn element_quantile(elements: &Tensor, means: &[f64], ratio: f64) -> Decision {
    let k = (elements.numel() as f64 * ratio) as i64;
    if k == 0 {
        return Decision { threshold: None, freeze: vec![false; means.len()] };
    }
    // Not by `kthvalue`: on a GPU it searches with a single block of threads.
    let (smallest, _) = elements.topk(k, 0, false, false);
    let threshold = smallest.max().to_kind(Kind::Double).double_value(&[]);
    let freeze = means.iter().map(|&mean| ratio >= 1.0 || mean < threshold).collect();
    Decision { threshold: Some(threshold), freeze }
}

/// The text's test: freezes the lowest means until ⌊r · candidates⌋ are frozen in all.
///
/// Equal means go in the order given. The floor forgives rounding: 0.6 · 5 is 3.
pub(super) fn matrix_rank(means: &[f64], candidates: usize, ratio: f64) -> Decision {
    let wanted = (candidates as f64 * ratio + 1e-9).floor() as usize;
    let already = candidates - means.len();
    let now = wanted.saturating_sub(already).min(means.len());
    let mut order: Vec<usize> = (0..means.len()).collect();
    // `total_cmp` puts NaN last: a matrix without a usable score freezes last.
    order.sort_by(|&i, &j| means[i].total_cmp(&means[j]));
    let mut freeze = vec![false; means.len()];
    for &i in &order[..now] {
        freeze[i] = true;
    }
    let threshold = now.checked_sub(1).map(|last| means[order[last]]);
    Decision { threshold, freeze }
}
