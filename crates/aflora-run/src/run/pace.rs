//! How fast steps go, and how long the rest will take.

use crate::ui::seconds as in_words;
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

/// How long the steps that are left will take: told once that is known, and again when it proves to
/// be far off.
///
/// The first steps say little: memory is taken, kernels are made for each shape that comes. So the
/// pace is that of the later half of the steps so far, looked at whenever their number has doubled:
/// the first time after [`Self::ENOUGH`] seconds.
#[derive(Debug, Default)]
pub struct Forecast {
    steps: u64,
    seconds: f64,
    /// Steps and seconds when their number last was a power of two.
    before: (u64, f64),
    /// Seconds that all steps of this process were last said to take.
    told: Option<f64>,
}

impl Forecast {
    /// Steps to see at least before anything is said.
    const LEAST: u64 = 4;
    /// Seconds, likewise.
    const ENOUGH: f64 = 2.0;
    /// A forecast of what is left is far off by this factor,
    const FACTOR: f64 = 1.5;
    /// if it is by so many seconds, too.
    const WORTH: f64 = 15.0;

    /// Takes a step in, with so many `left`; gives the words to say of these, if there are any.
    pub fn step(&mut self, seconds: f64, left: u64) -> Option<ForecastMessage> {
        self.steps += 1;
        self.seconds += seconds;
        if !self.steps.is_power_of_two() {
            return None;
        }
        let (steps, before) = std::mem::replace(&mut self.before, (self.steps, self.seconds));
        if left == 0 || self.steps < Self::LEAST || self.seconds < Self::ENOUGH {
            return None;
        }
        let rest = (self.seconds - before) / (self.steps - steps) as f64 * left as f64;
        let foretold = self.told.map(|total| (total - self.seconds).max(0.0));
        if let Some(foretold) = foretold {
            let (less, more) = (rest.min(foretold), rest.max(foretold));
            if more < Self::FACTOR * less || more - less < Self::WORTH {
                return None;
            }
        }
        self.told = Some(self.seconds + rest);
        let mut text = match foretold {
            None => format!("{} steps took {:.1} s; ", self.steps, self.seconds),
            Some(foretold) => format!(
                "steps are {} than foretold, {} for the rest; ",
                if rest > foretold { "slower" } else { "faster" },
                in_words(foretold)
            ),
        };
        text += &format!("{left} more will take about {}, and evaluations on top", in_words(rest));
        let long = rest > LONG;
        if long {
            text += ". A GPU, or `limit=`, `epochs=` and `max_length=`, shorten it.";
        }
        Some(ForecastMessage { text, long })
    }
}

/// What is said of how long the run will take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForecastMessage {
    /// The message, in one line.
    pub text: String,
    /// Whether the run will be long for a CPU.
    pub long: bool,
}

impl ForecastMessage {
    /// Logs the message: as a warning where the run will be long for a CPU.
    pub fn say(&self) {
        match self.long {
            true => tracing::warn!("{}", self.text),
            false => tracing::info!("{}", self.text),
        }
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

    /// What is said of a run whose `n`-th step takes so many seconds, each with the number of the
    /// step after which it is said.
    fn said(total: u64, seconds: impl Fn(u64) -> f64) -> Vec<(u64, ForecastMessage)> {
        let mut forecast = Forecast::default();
        let step = |n| Some((n, forecast.step(seconds(n), total - n)?));
        (1..=total).filter_map(step).collect()
    }

    #[test]
    fn slow_first_steps_are_not_taken_for_the_pace() {
        // The first four take four times as long, as the shapes of their batches are new.
        let said = said(320, |n| if n <= 4 { 0.45 } else { 0.1 });
        assert_eq!(said.len(), 1, "{said:?}");
        let (after, words) = &said[0];
        let expected = "8 steps took 2.2 s; 312 more will take about 31 s, and evaluations on top";
        assert_eq!((*after, words.text.as_str(), words.long), (8, expected, false));
    }

    #[test]
    fn a_forecast_that_proves_far_off_is_corrected_and_told_again() {
        // Another program takes the cores after a while.
        let said = said(1000, |n| if n <= 40 { 0.1 } else { 0.4 });
        let texts: Vec<(u64, &str)> = said.iter().map(|(n, w)| (*n, w.text.as_str())).collect();
        let expected = [
            (32, "32 steps took 3.2 s; 968 more will take about 97 s, and evaluations on top"),
            (
                64,
                "steps are slower than foretold, 86 s for the rest; 936 more will take about \
                 5 min 04 s, and evaluations on top",
            ),
            (
                512,
                "steps are slower than foretold, 2 min 05 s for the rest; 488 more will take about \
                 3 min 15 s, and evaluations on top",
            ),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_steady_pace_is_told_once_and_a_short_run_not_at_all() {
        assert_eq!(said(100_000, |n| 0.1 + (n % 7) as f64 / 100.0).len(), 1);
        assert_eq!(said(30, |_| 0.01), []);
        let long = said(500, |_| 20.0);
        assert!(long.len() == 1 && long[0].1.long && long[0].1.text.contains("`limit=`"));
    }
}
