//! The names of the kinds of tasks; what each is, is in [`kinds`](crate::kinds).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes the kinds of their names.
macro_rules! kinds {
    ($( $(#[$about:meta])* $name:literal => $variant:ident, )*) => {
        /// A kind of task.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum Kind {
            $( $(#[$about])* #[serde(rename = $name)] $variant, )*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant),*];

            /// The names of all kinds.
            pub const NAMES: &'static [&'static str] = &[$($name),*];
        }
    };
}

kinds! {
    /// A conversation gets its next turn.
    "chat" => Chat,
    /// A text, or a pair of them, gets one of several classes.
    #[default]
    "classify" => Classify,
    /// A text, or a pair of them, gets any of several labels.
    "multilabel" => Multilabel,
    /// A text, or a pair of them, gets a number, or several.
    "score" => Score,
    /// Texts are learned as they stand.
    "text" => Text,
    /// Each word of a text gets a tag.
    "tokens" => Tokens,
    /// A text gets a text.
    "write" => Write,
}
