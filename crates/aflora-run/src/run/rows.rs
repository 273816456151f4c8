//! Which of a task's rows a run uses: `holdout`, `limit` and `eval_limit`.

use crate::config::RunSettings;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The name of the evaluation split that `holdout` makes.
pub const HOLDOUT: &str = "holdout";

/// Holds rows out, then cuts the splits to `limit` and `eval_limit`. What is left stays in file
/// order.
///
/// `holdout` and `eval_limit` draw one sample for all seeds, so that runs that differ in the seed
/// stay comparable; `limit` draws with the seed.
pub fn choose<T>(train: &mut Vec<T>, evals: &mut Vec<(String, Vec<T>)>, config: &RunSettings) {
    if let Some(share) = config.holdout {
        let held = ((train.len() as f64 * share).round() as usize).clamp(1, train.len().max(1));
        let (out, rest) = split(std::mem::take(train), held, 0);
        *train = rest;
        *evals = vec![(HOLDOUT.to_string(), out)];
    }
    if let Some(limit) = config.limit {
        *train = split(std::mem::take(train), limit, config.seed).0;
    }
    limit(evals, config);
}

/// Cuts splits that are judged to `eval_limit`, to the same rows for all seeds.
pub fn limit<T>(splits: &mut [(String, Vec<T>)], config: &RunSettings) {
    if let Some(limit) = config.eval_limit {
        for (_, rows) in splits {
            *rows = split(std::mem::take(rows), limit, 0).0;
        }
    }
}

/// `n` rows drawn with the seed, and the others.
fn split<T>(rows: Vec<T>, n: usize, seed: u64) -> (Vec<T>, Vec<T>) {
    if rows.len() <= n {
        return (rows, Vec::new());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut keys: Vec<(u64, usize)> = (0..rows.len()).map(|i| (rng.next_u64(), i)).collect();
    keys.sort_unstable();
    let mut drawn = vec![false; rows.len()];
    for (_, row) in keys.into_iter().take(n) {
        drawn[row] = true;
    }
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for (row, drawn) in rows.into_iter().zip(drawn) {
        if drawn { &mut first } else { &mut others }.push(row);
    }
    (first, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(config: RunSettings) -> (Vec<u32>, Vec<(String, Vec<u32>)>) {
        let mut train = (0..100).collect();
        let mut evals = vec![("dev".to_string(), (1000..1010).collect())];
        choose(&mut train, &mut evals, &config);
        (train, evals)
    }

    #[test]
    fn rows_held_out_are_of_the_training_split_and_no_longer_in_it() {
        let config = |seed| RunSettings { holdout: Some(0.2), seed, ..Default::default() };
        let (train, evals) = chosen(config(1));
        assert_eq!((train.len(), evals.len(), evals[0].1.len()), (80, 1, 20));
        assert_eq!(evals[0].0, HOLDOUT);
        assert!(evals[0].1.iter().all(|row| *row < 100 && !train.contains(row)));
        assert_eq!(chosen(config(2)).1, evals, "every seed is judged on the same rows");
    }

    #[test]
    fn a_limit_draws_from_what_is_not_held_out() {
        let config = RunSettings { holdout: Some(0.5), limit: Some(30), ..Default::default() };
        let (train, evals) = chosen(config);
        assert_eq!(train.len(), 30);
        assert!(train.iter().all(|row| !evals[0].1.contains(row)));
    }
}
