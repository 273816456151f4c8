//! What is wrong with a run before it trains.

use crate::config::ConfigErrors;

/// All that would end a run before it trains.
#[derive(Debug, thiserror::Error)]
#[error("{problems}")]
pub struct Refused {
    /// What it is.
    pub(crate) problems: ConfigErrors,
    /// Whether some of it is a wrong call, a wrong configuration or missing data: all else is only
    /// found where those are not.
    pub(crate) usage: bool,
}
