//! A task's examples, from where they lie.

use super::example::Example;
use super::spec::TaskSpec;
use crate::feed::row::Row;
use crate::feed::{short, DataError, Dataset, Locator, Source};
use crate::metrics::Answer;

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
        self.tell_unseen(&dataset.train);
        Ok(dataset)
    }

    /// Says which classes no training row has.
    fn tell_unseen(&self, examples: &[Example]) {
        let mut seen = vec![false; self.labels.len()];
        for example in examples {
            let Answer::Class(class) = example.right else { return };
            if let Some(seen) = usize::try_from(class).ok().and_then(|class| seen.get_mut(class)) {
                *seen = true;
            }
        }
        let unseen = self.labels.iter().zip(seen).filter(|(_, seen)| !seen);
        let unseen: Vec<&str> = unseen.map(|(label, _)| label.as_str()).collect();
        if !unseen.is_empty() {
            let labels = short(&unseen.join(", "));
            tracing::warn!("no training row has these labels, which cannot be learned: {labels}");
        }
    }

    /// Checks a training split as a whole: a classifier needs examples of at least two classes, a
    /// regression needs scores that differ.
    ///
    /// # Errors
    /// There are no examples, or what is right is the same for all.
    pub fn check_training(&self, examples: &[Example], place: &str) -> Result<(), DataError> {
        let place = || place.to_string();
        let Some(first) = examples.first() else {
            return Err(DataError::Empty { place: place() });
        };
        let only = |example: &Example| self.rules().only_answer(self, &example.right);
        let Some(label) = only(first) else { return Ok(()) };
        match examples.iter().all(|example| only(example).as_ref() == Some(&label)) {
            true => Err(DataError::OneLabel { place: place(), label, rows: examples.len() }),
            false => Ok(()),
        }
    }

    /// The example in a row of `source`, or what is wrong with it.
    ///
    /// # Errors
    /// The row lacks a column, or what should be right is none of the task's answers.
    pub fn example(&self, row: &Row, source: &Source) -> Result<Example, String> {
        let kind = self.rules();
        let texts = match kind.whole(row, source)? {
            Some(texts) => texts,
            None => {
                let mut texts = Vec::new();
                for role in kind.inputs().iter().copied().flatten() {
                    if let Some(column) = source.columns.get(*role) {
                        let missing = || format!("there is no `{column}`, only {}", row.shown());
                        texts.extend(kind.input(row, column)?.ok_or_else(missing)?);
                    }
                }
                texts
            }
        };
        let example = Example { texts, right: kind.right(self, row, source)? };
        kind.check_example(&example)?;
        Ok(example)
    }
}
