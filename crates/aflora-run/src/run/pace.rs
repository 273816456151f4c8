//! How fast steps go, and how long the rest will take.

use crate::ui::seconds;
use anyhow::{ensure, Result};
use serde::{Deserialize, Serialize};

/// A run this long on a CPU is announced as long.
const LONG: f64 = 900.0;

/// What steps took: exactly in sum, and a sample for the median that does not grow with the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepClock {
    steps: u64,
    seconds: f64,
    /// The seconds of every 2ᵏ-th step.
    sample: Vec<f64>,
    k: u32,
}

impl StepClock {
    /// As many as are kept at most.
    const MOST: usize = 4096;

    /// Takes a step in.
    pub fn add(&mut self, seconds: f64) {
        if self.steps.is_multiple_of(1 << self.k) {
            if self.sample.len() == Self::MOST {
                let mut place = 0..;
                self.sample.retain(|_| place.next().is_some_and(|i: usize| i.is_multiple_of(2)));
                self.k += 1;
            }
            if self.steps.is_multiple_of(1 << self.k) {
                self.sample.push(seconds);
            }
        }
        self.steps += 1;
        self.seconds += seconds;
    }

    /// Whether these can be the times of `steps` steps.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, steps: u64) -> Result<()> {
        ensure!(self.steps <= steps, "clock.steps is {}, not 0 to {steps}", self.steps);
        // It doubles its stride when the sample is full, never before.
        let stride = 1u64.checked_shl(self.k).filter(|&stride| stride <= steps.max(1));
        ensure!(stride.is_some(), "clock.k is {} behind {steps} steps", self.k);
        let most = (self.steps as usize).min(Self::MOST);
        ensure!(self.sample.len() <= most, "clock.sample has {} numbers", self.sample.len());
        Ok(())
    }

    /// Seconds a step.
    pub fn mean(&self) -> f64 {
        self.seconds / self.steps as f64
    }

    /// The median of the sample.
    pub fn median(&self) -> f64 {
        let mut sorted = self.sample.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Says how long `steps` more will take, from the seconds of the first three.
pub fn announce(three: &[f64], steps: u64) {
    let three: f64 = three.iter().sum();
    let left = three / 3.0 * steps as f64;
    let words = format!(
        "three steps took {three:.1} s; {steps} more will take about {}, and evaluations on top",
        seconds(left)
    );
    if left > LONG {
        tracing::warn!("{words}. A GPU, or `limit=`, `epochs=` and `max_length=`, shorten it.");
    } else {
        tracing::info!("{words}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_needs_no_more_room_however_long_the_run() {
        let mut clock = StepClock::default();
        for i in 0..100_000 {
            clock.add(f64::from(i % 101));
        }
        assert!(clock.sample.len() <= StepClock::MOST && clock.sample.len() >= StepClock::MOST / 4);
        assert!((clock.median() - 50.0).abs() < 3.0, "{}", clock.median());
        assert!((clock.mean() - 50.0).abs() < 0.1);
    }
}
