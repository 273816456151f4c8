//! What a matrix still gains: those whose moves lower the loss least freeze first.
//!
//! ```text
//! ḡ_j = mean of g over window j of ΔT steps        d_j = p(t_{j+1}) - p(t_j), the window's move
//! γ_j = -½ (ḡ_{j-1} + ḡ_{j+1}) ⊙ d_j              what the loss falls by along the move
//! Γ ← β₁ Γ + (1 - β₁) γ_j
//! score of a matrix = mean(Γ)                      over its elements
//! ```
//!
//! The loss falls along a move by the mean of the slopes at both of its ends. They are taken from the windows
//! before and behind it, whose batches had no part in the move, so that noise cancels: |g| ⊙ |update|,
//! which every rule by the size of gradients has in it, is large wherever batches are noisy, long after there
//! is nothing left to learn. Both ends, since AdamW's steps overshoot: by the slope at the end of
//! single steps alone a matrix that gains seems to lose.
//!
//! What a matrix may be expected to gain to the end of the run is that times the rates that are left over
//! the window's, Σ η(τ) / η; these are the same for all matrices at a test, and cancel in the order. The mean over elements
//! is the gain for one parameter of the budget.

use super::traits::{on_interval, Evidence, FreezeRule};
use crate::freeze::schedule::Schedule;
use crate::freeze::FreezeConfig;
use crate::optim::Group;
use tch::Tensor;

/// The mean gradient of the window under way, and of the last and the one before that are complete.
const MEANS: [&str; 3] =
    ["freeze.window_gradient", "freeze.last_gradient", "freeze.gradient_before"];
/// The values at the beginning of the window, and the move of the last.
const BEFORE: &str = "freeze.values_before";
const MOVE: &str = "freeze.last_move";
const GAIN: &str = "freeze.gain";

/// A matrix' score is its expected gain an element.
#[derive(Debug)]
pub struct ExpectedGain {
    beta1: f64,
    interval: u64,
}

impl ExpectedGain {
    pub fn new(config: &FreezeConfig) -> Self {
        ExpectedGain { beta1: config.beta1, interval: config.interval }
    }

    /// Takes in a complete window. What is not known yet at the beginning of a run is zero.
    fn turn(&self, group: &mut Group) {
        let begins = !group.has_state(BEFORE);
        let mut before = group.state(BEFORE);
        if !begins {
            let [now, mut last, mut older] = MEANS.map(|name| group.state(name));
            let mut moved = group.state(MOVE);
            let gain = (&older + &now) * &moved * -0.5;
            let _ = group.state(GAIN).lerp_(&gain, 1.0 - self.beta1);
            older.copy_(&last);
            last.copy_(&now);
            moved.copy_(&(group.values() - &before));
        }
        before.copy_(group.values());
    }
}

impl FreezeRule for ExpectedGain {
    fn observe(&self, t: u64, group: &mut Group, gradient: &Tensor) {
        let place = t % self.interval;
        if place == 0 {
            self.turn(group);
        }
        // The first of a window replaces the mean of the one before.
        let _ = group.state(MEANS[0]).lerp_(gradient, 1.0 / (place + 1) as f64);
    }

    fn evidence(&self, group: &mut Group) -> Evidence {
        group.state(GAIN).into()
    }

    fn is_due(&self, t: u64, schedule: &Schedule) -> bool {
        on_interval(t, self.interval, schedule)
    }
}
