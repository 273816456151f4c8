//! `clean_up_tokenization_spaces`: no spaces before punctuation and English contractions, as
//! transformers writes texts of tokens where a tokenizer's settings ask for it.

/// What becomes of what, one after the other. Nothing but spaces is taken away.
const CLEANED: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// How a text ends within one of these, or within what an earlier one makes of it (` n ' t`).
const BEGUN: [&str; 8] = [" ", " '", " n", " n'", " 'v", " 'r", " ' v", " ' r"];

/// The text without them.
pub(super) fn cleaned(text: &str) -> String {
    CLEANED.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

/// Whether what follows a text may take away a space of it.
pub(super) fn may_lose_its_end(text: &str) -> bool {
    BEGUN.iter().any(|begun| text.ends_with(begun))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn comes_in_parts(text: &str, at: usize) -> bool {
        let (a, b) = text.split_at(at.min(text.len()));
        may_lose_its_end(a) || cleaned(a) + &cleaned(b) == cleaned(text)
    }

    #[test]
    fn what_one_step_makes_of_a_text_is_held_for_the_next() {
        for text in
            ["a n ' t", "a  ' m b", "a  ' s b", "a  ' ve b", "a  ' re b", "a ' ' ' b", "a ' ."]
        {
            assert!((0..=text.len()).all(|at| comes_in_parts(text, at)), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_text_is_cleaned_part_by_part_wherever_it_cannot_lose_its_end(
            text in "( | |'|'|n|t|'t|v|ve|'s|re|m|[.]|a){0,12}", at in 0usize..20
        ) {
            prop_assert!(comes_in_parts(&text, at), "{:?} {}", text, at);
        }
    }
}
