//! What is added to a row, under names that the row has not.

use crate::feed::row::Row;
use crate::task::TaskSpec;
use serde_json::Value;
use std::collections::HashSet;

/// The names of what is added to the rows of a file.
#[derive(Debug)]
pub struct Names {
    short: Vec<&'static str>,
    long: Vec<&'static str>,
    /// How far on they are: the short ones, the long ones, the long ones with a number.
    file: usize,
}

impl Names {
    /// The first that stand free in `row`, the file's first; before those of the task one for whose
    /// answers they are, if it `tells` that.
    pub fn beside(task: &TaskSpec, tells: bool, row: &Row) -> Names {
        let whose = ["adapter", "predicted_adapter"].map(|name| tells.then_some(name));
        let [short, long] = task.rules().names(task);
        let with = |whose: Option<&'static str>, names: &[&'static str]| {
            whose.into_iter().chain(names.iter().copied()).collect()
        };
        let mut names = Names { short: with(whose[0], short), long: with(whose[1], long), file: 0 };
        names.file = names.free(row);
        names
    }

    /// Those of the file.
    pub fn of_file(&self) -> Vec<String> {
        self.at(self.file)
    }

    /// Those for a row: the file's, unless it has one of them itself; then the next that are free,
    /// and true.
    pub fn of(&self, row: &Row) -> (Vec<String>, bool) {
        let own = self.free(row);
        (self.at(own), own != self.file)
    }

    /// How far on the first names are, from the file's, of which the row has none.
    fn free(&self, row: &Row) -> usize {
        let taken: HashSet<&str> = row.cells().map(|(name, _)| name).collect();
        let free = |&at: &usize| self.at(at).iter().all(|name| !taken.contains(name.as_str()));
        // Some are, among one more than the row has names.
        (self.file..).find(free).unwrap_or(self.file)
    }

    fn at(&self, at: usize) -> Vec<String> {
        match at {
            0 => self.short.iter().map(ToString::to_string).collect(),
            1 => self.long.iter().map(ToString::to_string).collect(),
            n => self.long.iter().map(|name| format!("{name}_{n}")).collect(),
        }
    }
}

/// Of probabilities by class the `most` highest, the highest first; other values as they are.
pub fn keep_highest(value: &mut Value, most: usize) {
    let Value::Object(by_class) = value else { return };
    let mut all: Vec<(String, Value)> = std::mem::take(by_class).into_iter().collect();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NEG_INFINITY);
    all.sort_by(|(_, a), (_, b)| number(b).total_cmp(&number(a)));
    by_class.extend(all.into_iter().take(most));
}
