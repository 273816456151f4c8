//! What a run has found so far, beside what it trained: kept in checkpoints, told at the end.

use super::eval_points::EvalPoints;
use super::pace::StepClock;
use aflora_core::state::Position;
use aflora_record::json::null_is_nan;
use aflora_record::{ByClass, Evaluation};
use anyhow::{ensure, Result};
use serde::{Deserialize, Serialize};

/// What the training loop has found up to now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopState {
    /// The evaluations so far.
    pub evaluations: Vec<Evaluation>,
    /// The index of the best evaluation.
    pub best: Option<usize>,
    /// Seconds spent in training.
    pub training_seconds: f64,
    /// How long steps took.
    pub clock: StepClock,
    /// Sum of the losses since the last that was recorded, bad steps left out.
    pub loss_sum: f64,
    /// How many steps `loss_sum` spans, bad ones counted.
    pub steps_in_sum: u64,
    /// Bad steps up to the last recorded loss.
    pub skipped_before: u64,
    /// The loss of the first good step, before anything moved.
    pub start: Option<f64>,
    /// The last recorded loss; NaN before there is one.
    #[serde(deserialize_with = "null_is_nan")]
    pub last_loss: f64,
    /// The training loss since the last evaluation.
    #[serde(default)]
    pub since_evaluation: LossSum,
    /// How the recorded losses went.
    pub curve: LossTrend,
    /// How the losses of evaluations went, which have no dropout in them.
    pub eval_curve: LossTrend,
    /// The best evaluation's answers class by class, where there are classes.
    #[serde(default)]
    pub by_class: Vec<ByClass>,
    /// Why the best evaluation's result is no better than a guess, where it is not.
    pub doubts: Vec<String>,
}

impl LoopState {
    /// Whether a run can have found this at `position`: it may come out of a file.
    ///
    /// # Errors
    /// A number is none that a run has there.
    pub fn check(&self, position: &Position, points: EvalPoints) -> Result<()> {
        let Position { step, skipped, .. } = *position;
        let evaluations = self.evaluations.len() as u64;
        let within = |what: &str, found: u64, least: u64, most: u64| {
            ensure!((least..=most).contains(&found), "{what} is {found}, not {least} to {most}");
            Ok(())
        };
        let mut last = 0;
        for evaluation in &self.evaluations {
            last = points.after(last);
            within("the step of an evaluation", evaluation.step, last, last)?;
        }
        within("position.step", step, last, points.after(last))?;
        if let Some(best) = self.best {
            ensure!(best < self.evaluations.len(), "best is {best} of {evaluations} evaluations");
        }
        ensure!(self.training_seconds >= 0.0, "training_seconds is {}", self.training_seconds);
        within("skipped_before", self.skipped_before, 0, skipped)?;
        within("steps_in_sum", self.steps_in_sum, skipped - self.skipped_before, step)?;
        let since = self.since_evaluation.steps.unsigned_abs();
        within("since_evaluation.steps", since, 0, step)?;
        within("curve.recorded", self.curve.recorded, 0, step)?;
        within("eval_curve.recorded", self.eval_curve.recorded, 0, evaluations)?;
        ensure!(self.start.is_some() || step == skipped, "start is missing");
        self.clock.check(step)
    }

    /// Whether the last so many evaluations were no better than the best before them.
    pub fn is_out_of(&self, patience: u64) -> bool {
        let since = |best: usize| self.evaluations.len().saturating_sub(best + 1) as u64;
        self.best.is_some_and(|best| since(best) >= patience)
    }

    /// The training loss before anything moved, and the last that was recorded.
    pub fn ends(&self) -> Option<(f64, f64)> {
        let LossTrend { recorded, first, last, .. } = self.curve;
        (recorded > 0).then(|| (self.start.unwrap_or(first), last))
    }

    /// Whether the training loss only rose, or ended far above where it began. That it began so
    /// low is known of one batch alone, so the last dev loss must say the same.
    pub fn rose(&self) -> bool {
        let dev = self.evaluations.last().map(|evaluation| evaluation.loss);
        let diverged = self.ends().is_some_and(|(start, last)| {
            let most = LossTrend::DIVERGED * start;
            last > most && dev.is_none_or(|dev| dev.is_nan() || dev > most)
        });
        diverged || self.curve.rose()
    }

    /// Where the training loss fell: from where, and to where. Batches differ, so against the first
    /// step alone only a far fall is one.
    pub fn fell(&self) -> Option<(f64, f64)> {
        let (start, last) = self.ends()?;
        let first = self.curve.first;
        let from = (last < LossTrend::FELL * first).then_some(first);
        from.or((last < start / LossTrend::DIVERGED).then_some(start)).map(|from| (from, last))
    }

    /// Whether the training loss ends clearly above the lowest that it was.
    pub fn turned(&self) -> bool {
        let least = |start: f64| start.min(self.curve.least);
        self.ends().is_some_and(|(start, last)| last > LossTrend::TURNED * least(start))
    }

    /// The highest recorded loss, where training went the wrong way for a while: where that is far
    /// above the beginning, or the last above the first that was recorded.
    pub fn detour(&self) -> Option<f64> {
        let (start, last) = self.ends()?;
        let LossTrend { first, most, .. } = self.curve;
        (most > LossTrend::DIVERGED * start || last > LossTrend::ROSE * first).then_some(most)
    }
}

/// Losses of good steps together, those up to the last that was recorded: where some of these were
/// told before, what was told is taken off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossSum {
    sum: f64,
    steps: i64,
}

impl LossSum {
    /// Takes a recorded sum of so many steps in.
    pub fn add(&mut self, sum: f64, steps: u64) {
        self.sum += sum;
        self.steps += steps as i64;
    }

    /// The mean of these and of a sum of so many steps that is still to be recorded, with which the
    /// next begins anew; none of no steps.
    pub fn tell(&mut self, unrecorded: f64, steps: u64) -> Option<f64> {
        let (sum, all) = (self.sum + unrecorded, self.steps + steps as i64);
        *self = LossSum { sum: -unrecorded, steps: -(steps as i64) };
        (all > 0).then(|| sum / all as f64)
    }
}

impl Default for LoopState {
    fn default() -> Self {
        LoopState {
            evaluations: Vec::new(),
            best: None,
            training_seconds: 0.0,
            clock: StepClock::default(),
            loss_sum: 0.0,
            steps_in_sum: 0,
            skipped_before: 0,
            start: None,
            last_loss: f64::NAN,
            since_evaluation: LossSum::default(),
            curve: LossTrend::default(),
            eval_curve: LossTrend::default(),
            by_class: Vec::new(),
            doubts: Vec::new(),
        }
    }
}

/// How recorded losses went: one that does not move learns nothing, nor does one that rises.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossTrend {
    recorded: u64,
    first: f64,
    last: f64,
    least: f64,
    most: f64,
    told: bool,
}

impl LossTrend {
    /// Recorded losses to see before anything is said.
    pub const STEPS: u64 = 50;
    /// Evaluations to see before anything is said.
    pub const EVALUATIONS: u64 = 3;
    /// A loss that moved by less, relative to its size, stood still.
    const STILL: f64 = 1e-4;
    /// One that was never below its beginning and ends above it by this factor only rose.
    const ROSE: f64 = 1.1;
    /// One that ends above its beginning by this factor diverged, whatever came between.
    const DIVERGED: f64 = 2.0;
    /// One that ends below this share of its beginning fell.
    const FELL: f64 = 0.9;
    /// One that ends above its lowest by this factor turned.
    const TURNED: f64 = 1.02;
    /// Losses to see before a rise is one.
    const RISE: u64 = 3;

    /// Whether the loss only rose, or ended far above the first that was recorded.
    fn rose(&self) -> bool {
        let LossTrend { recorded, first, last, least, .. } = *self;
        let only = least >= first && last > Self::ROSE * first;
        recorded >= Self::RISE && (only || last > Self::DIVERGED * first)
    }

    /// Takes a loss in; when they are `enough`, says whether they stood still. That is said once.
    pub fn stands_still(&mut self, loss: f64, enough: u64) -> bool {
        if !loss.is_finite() {
            return false;
        }
        if self.recorded == 0 {
            (self.first, self.least, self.most) = (loss, loss, loss);
        }
        (self.least, self.most) = (self.least.min(loss), self.most.max(loss));
        self.last = loss;
        self.recorded += 1;
        if self.told || self.recorded < enough {
            return false;
        }
        self.told = true;
        let size = self.least.abs().max(self.most.abs());
        self.most - self.least <= Self::STILL * size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Every;

    #[test]
    fn a_loss_that_stands_still_is_told_once_and_one_that_moves_never() {
        let said = |losses: &dyn Fn(u64) -> f64| {
            let mut curve = LossTrend::default();
            (0..200).filter(|&i| curve.stands_still(losses(i), 50)).count()
        };
        assert_eq!(said(&|_| 0.65), 1);
        assert_eq!(said(&|i| 0.65 - 1e-5 * i as f64), 0);
        assert_eq!(said(&|i| if i == 3 { f64::NAN } else { 0.0 }), 1);
    }

    /// Behind the seventh step of three epochs of three.
    fn seven() -> (LoopState, Position) {
        let evaluation = |step| Evaluation {
            step,
            epoch: step as f64 / 3.0,
            metrics: [("f1".to_string(), Some(0.5))].into(),
            loss: 0.5,
            seconds: 1.0,
        };
        let mut loop_state = LoopState {
            evaluations: vec![evaluation(3), evaluation(6)],
            best: Some(1),
            loss_sum: 0.5,
            steps_in_sum: 1,
            start: Some(0.7),
            ..LoopState::default()
        };
        for _ in 0..7 {
            loop_state.clock.add(0.1);
            loop_state.curve.stands_still(0.5, 9);
        }
        let mut accounting = aflora_core::accounting::Accounting::new(5);
        (0..7).for_each(|_| accounting.step(5));
        let position = Position {
            step: 7,
            skipped: 1,
            skipped_in_a_row: 0,
            accounting,
            groups: Vec::new(),
            counts: [].into(),
        };
        (loop_state, position)
    }

    #[test]
    fn a_loop_state_with_numbers_that_no_run_has_is_refused() {
        let (good, position) = seven();
        let points = EvalPoints::new(Every::Epochs(1), 3, 9);
        good.check(&position, points).unwrap();
        let refused = |change: &dyn Fn(&mut LoopState), words: &str| {
            let mut loop_state = good.clone();
            change(&mut loop_state);
            let error = loop_state.check(&position, points).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&|c| drop(c.evaluations.pop()), "position.step is 7, not 3 to 6");
        refused(&|c| c.evaluations[1].step = 8, "the step of an evaluation is 8, not 6 to 6");
        refused(&|c| c.best = Some(2), "best is 2 of 2 evaluations");
        refused(&|c| c.training_seconds = -1.0, "training_seconds is -1");
        refused(&|c| c.skipped_before = 2, "skipped_before is 2, not 0 to 1");
        // A mean over no steps, or over fewer than none.
        refused(&|c| c.steps_in_sum = 0, "steps_in_sum is 0, not 1 to 7");
        refused(&|c| c.steps_in_sum = u64::MAX, "steps_in_sum");
        refused(&|c| c.start = None, "start is missing");
        refused(&|c| c.curve.recorded = u64::MAX, "curve.recorded");
        let clock = |text: &str| {
            let clock: StepClock = serde_json::from_str(text).unwrap();
            move |c: &mut LoopState| c.clock = clock.clone()
        };
        refused(&clock(r#"{"steps":8,"seconds":1,"sample":[],"k":0}"#), "clock.steps is 8");
        refused(&clock(r#"{"steps":7,"seconds":1,"sample":[],"k":63}"#), "clock.k is 63");
        refused(&clock(r#"{"steps":7,"seconds":1,"sample":[],"k":64}"#), "clock.k is 64");
        refused(&clock(r#"{"steps":1,"seconds":1,"sample":[1,1],"k":0}"#), "clock.sample has 2");
    }

    #[test]
    fn patience_ends_with_so_many_evaluations_behind_the_best() {
        let (mut loop_state, _) = seven();
        assert!(!loop_state.is_out_of(1), "the last is the best");
        loop_state.best = Some(0);
        assert!(loop_state.is_out_of(1) && !loop_state.is_out_of(2));
        assert!(!LoopState::default().is_out_of(1));
    }

    #[test]
    fn a_loss_that_only_rose_or_ends_far_above_its_beginning_is_no_noise() {
        let rose = |losses: &[f64]| {
            let mut curve = LossTrend::default();
            for &loss in losses {
                let _ = curve.stands_still(loss, 50);
            }
            curve.rose()
        };
        assert!(rose(&[0.7, 0.8, 0.9]));
        assert!(rose(&[0.7, 0.6, 40.0]));
        assert!(rose(&[0.7, f64::NAN, 0.75, 0.9]));
        assert!(!rose(&[0.7, 0.6, 0.9]), "it was lower in between");
        assert!(!rose(&[0.70, 0.71, 0.72]), "noise");
        assert!(!rose(&[0.7, 0.9]), "too few to tell");
        assert!(!rose(&[0.7, 0.5, 0.1]));
    }

    /// With a loss recorded every ten steps, a short run has one, taken long after the explosion.
    #[test]
    fn a_rise_shows_against_the_first_step_however_few_losses_are_recorded() {
        let rose = |start: f64, losses: &[f64], dev: f64| {
            let (mut loop_state, _) = seven();
            loop_state.evaluations[1].loss = dev;
            (loop_state.start, loop_state.curve) = (Some(start), LossTrend::default());
            for &loss in losses {
                let _ = loop_state.curve.stands_still(loss, 50);
            }
            (loop_state.rose(), loop_state.detour())
        };
        assert_eq!(rose(5.6, &[1_168_948.0], 1_177_092.0), (true, Some(1_168_948.0)));
        assert!(rose(5.6, &[1_168_948.0], f64::NAN).0);
        assert_eq!(rose(0.7, &[2.7, 0.66], 0.65), (false, Some(2.7)), "it came down again");
        assert_eq!(rose(0.7, &[0.9], 0.8), (false, None), "two batches");
        assert_eq!(rose(0.7, &[0.6], 0.5), (false, None));
        assert!(!rose(0.2, &[0.7], 0.3).0, "two batches that differ");
    }

    #[test]
    fn a_loop_state_comes_back_bit_for_bit() {
        let loop_state = LoopState { loss_sum: f64::from(0.1f32) / 3.0, ..LoopState::default() };
        let text = serde_json::to_string(&loop_state).unwrap();
        let back: LoopState = serde_json::from_str(&text).unwrap();
        assert!(back.last_loss.is_nan());
        assert_eq!(back.loss_sum.to_bits(), loop_state.loss_sum.to_bits());
    }
}
