//! How many adapter parameters trained: at the start, at the end, on average over the run.
//!
//! The paper's 0.14M is the time average, Σ over steps of the count that trained, over T. The
//! task head is not counted, neither there nor here. The count of a step is taken after that
//! step's freezes, since a matrix that freezes at a step is not updated by it.

use crate::error::misfit;
use crate::Result;
use serde::{Deserialize, Serialize};

/// Trainable adapter parameters over the steps of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accounting {
    /// How many trained before the first step.
    pub at_start: i64,
    /// How many train since the last step so far.
    pub at_end: i64,
    /// Steps counted so far.
    pub steps: u64,
    /// The counts of all steps, added up.
    sum: i128,
    /// Steps after which each matrix stood still: (name, completed steps when it froze). One that
    /// trained again is not among them until it freezes anew.
    pub frozen_at: Vec<(String, u64)>,
}

impl Accounting {
    /// A run that starts with `at_start` trainable adapter parameters.
    pub fn new(at_start: i64) -> Self {
        Accounting { at_start, at_end: at_start, steps: 0, sum: 0, frozen_at: Vec::new() }
    }

    /// One step, in which `trainable` parameters were updated.
    pub fn step(&mut self, trainable: i64) {
        self.at_end = trainable;
        self.steps += 1;
        self.sum += i128::from(trainable);
    }

    /// A matrix froze at step `t`.
    pub fn froze(&mut self, name: &str, t: u64) {
        self.frozen_at.push((name.to_string(), t));
    }

    /// A matrix that was frozen trains again.
    pub fn thawed(&mut self, name: &str) {
        self.frozen_at.retain(|(frozen, _)| frozen != name);
    }

    /// Whether these are numbers of `steps` steps of one run.
    pub(crate) fn check(&self, steps: u64) -> Result<()> {
        let Accounting { at_start, at_end, sum, frozen_at, .. } = self;
        if self.steps != steps {
            return Err(misfit("accounting.steps", self.steps, steps));
        }
        for (what, count) in [("accounting.at_start", *at_start), ("accounting.at_end", *at_end)] {
            if count < 0 {
                return Err(misfit(what, count, "no negative number"));
            }
        }
        let most = i128::from(i64::MAX) * i128::from(steps);
        if !(0..=most).contains(sum) {
            return Err(misfit("accounting.sum", sum, format!("0 to {most}")));
        }
        match frozen_at.iter().find(|(_, at)| *at > steps) {
            Some((name, at)) => Err(misfit(name, format!("frozen at {at}"), steps)),
            None => Ok(()),
        }
    }

    /// The average over the steps so far; the count at the start before the first.
    pub fn time_average(&self) -> f64 {
        if self.steps == 0 {
            return self.at_start as f64;
        }
        self.sum as f64 / self.steps as f64
    }
}
