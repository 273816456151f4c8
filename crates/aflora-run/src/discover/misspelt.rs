//! Classes that are probably others, misspelt: a label that hardly a row has, and is nearly one that
//! many have. It stays a class, for it may be one; but it is told, since a class too many is seen
//! nowhere else.
//!
//! Two labels are nearly the same where they differ in capitals, in what stands between their words, or in
//! one letter of a word: one that is another, is missing or is too many, or two that changed places.
//! Words of fewer than [`SHORTEST`] letters, and all with digits, are as they are on purpose: `grade A`
//! and `grade B`, `type1` and `type2`.

use std::collections::BTreeMap;

/// A label is seldom beside one that has so many times its rows.
const TIMES: usize = 10;

/// Letters of the shortest word that counts as misspelt.
const SHORTEST: usize = 4;

/// The most different labels that are held to one another: of more, as of a column of numbers, it would
/// take long, and hardly one is a class that comes often.
const MOST: usize = 1000;

/// Each label that is probably misspelt, with the one that is meant, by how many rows have each label.
pub(super) fn misspelt(rows: &BTreeMap<String, usize>) -> Vec<(&str, &str)> {
    if rows.len() > MOST {
        return Vec::new();
    }
    let meant = |label: &str, seldom: usize| {
        let often = rows.iter().filter(|(_, n)| **n >= TIMES * seldom);
        let alike = often.filter(|(other, _)| nearly(label, other));
        alike.max_by_key(|(_, n)| **n).map(|(other, _)| other.as_str())
    };
    rows.iter().filter_map(|(label, n)| Some((label.as_str(), meant(label, *n)?))).collect()
}

/// Whether two labels differ as one does that was misspelt.
fn nearly(a: &str, b: &str) -> bool {
    if a.parse::<f64>().is_ok() && b.parse::<f64>().is_ok() {
        return false;
    }
    let (a, b) = (words(a), words(b));
    if a.concat() == b.concat() {
        return true;
    }
    let mut apart = a.iter().zip(&b).filter(|(a, b)| a != b);
    let (Some((a_word, b_word)), None) = (apart.next(), apart.next()) else { return false };
    let counts =
        |word: &str| word.chars().all(char::is_alphabetic) && word.chars().count() >= SHORTEST;
    a.len() == b.len()
        && counts(a_word)
        && counts(b_word)
        && strsim::osa_distance(a_word, b_word) == 1
}

/// The words of a label, in small letters, without what ends a sentence.
fn words(label: &str) -> Vec<String> {
    let label = label.trim_end_matches(['.', ',', ';', '!']);
    let words = label.split(|c: char| c.is_whitespace() || c == '-' || c == '_');
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_hardly_a_row_has_is_misspelt_where_it_is_nearly_one_of_many() {
        let found = |labels: &[(&str, usize)]| {
            let rows = labels.iter().map(|(label, n)| (label.to_string(), *n)).collect();
            misspelt(&rows).into_iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>()
        };
        let many = [("positive", 40), ("negative", 50)];
        for odd in ["postive", "positvie", "possitive", "Positive", "pozitive", "positive."] {
            let all = [&many[..], &[(odd, 1)]].concat();
            assert_eq!(found(&all), [format!("{odd} positive")]);
        }
        assert_eq!(found(&[("not ok", 30), ("not_ok", 2), ("ok", 9)]), ["not_ok not ok"]);
        for others in [
            &[("positive", 9), ("postive", 1)][..],
            &[("grade A", 50), ("grade B", 1)],
            &[("type1", 50), ("type2", 1)],
            &[("1", 50), ("-1", 1), ("11", 1)],
            &[("C", 50), ("C++", 1), ("C#", 1)],
            &[("male", 50), ("female", 1)],
            &[("positive", 50), ("negative", 1), ("neutral", 1)],
            &[("yes", 50), ("yet", 1)],
            &[("🙂", 50), ("🙁", 1)],
            &[("+", 50), ("-", 1)],
        ] {
            assert!(found(others).is_empty(), "{others:?}");
        }
        let texts: Vec<String> = (0..MOST).map(|n| format!("text {n}")).collect();
        let many = texts.iter().map(|text| (text.as_str(), 1));
        assert!(
            found(&many.chain([("positive", 40), ("postive", 1)]).collect::<Vec<_>>()).is_empty()
        );
    }
}
