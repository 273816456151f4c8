//! How the rows of a split fall into classes: those that are right, and those that were answered.
//!
//! Precision, recall and F1 are defined here alone; metrics and reports make theirs of these
//! counts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often a class was right, answered, and both at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows of the class: TP + FN.
    pub right: u64,
    /// Rows that were given the class: TP + FP.
    pub answered: u64,
    /// Rows of the class that were given it: TP.
    pub hits: u64,
}

impl Counts {
    /// Counts a row, by whether it is of the class and whether it was given the class.
    pub fn add(&mut self, right: bool, answered: bool) {
        self.right += u64::from(right);
        self.answered += u64::from(answered);
        self.hits += u64::from(right && answered);
    }

    /// Of these rows and of others together.
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            right: self.right.saturating_add(other.right),
            answered: self.answered.saturating_add(other.answered),
            hits: self.hits.saturating_add(other.hits),
        }
    }

    /// TP / (TP + FP); 0 where nothing was given the class.
    pub fn precision(self) -> f64 {
        share(self.hits, self.answered)
    }

    /// TP / (TP + FN); 0 where nothing is of the class.
    pub fn recall(self) -> f64 {
        share(self.hits, self.right)
    }

    /// 2 TP / (2 TP + FP + FN); 0 where nothing was given the class that is of it.
    pub fn f1(self) -> f64 {
        2.0 * share(self.hits, self.right.saturating_add(self.answered))
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if part == 0 {
        return 0.0;
    }
    part as f64 / whole as f64
}

/// The answers to a split's rows, class by class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByClass {
    /// The split.
    pub split: String,
    /// The classes in the order of their numbers.
    pub classes: Vec<Class>,
    /// What was answered in place of what, where each row has one class: the cells of the confusion
    /// matrix that hold a row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Confused>,
}

/// A class with its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Its name.
    pub label: String,
    /// How often it was right, answered, and both.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Rows of one class that were given one class: in files `[right, answered, rows]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(usize, usize, u64)", into = "(usize, usize, u64)")]
pub struct Confused {
    /// The number of the class that is right.
    pub right: usize,
    /// The number of the class that was answered.
    pub answered: usize,
    /// How many rows.
    pub rows: u64,
}

impl From<(usize, usize, u64)> for Confused {
    fn from((right, answered, rows): (usize, usize, u64)) -> Self {
        Confused { right, answered, rows }
    }
}

impl From<Confused> for (usize, usize, u64) {
    fn from(Confused { right, answered, rows }: Confused) -> Self {
        (right, answered, rows)
    }
}

impl ByClass {
    /// Rows of which each has one class and was given one, as numbers into `labels`; others than
    /// these are left out.
    pub fn of_classes(split: &str, labels: &[&str], answers: &[i64], right: &[i64]) -> ByClass {
        let mut cells = BTreeMap::<(usize, usize), u64>::new();
        let number = |class: i64| usize::try_from(class).ok().filter(|&n| n < labels.len());
        for (answered, right) in answers.iter().zip(right) {
            let Some(cell) = number(*right).zip(number(*answered)) else { continue };
            *cells.entry(cell).or_default() += 1;
        }
        let mut counts = vec![Counts::default(); labels.len()];
        for (&(right, answered), &rows) in &cells {
            counts[right].right += rows;
            counts[answered].answered += rows;
            counts[right].hits += if right == answered { rows } else { 0 };
        }
        let confused = |((right, answered), rows)| Confused { right, answered, rows };
        ByClass {
            confusion: cells.into_iter().map(confused).collect(),
            ..Self::of_counts(split, labels, counts)
        }
    }

    /// Classes of which a row may have several, or none, with their counts.
    pub fn of_counts(
        split: &str,
        labels: &[&str],
        counts: impl IntoIterator<Item = Counts>,
    ) -> ByClass {
        let class = |(label, counts): (&&str, Counts)| Class { label: label.to_string(), counts };
        ByClass {
            split: split.to_string(),
            classes: labels.iter().zip(counts).map(class).collect(),
            confusion: Vec::new(),
        }
    }

    /// The confusion matrix: of each class that is right, in its row, how many were given each.
    /// None where a row may have several classes, where there are more than `most` of them, or
    /// where a cell lies outside, for it may come out of a file.
    pub fn matrix(&self, most: usize) -> Option<Vec<Vec<u64>>> {
        let classes = self.classes.len();
        if self.confusion.is_empty() || classes > most {
            return None;
        }
        let mut matrix = vec![vec![0; classes]; classes];
        for &Confused { right, answered, rows } in &self.confusion {
            *matrix.get_mut(right)?.get_mut(answered)? = rows;
        }
        Some(matrix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fall_into_the_cells_of_a_confusion_matrix() {
        let of = ByClass::of_classes("dev", &["a", "b", "c"], &[0, 1, 1, 1, 9], &[0, 0, 1, 1, 0]);
        let counts = |right, answered, hits| Counts { right, answered, hits };
        let found: Vec<Counts> = of.classes.iter().map(|class| class.counts).collect();
        assert_eq!(found, [counts(2, 1, 1), counts(2, 3, 2), counts(0, 0, 0)]);
        assert_eq!(of.matrix(3).unwrap(), [[1, 1, 0], [0, 2, 0], [0, 0, 0]]);
        assert_eq!(of.matrix(2), None);
        let [a, b, c] = &found[..] else { panic!() };
        assert_eq!((a.precision(), a.recall(), a.f1()), (1.0, 0.5, 2.0 / 3.0));
        assert_eq!((b.precision(), b.recall(), b.f1()), (2.0 / 3.0, 1.0, 0.8));
        assert_eq!((c.precision(), c.recall(), c.f1()), (0.0, 0.0, 0.0));
    }

    #[test]
    fn what_is_written_is_read_again_and_a_cell_outside_makes_no_matrix() {
        let of = ByClass::of_classes("dev", &["a", "b"], &[0, 1], &[1, 1]);
        let text = serde_json::to_string(&of).unwrap();
        let expected =
            r#"{"split":"dev","classes":[{"label":"a","right":0,"answered":1,"hits":0},"#;
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with(r#""confusion":[[1,0,1],[1,1,1]]}"#), "{text}");
        assert_eq!(serde_json::from_str::<ByClass>(&text).unwrap(), of);
        let outside = text.replace("[1,0,1]", "[2,0,1]");
        assert_eq!(serde_json::from_str::<ByClass>(&outside).unwrap().matrix(9), None);
    }
}
