//! Which projection matrices freeze, and when.
//!
//! * [`score`]: how much a matrix still matters (Eq. 2-4)
//! * [`schedule`]: which share r(t) should be frozen at step t (Eq. 5)
//! * [`rules`]: what each rule keeps of the steps, and how it scores a matrix; one a file
//! * `budget`: from scores and r(t) to the matrices that freeze now, and that train again
//! * [`controller`]: one run's state, fed with each step's gradient
//!
//! Every ambiguity of the paper is decided in one place: `docs/method.md` lists the decisions.

mod budget;
mod check;
pub mod controller;
pub mod rules;
pub mod schedule;
pub mod score;

pub use check::{FreezeCheck, MatrixScore};
pub use controller::FreezeController;
pub use rules::Rule;
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
    /// From gradients to what freezes: the released code's rule, which is quick; the text's, which
    /// is gradual; or one of ours: what moves least of net, promises least, or has sunk most; or, as
    /// a control, one drawn at random.
    pub rule: Rule,
    /// What an element's score looks at: |g|, the paper's; |p·g|; or |g/p|.
    ///
    /// Of the rules that have one: element_quantile, matrix_rank and own_peak.
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
    /// ΔT of every rule but matrix_rank, which has a matrix freeze at the step that asks for it; of that
    /// where freeze.thaw is true.
    pub interval: u64,
    /// The shape of r(t) between both ends (Eq. 5): 1 - (1 - x)^exponent, most at first; or
    /// x^exponent, few at first.
    pub curve: Curve,
    /// The curve's exponent: more freezes earlier (ease_out), or later (ease_in).
    pub exponent: f64,
    /// The share of the matrices that is frozen in the end; the others train to the end of the run.
    ///
    /// Of the rules with a budget: all but element_quantile.
    pub final_share: f64,
    /// What freezes before the schedule ends may train again, in place of another.
    ///
    /// Its gradient is computed in every ΔT-th step alone. Of the rules that score by gradients with a
    /// budget: matrix_rank and own_peak.
    pub thaw: bool,
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
            final_share: 1.0,
            thaw: false,
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
        let FreezeConfig { rule, score, exponent, final_share: share, thaw, .. } = *self;
        check("freeze.exponent", exponent, exponent.is_finite() && exponent > 0.0, "positive")?;
        check("freeze.final_share", share, share > 0.0 && share <= 1.0, "above 0 and at most 1")?;
        let name = rule.name();
        let unset = format!("left out: {name} looks at no score of that kind");
        let fits = rule.has_score() || score == Score::default();
        check("freeze.score", score.name(), fits, unset)?;
        // The rule is what does not fit: the settings that ask for another are fine by themselves.
        let budget = "any but element_quantile where freeze.final_share is below 1";
        check("freeze.rule", name, rule.has_budget() || share == 1.0, budget)?;
        let rests = "matrix_rank or own_peak where freeze.thaw is true";
        check("freeze.rule", name, rule.scores_at_rest() || !thaw, rests)
    }

    /// Whether projection matrices train at the first step.
    pub(crate) fn trains_at_start(&self) -> bool {
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
        let schedule = Schedule::new(length.total_steps, initial, last, self.curve, self.exponent)?;
        Ok(schedule.up_to(self.final_share))
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
