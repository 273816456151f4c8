//! Which parts of a conversation are learned.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What of a conversation the loss is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LossOn {
    /// The assistant's turns, each with what ends it.
    #[default]
    Assistant,
    /// Its last turn alone.
    Last,
    /// Every token.
    All,
}
