//! Linear warm-up, then linear decay to zero, as Hugging Face's Trainer has it.

use serde::{Deserialize, Serialize};

/// The learning rate's factor over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinearWarmup {
    /// Steps from 0 up to the full rate.
    pub warmup: u64,
    /// Steps of the run; the factor is 0 from there on.
    pub total: u64,
}

impl LinearWarmup {
    /// The factor for step `t`, the number of completed steps: 0 to 1.
    pub fn factor(&self, t: u64) -> f64 {
        if t < self.warmup {
            return t as f64 / self.warmup as f64;
        }
        let left = self.total.saturating_sub(t) as f64;
        left / (self.total.saturating_sub(self.warmup).max(1)) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_rises_to_one_and_falls_to_zero() {
        let s = LinearWarmup { warmup: 4, total: 14 };
        let f: Vec<f64> = (0..=15).map(|t| s.factor(t)).collect();
        assert_eq!(f[..5], [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert!((f[9] - 0.5).abs() < 1e-15);
        assert_eq!(f[14..], [0.0, 0.0]);
    }

    #[test]
    fn without_warm_up_the_first_step_has_the_full_rate() {
        assert_eq!(LinearWarmup { warmup: 0, total: 10 }.factor(0), 1.0);
        assert_eq!(LinearWarmup { warmup: 3, total: 3 }.factor(3), 0.0);
    }
}
