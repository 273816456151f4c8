//! Answers to rows, and what is right for them.

use crate::bits;
use serde::{Deserialize, Serialize};

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// A class's number.
    Class(i64),
    /// Some of the classes: of each, in the order of their numbers, whether it is one of them.
    Set(Vec<bool>),
    /// A score.
    Score(#[serde(with = "bits")] f64),
    /// Several scores, in the task's order.
    Scores(#[serde(with = "bits::row")] Vec<f64>),
    /// A tag for each word.
    Tags(Vec<String>),
    /// A text.
    Text(String),
}

/// Answers of one sort, row by row.
#[derive(Debug, Clone, PartialEq)]
pub enum Answers {
    /// Classes' numbers.
    Classes(Vec<i64>),
    /// Sets of classes, each of the same length.
    Sets(Vec<Vec<bool>>),
    /// Scores.
    Scores(Vec<f64>),
    /// Several scores a row, the same number each.
    SeveralScores(Vec<Vec<f64>>),
    /// Tags of the words of each row.
    Tags(Vec<Vec<String>>),
    /// Texts.
    Texts(Vec<String>),
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// One of several classes.
    Class,
    /// Some of several classes.
    Set,
    /// A number, or several.
    Score,
    /// A tag for each word.
    Tags,
    /// A text.
    Text,
}

impl Sort {
    /// Several of them, in words.
    pub fn plural(self) -> &'static str {
        match self {
            Sort::Class => "classes",
            Sort::Set => "sets of classes",
            Sort::Score => "scores",
            Sort::Tags => "tags of words",
            Sort::Text => "texts",
        }
    }
}

impl Answers {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Answers::Classes(classes) => classes.len(),
            Answers::Sets(sets) => sets.len(),
            Answers::Scores(scores) => scores.len(),
            Answers::SeveralScores(scores) => scores.len(),
            Answers::Tags(tags) => tags.len(),
            Answers::Texts(texts) => texts.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of several scores a row, those in `column` alone.
    pub fn column(&self, column: usize) -> Answers {
        match self {
            Answers::SeveralScores(rows) => {
                Answers::Scores(rows.iter().filter_map(|row| row.get(column)).copied().collect())
            }
            other => other.clone(),
        }
    }
}

impl From<Answer> for Answers {
    fn from(answer: Answer) -> Answers {
        match answer {
            Answer::Class(class) => Answers::Classes(vec![class]),
            Answer::Set(set) => Answers::Sets(vec![set]),
            Answer::Score(score) => Answers::Scores(vec![score]),
            Answer::Scores(scores) => Answers::SeveralScores(vec![scores]),
            Answer::Tags(tags) => Answers::Tags(vec![tags]),
            Answer::Text(text) => Answers::Texts(vec![text]),
        }
    }
}

/// All of the sort of the first; those of another are left out.
impl FromIterator<Answer> for Answers {
    fn from_iter<I: IntoIterator<Item = Answer>>(answers: I) -> Self {
        let mut answers = answers.into_iter();
        let Some(first) = answers.next() else { return Answers::Classes(Vec::new()) };
        let mut all = Answers::from(first);
        for answer in answers {
            match (&mut all, answer) {
                (Answers::Classes(classes), Answer::Class(class)) => classes.push(class),
                (Answers::Sets(sets), Answer::Set(set)) => sets.push(set),
                (Answers::Scores(scores), Answer::Score(score)) => scores.push(score),
                (Answers::SeveralScores(all), Answer::Scores(scores)) => all.push(scores),
                (Answers::Tags(all), Answer::Tags(tags)) => all.push(tags),
                (Answers::Texts(texts), Answer::Text(text)) => texts.push(text),
                _ => {}
            }
        }
        all
    }
}
