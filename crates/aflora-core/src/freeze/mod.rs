//! Which projection matrices freeze, and when.
//!
//! * [`score`]: how much a matrix still matters (Eq. 2-4)
//! * [`schedule`]: which share r(t) should be frozen at step t (Eq. 5)
//! * [`rule`]: from scores and r(t) to the matrices that freeze now
//! * [`controller`]: one run's state, fed with each step's gradient
//!
//! Every ambiguity of the paper is decided in one place: `docs/method.md` lists the decisions.

mod check;
pub mod controller;
pub mod rule;
pub mod schedule;
pub mod score;

pub use check::{FreezeCheck, MatrixScore};
pub use controller::FreezeController;
pub use rule::Rule;
pub use schedule::{Curve, Schedule};
pub use score::Score;
pub(crate) use score::Smoothed;

use crate::adapter::Role;
use crate::error::check;
use crate::hook::Hook;
use crate::optim::Parameter;
use crate::span::{Ends, RunLength};
use crate::{Result, Span};
use serde::{Deserialize, Serialize};

/// When projection matrices freeze (Table 4's three rows).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FreezeMode {
    /// By score and schedule, during training.
    #[default]
    Adaptive,
    /// Never: they train to the end.
    Never,
    /// Before the first step: only the vectors train.
    Start,
}

/// Settings of adaptive freezing; the defaults are those of the released GLUE code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct FreezeConfig {
    /// Whether and when projection matrices freeze: by score and schedule, never, or before the
    /// first step.
    pub mode: FreezeMode,
    /// From scores to what freezes: the released code's rule, which is quick, or the text's, which
    /// is gradual.
    pub rule: Rule,
    /// What an element's score looks at: |g|, the paper's; |p·g|; or |g/p|.
    pub score: Score,
    /// Smoothing of the sensitivity (Eq. 3): more is steadier, and later.
    ///
    /// β₁ of Ī.
    pub beta1: f64,
    /// Smoothing of the uncertainty (Eq. 4): more is steadier, and later.
    ///
    /// β₂ of Ū.
    pub beta2: f64,
    /// Nothing freezes in this first span: longer trains further; less in a short run.
    pub t_i: Span,
    /// Everything is frozen in this last span: longer is cheaper.
    pub t_f: Span,
    /// Steps between two tests, and the window of the score.
    ///
    /// ΔT of `element_quantile`.
    pub interval: u64,
    /// The shape of r(t) between both ends (Eq. 5): 1 - (1 - x)^exponent, most at first; or
    /// x^exponent, few at first.
    pub curve: Curve,
    /// The curve's exponent: more freezes earlier (ease_out), or later (ease_in).
    pub exponent: f64,
}

impl Default for FreezeConfig {
    fn default() -> Self {
        FreezeConfig {
            mode: FreezeMode::Adaptive,
            rule: Rule::ElementQuantile,
            score: Score::Gradient,
            beta1: 0.85,
            beta2: 0.95,
            t_i: Span::Epochs(1.0),
            t_f: Span::Share(0.7),
            interval: 10,
            curve: Curve::EaseOut,
            exponent: 3.0,
        }
    }
}

impl FreezeConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
    pub fn validate(&self) -> Result<()> {
        let unit = |field, beta: f64| {
            check(field, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")
        };
        unit("freeze.beta1", self.beta1)?;
        unit("freeze.beta2", self.beta2)?;
        check("freeze.interval", self.interval, self.interval > 0, "at least 1")?;
        let exponent = self.exponent;
        check("freeze.exponent", exponent, exponent.is_finite() && exponent > 0.0, "positive")
    }

    /// Whether projection matrices train at the first step.
    pub fn trains_at_start(&self) -> bool {
        self.mode != FreezeMode::Start
    }

    /// Settings of matrices that train to the end.
    pub fn never() -> Self {
        FreezeConfig { mode: FreezeMode::Never, ..FreezeConfig::default() }
    }

    /// Whether projection matrices freeze during training.
    pub fn is_adaptive(&self) -> bool {
        self.mode == FreezeMode::Adaptive
    }

    /// What freezes the projection matrices among `parameters`, of whatever method they are, in a
    /// run of `length`; none where they do not freeze during training, or there are none.
    ///
    /// # Errors
    /// A setting is out of range, or the schedule's spans are shares of more than a whole run.
    pub(crate) fn hook(
        &self,
        length: RunLength,
        parameters: &[Parameter],
    ) -> Result<Option<Box<dyn Hook>>> {
        let candidates = parameters.iter().filter(|p| p.role == Role::Projection).count();
        if !self.is_adaptive() || candidates == 0 {
            return Ok(None);
        }
        let RunLength { steps_per_epoch, total_steps } = length;
        let mut controller = FreezeController::new(self, candidates, steps_per_epoch, total_steps)?;
        if candidates == parameters.len() {
            controller.remark_that_nothing_else_trains();
        }
        Ok(Some(Box::new(controller)))
    }

    /// The schedule of a run of `length`; in one that is too short for t_i and t_f, they are
    /// shortened.
    ///
    /// # Errors
    /// The two are shares of more than a whole run.
    pub fn schedule(&self, length: RunLength) -> Result<Schedule> {
        let Ends { initial, last, .. } = self.ends(length);
        Schedule::new(length.total_steps, initial, last, self.curve, self.exponent)
    }

    /// Where a run of `length` is too short for t_i and t_f as they are written: what they are
    /// there.
    pub fn remark(&self, length: RunLength) -> Option<String> {
        let (FreezeConfig { t_i, t_f, .. }, total) = (self, length.total_steps);
        let Ends { initial, last, shortened } = self.ends(length);
        shortened.then(|| {
            format!(
                "this run of {} is too short for t_i, {t_i}, beside t_f, {t_f}: t_i is its first \
                 {} and t_f its last {}",
                Span::Steps(total),
                Span::Steps(initial),
                Span::Steps(last)
            )
        })
    }

    fn ends(&self, length: RunLength) -> Ends {
        Ends::of(self.t_i, self.t_f, length.steps_per_epoch, length.total_steps)
    }
}
