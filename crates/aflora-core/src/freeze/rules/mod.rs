//! Which matrices freeze now: what each rule keeps of the steps, and how it scores a matrix by it.
//!
//! The paper's text and the authors' released code differ; both are here, under their own names, and
//! beside them rules of our own, one a file, with its equation and its reason. All but the released
//! code's freeze the lowest scores until a budget is met.
//!
//! Whatever a rule keeps lies in the projection group's buffers, element by element: a step costs a few
//! kernels over them and waits for nothing, ranks that have the same gradients have the same scores to
//! the bit, and a checkpoint has it all. Matrices are told apart at tests alone, by one read.

mod element_quantile;
mod expected_gain;
mod matrix_rank;
mod net_motion;
mod own_peak;
mod random;
mod traits;

use super::FreezeConfig;
use element_quantile::ElementQuantile;
use expected_gain::ExpectedGain;
use matrix_rank::MatrixRank;
use net_motion::NetMotion;
use own_peak::OwnPeak;
use random::Random;
use serde::{Deserialize, Serialize};
pub(super) use traits::{Evidence, FreezeRule};

/// How scores become freezes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
    /// Ours: what moves least of net, beside the way that it goes. Those whose moves over windows
    /// of ΔT steps cancel each other most freeze first.
    NetMotion,
    /// Ours: what promises least. Those whose moves over windows of ΔT steps lower the loss of other
    /// batches least, an element, freeze first.
    ExpectedGain,
    /// Ours: what has sunk most. The text's scores, each matrix' beside the highest that its own
    /// elements had, so that no matrix is measured by another's gradients.
    OwnPeak,
    /// A control: an order that nothing decides, another one for each seed.
    Random,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 6] = [
        Rule::ElementQuantile,
        Rule::MatrixRank,
        Rule::NetMotion,
        Rule::ExpectedGain,
        Rule::OwnPeak,
        Rule::Random,
    ];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Rule::ElementQuantile => "element_quantile",
            Rule::MatrixRank => "matrix_rank",
            Rule::NetMotion => "net_motion",
            Rule::ExpectedGain => "expected_gain",
            Rule::OwnPeak => "own_peak",
            Rule::Random => "random",
        }
    }

    /// Whether it looks at what `freeze.score` says.
    pub fn has_score(self) -> bool {
        !matches!(self, Rule::NetMotion | Rule::ExpectedGain | Rule::Random)
    }

    /// Whether it freezes the lowest scores until a share of all matrices is frozen.
    pub fn has_budget(self) -> bool {
        self != Rule::ElementQuantile
    }

    /// Whether it has a new score for what does not move: by gradients alone.
    pub fn scores_at_rest(self) -> bool {
        matches!(self, Rule::MatrixRank | Rule::OwnPeak)
    }

    /// The rule at work with these settings.
    pub(super) fn with(self, config: &FreezeConfig) -> Box<dyn FreezeRule> {
        match self {
            Rule::ElementQuantile => Box::new(ElementQuantile::new(config)),
            Rule::MatrixRank => Box::new(MatrixRank::new(config)),
            Rule::NetMotion => Box::new(NetMotion::new(config)),
            Rule::ExpectedGain => Box::new(ExpectedGain::new(config)),
            Rule::OwnPeak => Box::new(OwnPeak::new(config)),
            Rule::Random => Box::new(Random::new(config)),
        }
    }
}
