//! How often something is done while a run goes on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `5 minutes`, `200 steps`, `1 epoch` or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Every {
    /// When so many minutes have gone by.
    Minutes(f64),
    /// After so many steps.
    Steps(u64),
    /// After so many epochs, behind their evaluation where there is one.
    Epochs(u64),
    /// Not at all.
    Never,
}

impl Every {
    /// Whether it is time after a step: `completed` steps are done, the last time was `ago`.
    pub fn due_after_step(self, completed: u64, ago: Duration) -> bool {
        match self {
            Every::Steps(n) => completed.is_multiple_of(n),
            Every::Minutes(n) => ago.as_secs_f64() >= 60.0 * n,
            Every::Epochs(_) | Every::Never => false,
        }
    }

    /// Whether it is time after so many epochs, and what is evaluated behind them.
    pub fn due_after_epoch(self, epochs: u64, ago: Duration) -> bool {
        match self {
            Every::Epochs(n) => epochs.is_multiple_of(n),
            other => matches!(other, Every::Minutes(_)) && other.due_after_step(0, ago),
        }
    }
}

impl schemars::JsonSchema for Every {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Every".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let examples = ["5 minutes", "200 steps", "1 epoch", "never"];
        schemars::json_schema!({ "type": "string", "examples": examples })
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = |n: &dyn fmt::Display, one: bool, unit: &str| {
            write!(f, "{n} {unit}{}", if one { "" } else { "s" })
        };
        match self {
            Every::Minutes(n) => words(n, *n == 1.0, "minute"),
            Every::Steps(n) => words(n, *n == 1, "step"),
            Every::Epochs(n) => words(n, *n == 1, "epoch"),
            Every::Never => write!(f, "never"),
        }
    }
}

/// A text that does not say how often.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` does not say how often; write `5 minutes`, `200 steps`, `1 epoch` or `never`")]
pub struct NoInterval(String);

impl FromStr for Every {
    type Err = NoInterval;

    fn from_str(text: &str) -> Result<Self, NoInterval> {
        let bad = || NoInterval(text.to_string());
        let trimmed = text.trim();
        if trimmed == "never" {
            return Ok(Every::Never);
        }
        let (number, unit) = trimmed.split_once(' ').ok_or_else(bad)?;
        let whole = || number.parse().ok().filter(|n| *n > 0).ok_or_else(bad);
        match unit.trim() {
            "minute" | "minutes" => {
                let minutes = number.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
                Ok(Every::Minutes(minutes.ok_or_else(bad)?))
            }
            "step" | "steps" => Ok(Every::Steps(whole()?)),
            "epoch" | "epochs" => Ok(Every::Epochs(whole()?)),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Every {
    type Error = NoInterval;
    fn try_from(text: String) -> Result<Self, NoInterval> {
        text.parse()
    }
}

impl From<Every> for String {
    fn from(every: Every) -> String {
        every.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_it_is_written() {
        for text in
            ["5 minutes", "1 minute", "0.5 minutes", "200 steps", "1 step", "1 epoch", "never"]
        {
            assert_eq!(text.parse::<Every>().unwrap().to_string(), text);
        }
        for text in
            ["", "5", "0 steps", "1.5 steps", "-1 minutes", "nan minutes", "5 days", "always"]
        {
            assert!(text.parse::<Every>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn steps_count_from_the_start_and_epochs_wait_for_their_evaluation() {
        let ago = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(Every::Steps(3).due_after_step(6, ago(0)));
        assert!(!Every::Steps(3).due_after_step(7, ago(9)));
        assert!(!Every::Steps(3).due_after_epoch(3, ago(9)));
        assert!(Every::Minutes(5.0).due_after_step(7, ago(5)));
        assert!(Every::Minutes(5.0).due_after_epoch(7, ago(5)));
        assert!(!Every::Minutes(5.0).due_after_step(7, ago(4)));
        assert!(Every::Epochs(2).due_after_epoch(4, ago(0)));
        assert!(!Every::Epochs(2).due_after_step(4, ago(9)));
        assert!(
            !Every::Never.due_after_step(1, ago(9)) && !Every::Never.due_after_epoch(1, ago(9))
        );
    }
}
