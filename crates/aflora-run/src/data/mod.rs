//! Tasks and their examples.
//!
//! * [`task`]: the tasks that ask for labels as one table
//! * [`table`]: rows of CSV, TSV and JSONL files, for training and for `predict`
//! * [`tsv`], [`parquet`], [`reviews`]: the files in which examples come
//! * [`text`]: the tasks that ask for text, and their files
//! * [`bounded`]: records of a size that a record can have
//! * [`locate`]: where they are looked for

pub mod bounded;
mod error;
mod lines;
pub mod locate;
pub mod parquet;
pub mod reviews;
pub mod table;
pub mod task;
pub mod text;
pub mod tsv;

pub use error::DataError;
pub use locate::{Dataset, Locator, Source};
pub use task::{Labels, Task, TaskSpec, TASKS};
pub use text::{Pair, TextDataset, TextSpec, TEXT_TASKS};

/// One example: a text or a pair of texts, and what is right for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The text, or the first of a pair.
    pub text_a: String,
    /// The second of a pair.
    pub text_b: Option<String>,
    /// The class's number, or the score of a regression.
    pub label: f64,
}

/// Checks a training split as a whole: a classifier needs examples of at least two classes, a
/// regression needs scores that differ.
pub fn check_training(examples: &[Example], place: &str) -> Result<(), DataError> {
    let Some(first) = examples.first() else {
        return Err(DataError::Empty { place: place.to_string() });
    };
    if examples.iter().all(|e| e.label == first.label) {
        return Err(DataError::OneLabel {
            place: place.to_string(),
            label: first.label,
            rows: examples.len(),
        });
    }
    Ok(())
}
