//! The kinds of tasks, one a file: which columns one reads, how a row becomes an example, the head,
//! the objective, and how answers are shown.
//!
//! A new one is a file with a [`TaskKind`], a name of [`Kind`], and an arm of the table here.

mod chat;
mod classify;
pub(crate) mod multilabel;
mod score;
mod text;
pub(crate) mod tokens;
mod traits;
mod write;

pub use traits::{ModelContext, Prediction, Processor, Splits, TaskKind, Usual};

use crate::task::{Kind, TaskSpec};
use aflora_models::Head;

/// What the kind of that name is.
pub fn of(kind: Kind) -> &'static dyn TaskKind {
    match kind {
        Kind::Chat => &chat::Chat,
        Kind::Classify => &classify::Classify,
        Kind::Multilabel => &multilabel::Multilabel,
        Kind::Score => &score::Score,
        Kind::Text => &text::Text,
        Kind::Tokens => &tokens::Tokens,
        Kind::Write => &write::Write,
    }
}

impl TaskSpec {
    /// What its kind is.
    pub fn rules(&self) -> &'static dyn TaskKind {
        of(self.kind)
    }

    /// What a model for it answers with.
    pub fn head(&self) -> Head {
        self.rules().head(self)
    }
}
