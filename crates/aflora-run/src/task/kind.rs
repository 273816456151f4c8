//! The kinds of tasks: what they read, what they answer with.

use crate::metrics::Sort;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A text, or a pair of them, gets one of several classes.
    #[default]
    Classify,
    /// A text, or a pair of them, gets a number.
    Score,
    /// A text gets a text.
    Write,
}

impl Kind {
    /// Every kind by its name.
    pub const NAMES: [&'static str; 3] = ["classify", "score", "write"];

    /// What the columns of a source may be for: one of these lists of texts.
    pub fn texts(self) -> &'static [&'static [&'static str]] {
        match self {
            Kind::Classify | Kind::Score => &[&["text"], &["text_a", "text_b"]],
            Kind::Write => &[&["input"]],
        }
    }

    /// What the column with what is right is for.
    pub fn right(self) -> &'static str {
        match self {
            Kind::Classify | Kind::Score => "label",
            Kind::Write => "target",
        }
    }

    /// What it answers with.
    pub fn answers(self) -> Sort {
        match self {
            Kind::Classify => Sort::Class,
            Kind::Score => Sort::Score,
            Kind::Write => Sort::Text,
        }
    }

    /// What it asks for, in words.
    pub fn asks_for(self) -> &'static str {
        match self {
            Kind::Classify => "asks for labels",
            Kind::Score => "asks for a score",
            Kind::Write => "asks for text",
        }
    }
}
