//! A stretch of training, written as people say it: epochs, a share of the run, or steps.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A stretch of training: `1 epoch`, `70%` of all steps, or `100 steps`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Span {
    /// So many epochs; fractions are allowed.
    Epochs(f64),
    /// A share of the whole run, 0 to 1.
    Share(f64),
    /// So many optimiser steps.
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
    fn the_papers_rte_spans_are_exact() {
        // RTE: 39 steps an epoch, 20 epochs.
        assert_eq!(Span::Epochs(1.0).steps(39, 780), 39);
        assert_eq!(Span::Share(0.7).steps(39, 780), 546);
        assert_eq!(Span::Epochs(14.0).steps(39, 780), 546);
        assert_eq!(Span::Share(0.06).steps(39, 780), 46);
    }
}
