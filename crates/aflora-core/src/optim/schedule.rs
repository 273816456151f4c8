//! The learning rate over a run: a linear warm-up, then one of several decays, as transformers'
//! `get_*_schedule_with_warmup` have them.
//!
//! A schedule is a factor on every group's peak rate, and a plain number on the host: the step
//! launches its update with it, and waits for nothing.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// What the learning rate does behind the warm-up. The names are those of transformers'
/// `lr_scheduler_type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LrSchedule {
    /// Falls in a straight line.
    #[default]
    Linear,
    /// Falls along half a wave of the cosine: slowly, quickly, slowly.
    Cosine,
    /// Stays: transformers' `constant_with_warmup`.
    Constant,
    /// Falls as a power of the share of the run that is left.
    Polynomial,
    /// Falls as one over the square root of the step; it does not reach its end with the run's.
    InverseSqrt,
}

impl LrSchedule {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            LrSchedule::Linear => "linear",
            LrSchedule::Cosine => "cosine",
            LrSchedule::Constant => "constant",
            LrSchedule::Polynomial => "polynomial",
            LrSchedule::InverseSqrt => "inverse_sqrt",
        }
    }
}

/// The learning rate's factor over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// What comes behind the warm-up.
    pub decay: LrSchedule,
    /// Steps from 0 up to the full rate.
    pub warmup: u64,
    /// Steps of the run.
    pub total: u64,
    /// The exponent of [`LrSchedule::Polynomial`].
    pub power: f64,
    /// What the factor falls to instead of zero.
    pub least: f64,
}

/// transformers' time scale of an inverse square root without warm-up.
const TIMESCALE: u64 = 10_000;

impl Schedule {
    /// Linear warm-up, then a straight line to zero.
    pub fn linear(warmup: u64, total: u64) -> Self {
        Schedule { decay: LrSchedule::Linear, warmup, total, power: 1.0, least: 0.0 }
    }

    /// The factor for step `t`, the number of completed steps: 0 to 1.
    pub fn factor(&self, t: u64) -> f64 {
        if t < self.warmup {
            return t as f64 / self.warmup as f64;
        }
        self.least + (1.0 - self.least) * self.decayed(t)
    }

    /// What is left of the full rate behind the warm-up, 1 to 0.
    fn decayed(&self, t: u64) -> f64 {
        let decay_steps = self.total.saturating_sub(self.warmup).max(1) as f64;
        let left = self.total.saturating_sub(t) as f64 / decay_steps;
        match self.decay {
            LrSchedule::Linear => left,
            LrSchedule::Cosine => {
                let done = t.min(self.total).saturating_sub(self.warmup) as f64 / decay_steps;
                0.5 * (1.0 + (PI * done).cos())
            }
            LrSchedule::Constant => 1.0,
            LrSchedule::Polynomial => left.powf(self.power),
            LrSchedule::InverseSqrt => {
                let timescale = if self.warmup == 0 { TIMESCALE } else { self.warmup } as f64;
                let behind = (t - self.warmup) as f64;
                1.0 / ((timescale + behind) / timescale).sqrt()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_rises_to_one_and_falls_to_zero() {
        let s = Schedule::linear(4, 14);
        let f: Vec<f64> = (0..=15).map(|t| s.factor(t)).collect();
        assert_eq!(f[..5], [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert!((f[9] - 0.5).abs() < 1e-15);
        assert_eq!(f[14..], [0.0, 0.0]);
    }

    #[test]
    fn without_warm_up_the_first_step_has_the_full_rate() {
        assert_eq!(Schedule::linear(0, 10).factor(0), 1.0);
        assert_eq!(Schedule::linear(3, 3).factor(3), 0.0);
    }

    #[test]
    fn a_least_factor_is_where_every_decay_ends_and_the_warm_up_keeps_its_beginning() {
        for decay in [LrSchedule::Linear, LrSchedule::Cosine, LrSchedule::Polynomial] {
            let s = Schedule { decay, power: 2.0, least: 0.1, ..Schedule::linear(4, 14) };
            assert_eq!(s.factor(1), 0.25, "{decay:?}");
            assert_eq!(s.factor(4), 1.0, "{decay:?}");
            assert!((s.factor(14) - 0.1).abs() < 1e-15, "{decay:?}");
            assert!((s.factor(99) - 0.1).abs() < 1e-15, "{decay:?}: behind the run, too");
        }
        let slow =
            Schedule { decay: LrSchedule::InverseSqrt, least: 0.1, ..Schedule::linear(4, 14) };
        assert!((slow.factor(16) - (0.1 + 0.9 * 0.5)).abs() < 1e-15);
        assert!(slow.factor(u64::MAX) >= 0.1);
    }
}
