//! One example of a task, made of a row of its files.

use super::spec::TaskSpec;
use super::Kind;
use crate::feed::row::Row;
use crate::feed::{short, DataError, Dataset, Locator, Source};
use crate::metrics::Answer;

/// A text or a pair of texts, and what is right for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The text, or the first of a pair.
    pub text_a: String,
    /// The second of a pair.
    pub text_b: Option<String>,
    /// What is right.
    pub right: Answer,
}

impl TaskSpec {
    /// Loads the task's examples from where they lie.
    ///
    /// # Errors
    /// They are nowhere (everything tried is listed), incomplete, damaged, or nothing can be
    /// learned from them.
    pub fn load(
        &self,
        locator: &Locator,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Dataset<Example>, DataError> {
        let parse = |row: &Row, source: &Source| self.example(row, source);
        let dataset = locator.load(&self.task, &self.dataset, parse, progress)?;
        self.check_training(&dataset.train, &format!("the training split of {}", self.task))?;
        Ok(dataset)
    }

    /// Checks a training split as a whole: a classifier needs examples of at least two classes, a
    /// regression needs scores that differ.
    ///
    /// # Errors
    /// There are no examples, or all are of one class or have one score.
    pub fn check_training(&self, examples: &[Example], place: &str) -> Result<(), DataError> {
        let place = || place.to_string();
        let Some(first) = examples.first() else {
            return Err(DataError::Empty { place: place() });
        };
        let label = match &first.right {
            Answer::Class(class) => self.label(*class).to_string(),
            Answer::Score(score) => score.to_string(),
            Answer::Text(_) => return Ok(()),
        };
        match examples.iter().all(|example| example.right == first.right) {
            true => Err(DataError::OneLabel { place: place(), label, rows: examples.len() }),
            false => Ok(()),
        }
    }

    /// The example in a row of `source`, or what is wrong with it.
    ///
    /// # Errors
    /// The row lacks a column, or what should be right is none of the task's answers.
    pub fn example(&self, row: &Row, source: &Source) -> Result<Example, String> {
        let text = |role: &str| source.columns.get(role).map(|name| row.text(name)).transpose();
        let mut texts = Vec::new();
        for role in self.kind.texts().iter().copied().flatten() {
            texts.extend(text(role)?);
        }
        let mut texts = texts.into_iter();
        let right = self.kind.right();
        let column = source.columns.get(right).map_or(right, String::as_str);
        let right = match self.kind {
            Kind::Write => Answer::Text(row.text(column)?),
            Kind::Score => Answer::Score(self.parse_score(&row.label(column)?)?),
            Kind::Classify if source.numbered_labels => {
                Answer::Class(self.parse_number(&row.label(column)?)?)
            }
            Kind::Classify => Answer::Class(self.parse_label(&row.label(column)?)?),
        };
        Ok(Example { text_a: texts.next().unwrap_or_default(), text_b: texts.next(), right })
    }

    /// A class by the value that the task's own files have for it.
    fn parse_label(&self, text: &str) -> Result<i64, String> {
        match self.class_of(text) {
            Some(class) => Ok(class as i64),
            None => {
                Err(format!("the label is `{}`, but must be one of {:?}", short(text), self.labels))
            }
        }
    }

    /// A class by its number.
    fn parse_number(&self, text: &str) -> Result<i64, String> {
        let last = self.labels.len().saturating_sub(1);
        let number = text.parse::<f64>().ok().filter(|n| n.fract() == 0.0);
        match number.filter(|n| (0.0..=last as f64).contains(n)) {
            Some(class) => Ok(class as i64),
            None => Err(format!("the label is {}, but must be 0 to {last}", short(text))),
        }
    }

    fn parse_score(&self, text: &str) -> Result<f64, String> {
        let score = text.parse::<f64>().ok().filter(|score| score.is_finite());
        match (score, self.range) {
            (Some(score), Some([low, high])) if (low..=high).contains(&score) => Ok(score),
            (Some(score), None) => Ok(score),
            (_, Some([low, high])) => {
                Err(format!("the score is `{}`, but must be between {low} and {high}", short(text)))
            }
            (None, None) => Err(format!("the score is `{}`, but must be a number", short(text))),
        }
    }
}
