//! The released code's rule.
//!
//! Figure 5 of the paper (RTE, 48 candidates, T = 780) can only come from it:
//!
//! | step | 60 | 80 | 100 | 120 | 150 | 170 |
//! |---|---|---|---|---|---|---|
//! | r(t) | .29 | .51 | .68 | .80 | .92 | .965 |
//! | frozen of 48 in Figure 5 | 1 | 6 | 22 | 37 | 46 | 48 |
//! | frozen of 48 by `matrix_rank` | 13 | 24 | 32 | 38 | 44 | 46 |

use super::traits::{Evidence, FreezeRule};
use crate::freeze::schedule::Schedule;
use crate::freeze::score::{Score, Smoothed};
use crate::freeze::FreezeConfig;
use crate::optim::Group;
use tch::Tensor;

const WINDOW: &str = "freeze.window_mean";

/// The threshold is the r(t)-quantile of the elements' scores.
#[derive(Debug)]
pub struct ElementQuantile {
    score: Score,
    smoothed: Smoothed,
    interval: u64,
}

impl ElementQuantile {
    pub fn new(config: &FreezeConfig) -> Self {
        let smoothed = Smoothed { updated: true, ..Smoothed::of(config) };
        ElementQuantile { score: config.score, smoothed, interval: config.interval }
    }
}

impl FreezeRule for ElementQuantile {
    fn observe(&self, t: u64, group: &mut Group, gradient: &Tensor) {
        let now = self.score.sensitivity(group.values(), gradient);
        let place = t % self.interval;
        let mut window = group.state(WINDOW);
        if place == 0 {
            // The window before this step is complete: take it in, start anew.
            self.smoothed.observe(group, &window);
            window.copy_(&now);
        } else {
            let _ = window.lerp_(&now, 1.0 / (place + 1) as f64);
        }
    }

    fn evidence(&self, group: &mut Group) -> Evidence {
        self.smoothed.score(group).into()
    }

    /// A test is about windows that ended before its step.
    fn foreseen(&self, t: u64, group: &mut Group) -> Option<Evidence> {
        let window = group.state(WINDOW);
        let score = match t % self.interval {
            0 => self.smoothed.score_after(group, &window),
            _ => self.smoothed.score(group),
        };
        Some(score.into())
    }

    /// Every ΔT steps after t_i, and at every step past T - t_f.
    fn is_due(&self, t: u64, schedule: &Schedule) -> bool {
        let on_interval = t > schedule.initial && t.is_multiple_of(self.interval);
        on_interval || t > schedule.saturation
    }

    /// The k-th smallest element score, k = ⌊N · r⌋; k = 0 freezes nothing. At r = 1 everything left
    /// freezes: the strict comparison alone would keep a matrix whose element scores all equal the
    /// largest that is left, such as the 0 of matrices that never had a gradient.
    fn place(&self, n: i64, ratio: f64) -> Option<i64> {
        let k = (n as f64 * ratio) as i64;
        (k > 0).then_some(k)
    }
}
