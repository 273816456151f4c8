//! What a run has found so far, beside what it trained: kept in checkpoints, told at the end.

use super::pace::StepClock;
use super::recorder::Evaluation;
use serde::{Deserialize, Deserializer, Serialize};

/// The course of a run up to now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// One an epoch.
    pub evaluations: Vec<Evaluation>,
    /// Which of them is the best.
    pub best: Option<usize>,
    /// Seconds spent in training.
    pub training_seconds: f64,
    /// What steps took.
    pub clock: StepClock,
    /// Sum of the losses since the last that was recorded, bad steps left out.
    pub loss_sum: f64,
    /// Steps in it, bad ones counted.
    pub steps_in_sum: u64,
    /// Bad steps up to the last recorded loss.
    pub skipped_before: u64,
    /// The last recorded loss; NaN before there is one.
    #[serde(deserialize_with = "null_is_nan")]
    pub last_loss: f64,
    /// How the recorded losses went.
    pub curve: Curve,
    /// How the losses of evaluations went, which have no dropout in them.
    pub eval_curve: Curve,
    /// Why the best evaluation's result is no better than a guess, where it is not.
    pub doubts: Vec<String>,
}

impl Default for Course {
    fn default() -> Self {
        Course {
            evaluations: Vec::new(),
            best: None,
            training_seconds: 0.0,
            clock: StepClock::default(),
            loss_sum: 0.0,
            steps_in_sum: 0,
            skipped_before: 0,
            last_loss: f64::NAN,
            curve: Curve::default(),
            eval_curve: Curve::default(),
            doubts: Vec::new(),
        }
    }
}

/// JSON has no number that is none: it is written as null.
pub fn null_is_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// How recorded losses went: one that does not move learns nothing, nor does one that rises.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    recorded: u64,
    first: f64,
    last: f64,
    least: f64,
    most: f64,
    told: bool,
}

impl Curve {
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
    /// Losses to see before a rise is one.
    const RISE: u64 = 3;

    /// The first loss and the last; of none, none.
    pub fn ends(&self) -> Option<(f64, f64)> {
        (self.recorded > 0).then_some((self.first, self.last))
    }

    /// Whether the loss only rose, or ended far above where it began.
    pub fn rose(&self) -> bool {
        let Curve { recorded, first, last, least, .. } = *self;
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

    #[test]
    fn a_loss_that_stands_still_is_told_once_and_one_that_moves_never() {
        let said = |losses: &dyn Fn(u64) -> f64| {
            let mut curve = Curve::default();
            (0..200).filter(|&i| curve.stands_still(losses(i), 50)).count()
        };
        assert_eq!(said(&|_| 0.65), 1);
        assert_eq!(said(&|i| 0.65 - 1e-5 * i as f64), 0);
        assert_eq!(said(&|i| if i == 3 { f64::NAN } else { 0.0 }), 1);
    }

    #[test]
    fn a_loss_that_only_rose_or_ends_far_above_its_beginning_is_no_noise() {
        let rose = |losses: &[f64]| {
            let mut curve = Curve::default();
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

    #[test]
    fn a_course_comes_back_bit_for_bit() {
        let course = Course { loss_sum: f64::from(0.1f32) / 3.0, ..Course::default() };
        let text = serde_json::to_string(&course).unwrap();
        let back: Course = serde_json::from_str(&text).unwrap();
        assert!(back.last_loss.is_nan());
        assert_eq!(back.loss_sum.to_bits(), course.loss_sum.to_bits());
    }
}
