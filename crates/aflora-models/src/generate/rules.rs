//! What a text may not do: repeat itself, end too early, begin or end otherwise than the model
//! wants.

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
    /// have `written` tokens. `history` is all that stands before it, a text each.
    pub(super) fn apply(&self, scores: Tensor, history: &[&[i64]], written: usize) -> Tensor {
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
    fn a_run_comes_once_at_most() {
        assert_eq!(sorted(&[1, 2, 3, 1, 2, 4, 1, 2], 3), [3, 4]);
        assert_eq!(sorted(&[1, 2, 3, 1], 2), [2]);
        assert_eq!(sorted(&[5, 6, 5], 1), [5, 6]);
        assert!(sorted(&[1, 2], 3).is_empty());
        assert!(sorted(&[], 3).is_empty());
        assert!(sorted(&[1, 1, 1], 0).is_empty());
    }
}
