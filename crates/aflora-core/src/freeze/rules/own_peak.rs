//! A matrix beside its own past: what has sunk furthest below its highest score freezes first.
//!
//! ```text
//! s(t) = Ī ⊙ Ū                                 as the paper's text has it, every step (Eq. 2-4)
//! p(t) = max(p(t - ΔT), s(t))                  the highest of each element so far, every ΔT steps
//! score of a matrix = Σ s(t) / Σ p(t)          sums over its elements: 0 to 1
//! ```
//!
//! The paper compares |g| over matrices. How large that is depends on where a matrix stands: B of
//! the first feed-forward layer has a gradient of another size than A of the second, whatever either
//! has still to learn. Beside its own peak a matrix is measured by what became of its gradient alone,
//! and neither a matrix' size nor its layer decides.

use super::traits::{on_interval, Evidence, FreezeRule};
use crate::freeze::schedule::Schedule;
use crate::freeze::score::{Score, Smoothed};
use crate::freeze::FreezeConfig;
use crate::optim::Group;
use tch::Tensor;

const PEAK: &str = "freeze.peak";

/// A matrix' score is its share of its own peak.
#[derive(Debug)]
pub struct OwnPeak {
    score: Score,
    smoothed: Smoothed,
    interval: u64,
}

impl OwnPeak {
    pub fn new(config: &FreezeConfig) -> Self {
        let FreezeConfig { score, interval, .. } = *config;
        OwnPeak { score, smoothed: Smoothed::of(config), interval }
    }
}

impl FreezeRule for OwnPeak {
    fn observe(&self, t: u64, group: &mut Group, gradient: &Tensor) {
        let now = self.score.sensitivity(group.values(), gradient);
        self.smoothed.observe(group, &now);
        if t.is_multiple_of(self.interval) {
            let score = self.smoothed.score(group);
            let mut peak = group.state(PEAK);
            let higher = peak.maximum(&score);
            peak.copy_(&higher);
        }
    }

    fn evidence(&self, group: &mut Group) -> Evidence {
        let of = self.smoothed.score(group);
        // A test between two windows may find a new peak.
        let over = group.state(PEAK).maximum(&of);
        Evidence { of, over: Some(over) }
    }

    fn is_due(&self, t: u64, schedule: &Schedule) -> bool {
        on_interval(t, self.interval, schedule)
    }
}
