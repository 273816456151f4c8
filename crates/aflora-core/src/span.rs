//! A stretch of training, written as people say it: epochs, a share of the run, or steps.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A stretch of training: `1 epoch`, `70%` of all steps, or `100 steps`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Span {
    /// A number of epochs; fractions are allowed.
    Epochs(f64),
    /// A share of the whole run, 0 to 1.
    Share(f64),
    /// A number of optimiser steps.
    Steps(u64),
}

impl Span {
    /// The span in optimiser steps, rounded down.
    ///
    /// A whole number of epochs is exact. `70%` of 780 steps is 546: a product that misses a
    /// whole number by rounding error alone counts as that number.
    pub fn steps(self, steps_per_epoch: u64, total_steps: u64) -> u64 {
        let floor = |x: f64| (x + 1e-9 * x.max(1.0)).floor() as u64;
        match self {
            Span::Epochs(n) => floor(n * steps_per_epoch as f64),
            Span::Share(s) => floor(s * total_steps as f64),
            Span::Steps(n) => n,
        }
    }
}

/// The length of a run, by which spans become steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLength {
    /// Optimiser steps an epoch.
    pub steps_per_epoch: u64,
    /// Optimiser steps in all.
    pub total_steps: u64,
}

/// The spans at the beginning and at the end of a run, in optimiser steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Steps of the span at the beginning.
    pub initial: u64,
    /// Steps of the span at the end.
    pub last: u64,
    /// Whether the run is too short for the spans as they were written.
    pub shortened: bool,
}

impl Ends {
    /// Both spans in a run of `total_steps`.
    ///
    /// A share of the run goes with its length. Epochs and steps do not, and give way in a run
    /// that is too short for both spans: they then take half of what the shares leave, in
    /// proportion to each other, and the other half stays between the ends. Two shares of more
    /// than the whole stay as they are, for no run is long enough for them.
    pub fn of(initial: Span, last: Span, steps_per_epoch: u64, total_steps: u64) -> Ends {
        let steps = [initial, last].map(|span| span.steps(steps_per_epoch, total_steps));
        let whole = Ends { initial: steps[0], last: steps[1], shortened: false };
        let fixed = [initial, last].map(|span| !matches!(span, Span::Share(_)));
        let sum = |of: bool| -> u128 {
            let chosen = steps.iter().zip(fixed).filter(|(_, fixed)| *fixed == of);
            chosen.map(|(&steps, _)| u128::from(steps)).sum()
        };
        let total = u128::from(total_steps);
        let (absolute, shares) = (sum(true), sum(false));
        if absolute + shares <= total || absolute == 0 || shares > total {
            return whole;
        }
        let room = (total - shares) / 2;
        let fit = |i: usize| match fixed[i] {
            // At most `room`, which is a number of steps of the run.
            true => (u128::from(steps[i]) * room / absolute) as u64,
            false => steps[i],
        };
        Ends { initial: fit(0), last: fit(1), shortened: true }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "examples": ["1 epoch", "70%", "100 steps"] })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::Epochs(n) if *n == 1.0 => write!(f, "1 epoch"),
            Span::Epochs(n) => write!(f, "{n} epochs"),
            // Rounded where only the binary form of the share differs from the decimal one.
            Span::Share(s) => write!(f, "{}%", (s * 1e12).round() / 1e10),
            Span::Steps(1) => write!(f, "1 step"),
            Span::Steps(n) => write!(f, "{n} steps"),
        }
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Span(text.to_string());
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| c == '%' || c.is_alphabetic() && c != 'e' || c == ' ');
        // `1e2 steps` has an `e` inside its number; `1 epoch` has one after a space.
        let (number, unit) = trimmed.split_at(unit_at.ok_or_else(bad)?);
        let value: f64 = number.parse().map_err(|_| bad())?;
        if !value.is_finite() || value < 0.0 {
            return Err(bad());
        }
        match unit.trim() {
            "epoch" | "epochs" => Ok(Span::Epochs(value)),
            "%" if value <= 100.0 => Ok(Span::Share(value / 100.0)),
            "step" | "steps" if value.fract() == 0.0 => Ok(Span::Steps(value as u64)),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_as_it_is_written() {
        for (text, span) in [
            ("1 epoch", Span::Epochs(1.0)),
            ("0.5 epochs", Span::Epochs(0.5)),
            ("70%", Span::Share(0.7)),
            ("6 %", Span::Share(0.06)),
            ("100 steps", Span::Steps(100)),
            ("0 steps", Span::Steps(0)),
        ] {
            let parsed: Span = text.parse().unwrap();
            assert_eq!(parsed, span, "{text}");
            assert_eq!(parsed.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_span_is_refused() {
        for text in ["", "7", "-1 epoch", "120%", "1.5 steps", "nan epochs", "1 day", "epoch"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn epochs_and_steps_give_way_in_a_short_run_and_shares_do_not() {
        let ends = |initial: &str, last: &str, per_epoch, total| {
            let (initial, last) = (initial.parse().unwrap(), last.parse().unwrap());
            let ends = Ends::of(initial, last, per_epoch, total);
            (ends.initial, ends.last, ends.shortened)
        };
        assert_eq!(ends("1 epoch", "70%", 25, 100), (25, 70, false), "four epochs have room");
        assert_eq!(ends("1 epoch", "70%", 30, 100), (30, 70, false), "just enough");
        assert_eq!(ends("1 epoch", "70%", 100, 100), (15, 70, true), "one epoch");
        assert_eq!(ends("10%", "200 steps", 100, 100), (10, 45, true));
        assert_eq!(ends("1 epoch", "300 steps", 100, 100), (12, 37, true), "one to three");
        assert_eq!(ends("60%", "70%", 100, 100), (60, 70, false), "never fits, nor may it");
        assert_eq!(ends("1 epoch", "100%", 100, 100), (0, 100, true));
        assert_eq!(ends("1 epoch", &format!("{} steps", u64::MAX), 9, 9), (0, 3, true));
    }

    #[test]
    fn the_papers_rte_spans_are_exact() {
        // RTE: 39 steps an epoch, 20 epochs.
        assert_eq!(Span::Epochs(1.0).steps(39, 780), 39);
        assert_eq!(Span::Share(0.7).steps(39, 780), 546);
        assert_eq!(Span::Epochs(14.0).steps(39, 780), 546);
        assert_eq!(Span::Share(0.06).steps(39, 780), 46);
    }
}
