//! One example of a task, made of a row of its files.

use crate::metrics::Answer;

/// What a model is asked, and what is right for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The text, or the two of a pair.
    pub texts: Vec<String>,
    /// What is right.
    pub right: Answer,
}

/// A text, and the second of a pair.
pub fn pair(texts: &[String]) -> (&str, Option<&str>) {
    (texts.first().map_or("", String::as_str), texts.get(1).map(String::as_str))
}
