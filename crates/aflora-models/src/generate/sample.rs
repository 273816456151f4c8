//! Drawing tokens: which of them may come, and which comes.
//!
//! The filters are those of transformers, in its order: temperature, top-k, top-p, min-p. Chance is
//! the host's: each text has numbers of its own, by the seed and the text's number, so that what is
//! written does not depend on the device, nor on which texts share a batch.

use super::GenerationConfig;
use crate::{Error, Result};
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// The scores that a token is drawn by, `[texts, vocabulary]`, of the scores by which it would be
/// searched for: those that may not come are minus infinity.
pub(super) fn filtered(mut scores: Tensor, config: &GenerationConfig) -> Tensor {
    if config.temperature != 1.0 {
        scores /= config.temperature;
    }
    let without = |scores: Tensor, gone: &Tensor| scores.masked_fill(gone, f64::NEG_INFINITY);
    if config.top_k > 0 {
        let k = (config.top_k as i64).min(scores.size()[1]);
        let (best, _) = scores.topk(k, 1, true, true);
        let gone = scores.lt_tensor(&best.narrow(1, k - 1, 1));
        scores = without(scores, &gone);
    }
    if config.top_p < 1.0 {
        // From the least likely on: those that together have no more than what may be left out.
        let (sorted, order) = scores.sort(1, false);
        let sums = sorted.softmax(1, Kind::Float).cumsum(1, Kind::Float);
        let gone = sums.le(1.0 - config.top_p);
        let _ = gone.narrow(1, gone.size()[1] - 1, 1).fill_(0);
        let gone = gone.scatter(1, &order, &gone);
        scores = without(scores, &gone);
    }
    if config.min_p > 0.0 {
        let likely = scores.softmax(1, Kind::Float);
        let least = likely.amax([1], true) * config.min_p;
        let gone = likely.lt_tensor(&least);
        // The likeliest stays, whatever is asked for.
        let gone = gone.scatter_value(1, &likely.argmax(1, true), 0);
        scores = without(scores, &gone);
    }
    scores
}

/// A text's chance: numbers above 0 and below 1, one for each of its tokens.
#[derive(Debug)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    /// Of the text with this number.
    pub(super) fn new(seed: u64, text: u64) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        chance.set_stream(text);
        Chance(chance)
    }
}

impl Iterator for Chance {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        Some(between(self.0.next_u32()))
    }
}

/// What is drawn of a text whose scores are no numbers.
pub(super) const NO_NUMBERS: i64 = -1;

/// A token for each text, `[texts]`, by its scores, `[texts, vocabulary]`, and its chance, `[texts]` in
/// double precision; [`NO_NUMBERS`] where there is none.
pub(super) fn drawn(scores: &Tensor, chances: &Tensor) -> Tensor {
    let sums = scores.softmax(1, Kind::Double).cumsum(1, Kind::Double);
    let all = sums.narrow(1, sums.size()[1] - 1, 1);
    // The first token up to which the sum is beyond what was drawn.
    let ids = sums.le_tensor(&(&all * chances.unsqueeze(1)));
    let ids = ids.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
    ids.masked_fill(&all.squeeze_dim(1).isfinite().logical_not(), NO_NUMBERS)
}

/// Tokens that were drawn.
///
/// # Errors
/// A text's scores are no numbers.
pub(super) fn checked(ids: Vec<i64>) -> Result<Vec<i64>> {
    match ids.contains(&NO_NUMBERS) {
        true => Err(Error::Generation("the model's scores are no numbers".into())),
        false => Ok(ids),
    }
}

/// Between 0 and 1, neither of which it is.
fn between(bits: u32) -> f64 {
    (f64::from(bits) + 0.5) / 2f64.powi(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tch::Device;

    /// A token for each text of these numbers.
    fn draw(scores: &Tensor, seed: u64, texts: impl Iterator<Item = u64>) -> Result<Vec<i64>> {
        let chances: Vec<f64> = texts.map(|text| Chance::new(seed, text).next().unwrap()).collect();
        checked(Vec::try_from(drawn(scores, &Tensor::from_slice(&chances))).unwrap())
    }

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/sampling.json")).unwrap()
    }

    fn matrix(value: &Value) -> Tensor {
        let rows: Vec<Vec<f32>> = value
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                let row = row.as_array().unwrap().iter();
                row.map(|x| x.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32)).collect()
            })
            .collect();
        Tensor::from_slice2(&rows)
    }

    #[test]
    fn each_filter_leaves_what_transformers_leaves() {
        let golden = golden();
        let cases = golden["filters"].as_array().unwrap();
        assert!(cases.len() > 12);
        for case in cases {
            let config: GenerationConfig =
                serde_json::from_value(case["settings"].clone()).unwrap();
            let found = filtered(matrix(&golden["scores"]), &config);
            let expected = matrix(&case["scores"]);
            let infinite = |scores: &Tensor| scores.isinf();
            assert_eq!(infinite(&found), infinite(&expected), "{}", case["settings"]);
            let [found, expected] =
                [found, expected].map(|scores| scores.nan_to_num(0.0, 0.0, 0.0));
            let off = (found - expected).abs().max().double_value(&[]);
            assert!(off < 1e-6, "{}: {off}", case["settings"]);
        }
    }

    #[test]
    fn tokens_come_as_often_as_their_scores_say() {
        let golden = golden();
        let draws = 5_000;
        for case in golden["filters"].as_array().unwrap() {
            let scores = matrix(&case["scores"]);
            let likely = Vec::<Vec<f64>>::try_from(scores.softmax(1, Kind::Double)).unwrap();
            for (row, likely) in likely.iter().enumerate() {
                let many = scores.narrow(0, row as i64, 1).repeat([draws, 1]);
                let ids = draw(&many, 7, 0..draws as u64).unwrap();
                let mut found = vec![0f64; likely.len()];
                ids.iter().for_each(|&id| found[id as usize] += 1.0);
                // Pearson's chi-square over tokens that come often enough for it.
                let (mut sum, mut kinds) = (0.0, 0);
                for (&found, &likely) in found.iter().zip(likely) {
                    let expected = likely * draws as f64;
                    assert!(likely > 0.0 || found == 0.0, "what is filtered out never comes");
                    if expected >= 5.0 {
                        sum += (found - expected).powi(2) / expected;
                        kinds += 1;
                    }
                }
                // Its mean and five of its standard deviations.
                let free = f64::from(kinds);
                assert!(
                    sum < free + 5.0 * (2.0 * free).sqrt(),
                    "{}: {sum} of {free}",
                    case["settings"]
                );
            }
        }
    }

    #[test]
    fn chance_goes_by_seed_and_text_and_not_by_what_is_beside_it() {
        let scores = Tensor::zeros([4, 1000], (Kind::Float, Device::Cpu));
        let draw = |seed, texts: [u64; 4]| draw(&scores, seed, texts.into_iter()).unwrap();
        let one = draw(1, [0, 1, 2, 3]);
        assert_eq!(one, draw(1, [0, 1, 2, 3]));
        let other = draw(1, [3, 2, 1, 0]);
        assert_eq!(one.iter().rev().copied().collect::<Vec<_>>(), other);
        assert_ne!(one, draw(2, [0, 1, 2, 3]));
        assert_ne!(one[0], one[1]);
    }

    #[test]
    fn scores_that_are_no_numbers_are_told() {
        let scores = Tensor::from_slice2(&[[0.0f32, f32::NAN], [0.0, 1.0]]);
        let error = draw(&scores, 0, 0..2).unwrap_err().to_string();
        assert!(error.contains("no numbers"), "{error}");
    }
}
