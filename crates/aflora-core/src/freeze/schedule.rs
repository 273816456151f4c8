//! The share r(t) of projection matrices that should be frozen at step t (Eq. 5).
//!
//! ```text
//! r(t) = 0                                        t < t_i
//!        1 - (1 - (t - t_i) / (T - t_i - t_f))³   t_i <= t < T - t_f
//!        1                                        otherwise
//! ```
//!
//! t is the number of completed optimiser steps, so the first step of a run has t = 0. All of it may be
//! multiplied by a share below 1, for matrices that never freeze.

use crate::error::check;
use crate::Result;
use serde::{Deserialize, Serialize};

/// How r(t) rises from 0 to 1; x is the progress between both ends, e the exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Curve {
    /// 1 - (1 - x)^e: fast first. The paper's Eq. 5 with e = 3.
    #[default]
    EaseOut,
    /// x^e: slow first. The released GSM8K code with e = 2.
    EaseIn,
}

/// A run's schedule in steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// T, optimiser steps of the whole run.
    pub total: u64,
    /// t_i, steps before the first matrix may freeze.
    pub initial: u64,
    /// T - t_f, the first step at which everything is frozen.
    pub saturation: u64,
    curve: Curve,
    exponent: f64,
    #[serde(default = "whole")]
    final_share: f64,
}

fn whole() -> f64 {
    1.0
}

impl Schedule {
    /// A schedule of `total` steps with an initial span `t_i` and a final span `t_f`.
    ///
    /// # Errors
    /// The spans leave no step between them (t_i + t_f > total).
    pub fn new(total: u64, t_i: u64, t_f: u64, curve: Curve, exponent: f64) -> Result<Self> {
        check(
            "freeze.t_i + freeze.t_f",
            format!("{t_i} + {t_f} steps"),
            t_i.checked_add(t_f).is_some_and(|sum| sum <= total),
            "at most the number of steps of the run: train longer, or shorten them",
        )?;
        let (saturation, final_share) = (total - t_f, whole());
        Ok(Schedule { total, initial: t_i, saturation, curve, exponent, final_share })
    }

    /// The same, but for its end: r(t) rises to `share` in place of 1.
    pub(crate) fn up_to(self, share: f64) -> Self {
        Schedule { final_share: share, ..self }
    }

    /// r(t), 0 to the final share, never falling.
    pub fn ratio(&self, t: u64) -> f64 {
        self.final_share * self.progress(t)
    }

    /// How much of it is done, 0 to 1.
    fn progress(&self, t: u64) -> f64 {
        // Saturation first: with t_i = T - t_f there is no ramp.
        if t >= self.saturation {
            1.0
        } else if t < self.initial {
            0.0
        } else {
            let x = (t - self.initial) as f64 / (self.saturation - self.initial) as f64;
            match self.curve {
                Curve::EaseOut => 1.0 - (1.0 - x).powf(self.exponent),
                Curve::EaseIn => x.powf(self.exponent),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn schedules()(total in 1u64..5000)(
            total in Just(total), t_i in 0..=total, split in 0.0..=1.0f64,
            ease_in in any::<bool>(), exponent in 0.2..6.0f64,
        ) -> Schedule {
            let t_f = ((total - t_i) as f64 * split) as u64;
            let curve = if ease_in { Curve::EaseIn } else { Curve::EaseOut };
            Schedule::new(total, t_i, t_f, curve, exponent).unwrap()
        }
    }

    proptest! {
        #[test]
        fn r_is_a_share_that_never_falls(s in schedules()) {
            let mut last = 0.0;
            for t in 0..=s.total {
                let r = s.ratio(t);
                prop_assert!((0.0..=1.0).contains(&r));
                prop_assert!(r >= last, "r({t}) = {r} < {last}");
                last = r;
            }
        }

        #[test]
        fn a_final_share_is_where_r_ends_and_scales_all_of_it(
            s in schedules(), share in 0.01..=1.0f64,
        ) {
            let part = s.up_to(share);
            prop_assert_eq!(part.ratio(s.total), share);
            for t in 0..=s.total {
                prop_assert!((part.ratio(t) - share * s.ratio(t)).abs() < 1e-12);
            }
        }

        #[test]
        fn nothing_is_asked_for_before_t_i_and_everything_after_saturation(s in schedules()) {
            for t in 0..s.initial.min(s.saturation) {
                prop_assert_eq!(s.ratio(t), 0.0);
            }
            for t in s.saturation..=s.total {
                prop_assert_eq!(s.ratio(t), 1.0);
            }
        }
    }

    #[test]
    fn overlapping_spans_are_refused() {
        let error = Schedule::new(100, 40, 61, Curve::EaseOut, 3.0).unwrap_err();
        assert!(error.to_string().contains("40 + 61"), "{error}");
        assert!(Schedule::new(100, u64::MAX, 2, Curve::EaseOut, 3.0).is_err());
    }
}
