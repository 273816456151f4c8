//! What makes answers of a body's hidden states.
//!
//! * `dense`: classes or a score of one token's state, through a hidden layer
//! * `last_token`: of a decoder, of the state of a text's last token
//! * `states`: which token's state that is
//! * `each_token`: classes of every token
//! * `language`: the next token

pub(crate) mod dense;
pub(crate) mod each_token;
pub(crate) mod language;
pub(crate) mod last_token;
pub(crate) mod states;

/// What a model answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A text with classes, so many of them: a logit each.
    Classes(i64),
    /// A text with so many scores.
    Scores(i64),
    /// Every token with classes, so many of them: a logit each.
    Tokens(i64),
    /// Text, a token at a time: a logit for each token of the vocabulary.
    Language,
}
