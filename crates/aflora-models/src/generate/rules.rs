//! What a text may not do, or does less gladly: repeat itself, end too early, begin or end otherwise
//! than the model wants.

use super::{GenerationConfig, SpecialTokens};
use std::collections::HashSet;
use tch::Tensor;

/// The rules of one search.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub config: &'a GenerationConfig,
    pub tokens: &'a SpecialTokens,
}

impl Rules<'_> {
    /// Applies the rules to the scores of the next token, `[texts, vocabulary]`, of texts that
    /// have `written` tokens. `history` is all that stands before it, a text each, of which the first
    /// `padding` tokens fill up the batch.
    pub(super) fn apply(
        &self,
        scores: Tensor,
        history: &[&[i64]],
        padding: &[usize],
        written: usize,
    ) -> Tensor {
        let last = written + 1 == self.config.max_new_tokens;
        let forced = match (self.tokens.forced_bos, self.tokens.forced_eos) {
            (_, Some(eos)) if last => Some(eos),
            (Some(bos), _) if written == 0 && self.tokens.decoder_start.is_some() => Some(bos),
            _ => None,
        };
        if let Some(token) = forced {
            let only = scores.full_like(f64::NEG_INFINITY);
            let _ = only.narrow(1, token, 1).fill_(0.0);
            return only;
        }
        let vocabulary = scores.size()[1];
        let scores = self.penalised(scores, history, padding);
        let mut banned = Vec::new();
        for (row, history) in (0..).zip(history) {
            let mut ban = |token: i64| banned.push(row * vocabulary + token);
            repeats(history, self.config.no_repeat_ngram_size).into_iter().for_each(&mut ban);
            if written < self.config.min_new_tokens {
                self.tokens.eos.iter().copied().for_each(&mut ban);
            }
        }
        if banned.is_empty() {
            return scores;
        }
        let banned = Tensor::from_slice(&banned).to_device(scores.device());
        scores.view(-1).index_fill(0, &banned, f64::NEG_INFINITY).view([-1, vocabulary])
    }

    /// The scores with those of tokens that were there before made smaller.
    fn penalised(&self, scores: Tensor, history: &[&[i64]], padding: &[usize]) -> Tensor {
        let penalty = self.config.repetition_penalty;
        if penalty == 1.0 {
            return scores;
        }
        let vocabulary = scores.size()[1];
        let mut known = Vec::new();
        for ((row, history), &padding) in (0..).zip(history).zip(padding) {
            let tokens: HashSet<i64> = history.iter().skip(padding).copied().collect();
            let tokens = tokens.into_iter().filter(|token| (0..vocabulary).contains(token));
            known.extend(tokens.map(|token| row * vocabulary + token));
        }
        let known = Tensor::from_slice(&known).to_device(scores.device());
        let flat = scores.reshape(-1);
        let before = flat.index_select(0, &known);
        let less = (&before * penalty).where_self(&before.lt(0.0), &(&before / penalty));
        flat.index_copy(0, &known, &less).view([-1, vocabulary])
    }
}

/// The tokens that would make the last `size` tokens a run that was there before.
fn repeats(history: &[i64], size: usize) -> HashSet<i64> {
    if size == 0 || history.len() + 1 < size {
        return HashSet::new();
    }
    let prefix = &history[history.len() + 1 - size..];
    let runs = history.windows(size).filter(|run| run[..size - 1] == *prefix);
    runs.map(|run| run[size - 1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(history: &[i64], size: usize) -> Vec<i64> {
        let mut tokens: Vec<i64> = repeats(history, size).into_iter().collect();
        tokens.sort_unstable();
        tokens
    }

    #[test]
    fn repetition_is_punished_as_in_transformers() {
        let golden = include_str!("../../tests/fixtures/sampling.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let of = |value: &serde_json::Value| serde_json::from_value(value.clone()).unwrap();
        let matrix = |value: &serde_json::Value| {
            let rows: Vec<Vec<Option<f32>>> = serde_json::from_value(value.clone()).unwrap();
            let row = |row: Vec<Option<f32>>| -> Vec<f32> {
                row.into_iter().map(|x| x.unwrap_or(f32::NEG_INFINITY)).collect()
            };
            Tensor::from_slice2(&rows.into_iter().map(row).collect::<Vec<_>>())
        };
        let history: Vec<Vec<i64>> = serde_json::from_value(golden["history"].clone()).unwrap();
        let history: Vec<&[i64]> = history.iter().map(Vec::as_slice).collect();
        let padding: Vec<usize> = serde_json::from_value(golden["padding"].clone()).unwrap();
        for case in golden["penalties"].as_array().unwrap() {
            let config: GenerationConfig = of(&case["settings"]);
            let rules = Rules { config: &config, tokens: &SpecialTokens::default() };
            let found = rules.apply(matrix(&golden["scores"]), &history, &padding, 4);
            assert_eq!(found, matrix(&case["scores"]), "{}", case["settings"]);
        }
    }

    #[test]
    fn a_run_comes_once_at_most() {
        assert_eq!(sorted(&[1, 2, 3, 1, 2, 4, 1, 2], 3), [3, 4]);
        assert_eq!(sorted(&[1, 2, 3, 1], 2), [2]);
        assert_eq!(sorted(&[5, 6, 5], 1), [5, 6]);
        assert!(sorted(&[1, 2], 3).is_empty());
        assert!(sorted(&[], 3).is_empty());
        assert!(sorted(&[1, 1, 1], 0).is_empty());
    }
}
