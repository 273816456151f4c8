//! What makes answers of a body's hidden states.
//!
//! * `dense`: classes or a score of one token's state, through a hidden layer
//! * `last_token`: of a decoder, of the state of a text's last token
//! * `states`: which token's state that is
//! * `language`: the next token

pub(crate) mod dense;
pub(crate) mod language;
pub(crate) mod last_token;
pub(crate) mod states;

/// What a model answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// One of so many classes: a logit each.
    Classes(i64),
    /// One score.
    Score,
    /// Text, a token at a time.
    Language,
}

impl Head {
    /// How many logits a text gets; none of a language head, whose logits are the vocabulary's.
    pub fn labels(self) -> Option<i64> {
        match self {
            Head::Classes(n) => Some(n),
            Head::Score => Some(1),
            Head::Language => None,
        }
    }
}
