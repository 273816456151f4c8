//! Whether what a model answers is any better than a guess that looks at no text.

use crate::metrics::{correlation, mse};
use std::collections::BTreeMap;

/// Where all rows get one class, or no more are right than if all got the commonest: what that is
/// in words.
pub fn of_classes(names: &[&str], answers: &[i64], right: &[i64]) -> Option<String> {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for &class in right {
        *counts.entry(class).or_default() += 1;
    }
    // Where there is one class, nothing better can be asked for.
    let (&commonest, &most) =
        counts.iter().max_by_key(|(_, n)| **n).filter(|_| counts.len() > 1)?;
    let name = |class: i64| {
        let name = usize::try_from(class).ok().and_then(|class| names.get(class));
        name.map_or_else(|| class.to_string(), |name| name.to_string())
    };
    let share = most as f64 / right.len() as f64;
    let hits = answers.iter().zip(right).filter(|(answer, right)| answer == right).count();
    let accuracy = hits as f64 / right.len() as f64;
    if let Some(only) = only(answers) {
        let only = name(*only);
        return Some(format!(
            "every row gets the label `{only}`, so its accuracy of {accuracy:.4} is that label's \
             share of the rows"
        ));
    }
    (accuracy <= share).then(|| {
        format!(
            "its accuracy of {accuracy:.4} is no better than {share:.4}, which the label `{}` for \
             every row would have",
            name(commonest)
        )
    })
}

/// Where all rows get one score, or scores that do not go with the right ones, or are farther from
/// them than their mean is: what that is in words.
pub fn of_scores(answers: &[f64], right: &[f64]) -> Option<String> {
    if right.len() < 2 || only(right).is_some() {
        return None;
    }
    if let Some(score) = only(answers) {
        return Some(format!("every row gets the score {score:.4}"));
    }
    if let Some(r) = correlation(answers, right).filter(|r| *r <= 0.0) {
        return Some(format!(
            "its scores do not rise with the right ones (a correlation of {r:.4})"
        ));
    }
    let mean = right.iter().sum::<f64>() / right.len() as f64;
    let variance = mse(&vec![mean; right.len()], right)?;
    let error = mse(answers, right).filter(|error| *error >= variance)?;
    Some(format!(
        "its scores rise with the right ones, but their squared error of {error:.4} is no less than \
         the {variance:.4} that {mean:.4}, the mean, would have for every row: they are not as large \
         as those (more steps or higher rates reach them)"
    ))
}

/// Where all rows get the same labels: what that is in words.
pub fn of_sets(answers: &[Vec<bool>], right: &[Vec<bool>]) -> Option<String> {
    only(answers).filter(|_| only(right).is_none())?;
    Some("every row gets the same labels".to_string())
}

/// Where all words get one tag: what that is in words.
pub fn of_tags(answers: &[Vec<String>], right: &[Vec<String>]) -> Option<String> {
    let all = |tags: &[Vec<String>]| tags.concat();
    let answers = all(answers);
    let tag = only(&answers).filter(|_| only(&all(right)).is_none())?;
    Some(format!("every word gets the tag `{tag}`"))
}

/// Where all rows get one text, or none has any of what the deciding metric (its name and the rows'
/// scores) looks for: what that is in words.
pub fn of_texts(written: &[String], deciding: Option<(&str, &[f64])>) -> Option<String> {
    match (only(written), deciding) {
        (Some(text), _) if text.is_empty() => Some("nothing is written for any row".to_string()),
        (Some(_), _) => Some("the same text is written for every row".to_string()),
        (None, Some((name, scores))) => {
            only(scores).filter(|score| **score == 0.0)?;
            Some(format!("its {name} is 0 on every row"))
        }
        (None, None) => None,
    }
}

/// The value that all are, where they are all one; of several.
fn only<T: PartialEq>(values: &[T]) -> Option<&T> {
    let first = values.first()?;
    (values.len() > 1 && values.iter().all(|value| value == first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_label_for_all_rows_and_an_accuracy_below_the_commonest_are_told() {
        let told = |answers: &[i64]| of_classes(&["bad", "good"], answers, &[0, 1, 1, 1]);
        let words = told(&[1; 4]).unwrap();
        assert!(words.contains("every row gets the label `good`"), "{words}");
        assert!(words.contains("0.7500"), "{words}");
        let words = told(&[0, 1, 1, 0]).unwrap();
        assert!(words.contains("0.7500 is no better than 0.7500"), "{words}");
        assert_eq!(told(&[0, 1, 1, 1]), None);
        // Of rows of one class, no answer is a guess.
        assert_eq!(of_classes(&["bad"], &[0; 3], &[0; 3]), None);
    }

    #[test]
    fn scores_that_say_nothing_are_told() {
        let expected = [1.0, 2.0, 3.0];
        assert!(of_scores(&[2.0; 3], &expected).unwrap().contains("the score 2.0000"));
        assert!(of_scores(&[3.0, 2.0, 1.0], &expected).unwrap().contains("-1.0000"));
        assert!(of_scores(&[0.1, 0.2, 0.25], &expected).unwrap().contains("2.0000, the mean"));
        assert_eq!(of_scores(&[1.5, 2.0, 2.4], &expected), None);
    }

    #[test]
    fn one_text_for_all_rows_is_told() {
        let told = |texts: &[&str]| {
            of_texts(&texts.iter().map(ToString::to_string).collect::<Vec<_>>(), None)
        };
        assert!(told(&["a", "a"]).unwrap().contains("the same text"));
        assert!(told(&["", ""]).unwrap().contains("nothing is written"));
        assert_eq!(told(&["a", "b"]), None);
        assert_eq!(told(&["a"]), None);
    }

    #[test]
    fn texts_of_which_none_has_anything_right_are_told() {
        let texts = ["a".to_string(), "b".to_string()];
        let told = |scores: &[f64]| of_texts(&texts, Some(("exact_match", scores)));
        assert!(told(&[0.0, 0.0]).unwrap().contains("exact_match is 0 on every row"));
        assert_eq!(told(&[0.0, 0.5]), None);
        assert_eq!(told(&[1.0, 1.0]), None);
    }
}
