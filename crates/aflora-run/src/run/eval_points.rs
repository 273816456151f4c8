//! Behind which of its steps a run is evaluated.

use crate::config::Every;

/// The steps behind which a run is evaluated: every so many, and always the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalPoints {
    every: u64,
    total: u64,
}

impl EvalPoints {
    /// Those of a run of `total` steps.
    pub fn new(every: Every, steps_per_epoch: u64, total: u64) -> Self {
        let every = match every {
            Every::Steps(n) => n,
            Every::Epochs(n) => n.saturating_mul(steps_per_epoch),
            // What a run finds must not depend on how fast a machine is.
            Every::Never | Every::Minutes(_) => total,
        };
        EvalPoints { every: every.max(1), total }
    }

    /// Steps from one to the next.
    pub fn every(&self) -> u64 {
        self.every.min(self.total)
    }

    /// Whether the run is evaluated behind so many steps.
    pub fn contains(&self, step: u64) -> bool {
        step > 0 && (step.is_multiple_of(self.every) || step == self.total)
    }

    /// The first that comes behind `step`; the run's last step where none does.
    pub fn after(&self, step: u64) -> u64 {
        (step / self.every + 1).saturating_mul(self.every).min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(every: &str, steps_per_epoch: u64, total: u64) -> Vec<u64> {
        let points = EvalPoints::new(every.parse().unwrap(), steps_per_epoch, total);
        let each = (0..=total).filter(|&step| points.contains(step)).collect::<Vec<_>>();
        let mut at = 0;
        for &point in &each {
            assert_eq!(points.after(at), point, "{every}");
            at = point;
        }
        assert_eq!(at, total);
        each
    }

    #[test]
    fn a_run_is_evaluated_every_so_often_and_at_its_end() {
        assert_eq!(steps("1 epoch", 4, 12), [4, 8, 12]);
        assert_eq!(steps("2 epochs", 4, 12), [8, 12]);
        assert_eq!(steps("1 epoch", 4, 10), [4, 8, 10], "`max_steps` within an epoch");
        assert_eq!(steps("5 steps", 4, 12), [5, 10, 12]);
        assert_eq!(steps("18446744073709551615 epochs", 4, 12), [12]);
        assert_eq!(steps("never", 4, 12), [12]);
    }
}
