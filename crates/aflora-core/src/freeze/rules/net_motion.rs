//! A matrix beside its own noise: what only trembles freezes first.
//!
//! ```text
//! d = p(t) - p(t - ΔT)                         a matrix' move over a window of ΔT steps
//! D ← β₁ D + (1 - β₁) d                        its average move
//! Q ← β₁ Q + (1 - β₁) d ⊙ d                    the average square of its moves
//! score of a matrix = Σ D² / Σ Q               sums over its elements: 0 to 1
//! ```
//!
//! A matrix that still goes somewhere makes moves that add up, and its score is near 1; one that has
//! arrived is thrown about by the noise of its batches, its moves cancel, and its score falls to what
//! independent moves have, (1 - β₁) / (1 + β₁). AdamW moves both equally far, so that neither |g| nor
//! the size of the updates tells them apart. The score has no unit: rate, size and layer cancel, and so
//! does the start of both averages from 0, which is the same for all.
//!
//! Windows and not steps, since AdamW's momentum makes neighbouring updates alike. The decay of weights
//! is a steady move of every matrix, and counts as one.

use super::traits::{on_interval, Evidence, FreezeRule};
use crate::freeze::schedule::Schedule;
use crate::freeze::FreezeConfig;
use crate::optim::Group;
use tch::Tensor;

const BEFORE: &str = "freeze.values_before";
const MOVE: &str = "freeze.mean_move";
const SQUARE: &str = "freeze.mean_square_move";

/// A matrix' score is its net motion's share of all of its motion.
#[derive(Debug)]
pub struct NetMotion {
    beta1: f64,
    interval: u64,
}

impl NetMotion {
    pub fn new(config: &FreezeConfig) -> Self {
        NetMotion { beta1: config.beta1, interval: config.interval }
    }
}

impl FreezeRule for NetMotion {
    /// What moved is seen in the values: the gradient is not looked at.
    fn observe(&self, t: u64, group: &mut Group, _: &Tensor) {
        if !t.is_multiple_of(self.interval) {
            return;
        }
        let begins = !group.has_state(BEFORE);
        let mut before = group.state(BEFORE);
        if !begins {
            let moved = group.values() - &before;
            let _ = group.state(MOVE).lerp_(&moved, 1.0 - self.beta1);
            let _ = group.state(SQUARE).lerp_(&moved.square(), 1.0 - self.beta1);
        }
        before.copy_(group.values());
    }

    fn evidence(&self, group: &mut Group) -> Evidence {
        Evidence { of: group.state(MOVE).square(), over: Some(group.state(SQUARE)) }
    }

    fn is_due(&self, t: u64, schedule: &Schedule) -> bool {
        on_interval(t, self.interval, schedule)
    }
}
