//! Answers to rows, and what is right for them.

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A class's number.
    Class(i64),
    /// A score.
    Score(f64),
    /// A text.
    Text(String),
}

/// Answers of one sort, row by row.
#[derive(Debug, Clone, PartialEq)]
pub enum Answers {
    /// Classes' numbers.
    Classes(Vec<i64>),
    /// Scores.
    Scores(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// One of several classes.
    Class,
    /// A number.
    Score,
    /// A text.
    Text,
}

impl Answers {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Answers::Classes(classes) => classes.len(),
            Answers::Scores(scores) => scores.len(),
            Answers::Texts(texts) => texts.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All of the sort of the first; those of another are left out.
impl FromIterator<Answer> for Answers {
    fn from_iter<I: IntoIterator<Item = Answer>>(answers: I) -> Self {
        let mut all = Answers::Classes(Vec::new());
        for answer in answers {
            match (&mut all, answer) {
                (Answers::Classes(classes), Answer::Class(class)) => classes.push(class),
                (Answers::Scores(scores), Answer::Score(score)) => scores.push(score),
                (Answers::Texts(texts), Answer::Text(text)) => texts.push(text),
                (empty, Answer::Score(score)) if empty.is_empty() => {
                    all = Answers::Scores(vec![score]);
                }
                (empty, Answer::Text(text)) if empty.is_empty() => all = Answers::Texts(vec![text]),
                _ => {}
            }
        }
        all
    }
}
