//! Greedy and beam search, with the choices of transformers: which candidates run on, which
//! finished texts are kept, when to stop.
//!
//! Scores and caches stay on the device; of each step only the best candidates, a few numbers a
//! text, come to the host. A text that is done leaves the batch.

use super::rules::Rules;
use super::{EarlyStopping, GenerationConfig, SpecialTokens, TextGenerator};
use crate::batch::Batch;
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Writes on after each text of `batch`; gives the new tokens, without the end token.
///
/// # Errors
/// A setting is out of range, the model knows no end token, or its positions do not suffice.
pub fn write(
    generator: &dyn TextGenerator,
    batch: &Batch,
    config: &GenerationConfig,
) -> Result<Vec<Vec<i64>>> {
    config.validate()?;
    let _no_grad = tch::no_grad_guard();
    let tokens = generator.tokens();
    let begun = batch.decoder_input_ids.as_ref().unwrap_or(&batch.input_ids);
    let prompts = Vec::<Vec<i64>>::try_from(begun.to_device(Device::Cpu))?;
    let device = begun.device();
    let (mut logits, mut state) = generator.start(batch, config.max_new_tokens as i64)?;
    let vocabulary = logits.size()[1];
    if let Some(id) = tokens.eos.iter().find(|id| !(0..vocabulary).contains(id)) {
        return Err(Error::Generation(format!(
            "the end token {id} is not among the model's {vocabulary} tokens"
        )));
    }
    let rules = Rules { config, tokens };
    let mut texts: Vec<Search> = prompts.into_iter().map(Search::new).collect();
    for written in 0..config.max_new_tokens {
        let open = texts.iter().filter(|text| !text.done);
        let history: Vec<&[i64]> =
            open.flat_map(|text| text.running.iter().map(|beam| beam.tokens.as_slice())).collect();
        if history.is_empty() {
            break;
        }
        if written > 0 {
            let last: Vec<i64> = history.iter().filter_map(|h| h.last().copied()).collect();
            logits = state.step(&Tensor::from_slice(&last).to_device(device))?;
        }
        let scores = rules.apply(logits.log_softmax(1, Kind::Float), &history, written);
        let keep = (kept(config, tokens) as i64).min(vocabulary);
        let (best, ids) = scores.topk(keep, 1, true, true);
        // One copy each; a table would else be fetched row by row.
        let best = Vec::<Vec<f32>>::try_from(best.to_device(Device::Cpu))?;
        let ids = Vec::<Vec<i64>>::try_from(ids.to_device(Device::Cpu))?;

        // Rows of the batch for the beams that run on.
        let (mut row, mut rows) = (0, Vec::new());
        for text in texts.iter_mut().filter(|text| !text.done) {
            let first = row;
            row += text.running.len();
            let parents =
                text.advance(&best[first..row], &ids[first..row], written, config, tokens);
            rows.extend(parents.into_iter().map(|parent| (first + parent) as i64));
        }
        if !rows.iter().copied().eq(0..row as i64) {
            state.select(&Tensor::from_slice(&rows).to_device(device));
        }
    }
    Ok(texts.into_iter().map(|text| text.best(&tokens.eos)).collect())
}

/// Candidates a step: enough that as many beams run on even if every one could end.
fn kept(config: &GenerationConfig, tokens: &SpecialTokens) -> usize {
    match config.num_beams {
        1 => 1,
        beams => beams * (1 + tokens.eos.len()).max(2),
    }
}

#[derive(Debug, Clone)]
struct Beam {
    /// The prompt and what was written.
    tokens: Vec<i64>,
    /// Log-probability of what was written; of a finished one, over its length's power.
    score: f32,
}

/// The search for one text.
#[derive(Debug)]
struct Search {
    prompt: usize,
    running: Vec<Beam>,
    /// The best finished ones, best first.
    finished: Vec<Beam>,
    done: bool,
}

impl Search {
    fn new(prompt: Vec<i64>) -> Self {
        let length = prompt.len();
        let running = vec![Beam { tokens: prompt, score: 0.0 }];
        Search { prompt: length, running, finished: Vec::new(), done: false }
    }

    /// One step from the best candidates of every running beam; gives the parent of each beam
    /// that runs on.
    fn advance(
        &mut self,
        best: &[Vec<f32>],
        ids: &[Vec<i64>],
        written: usize,
        config: &GenerationConfig,
        tokens: &SpecialTokens,
    ) -> Vec<usize> {
        let beams = config.num_beams;
        let mut candidates: Vec<(f32, usize, i64)> = Vec::new();
        for (parent, (best, ids)) in best.iter().zip(ids).enumerate() {
            let score = self.running[parent].score;
            candidates.extend(best.iter().zip(ids).map(|(s, &id)| (score + s, parent, id)));
        }
        // Stable: of equal ones the first beam's comes first.
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        candidates.truncate(kept(config, tokens));
        let at_end = written + 1 == config.max_new_tokens;
        let (mut next, mut parents) = (Vec::new(), Vec::new());
        for (place, (score, parent, id)) in candidates.into_iter().enumerate() {
            let child = |score| {
                let mut tokens = self.running[parent].tokens.clone();
                tokens.push(id);
                Beam { tokens, score }
            };
            if at_end || tokens.eos.contains(&id) {
                // Those behind are only there to have enough that run on.
                if place < beams {
                    let score = score / ((written + 1) as f32).powf(config.length_penalty as f32);
                    self.finished.push(child(score));
                }
            } else if next.len() < beams {
                next.push(child(score));
                parents.push(parent);
            }
        }
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(beams);
        self.running = next;
        self.done = match self.running.first() {
            None => true,
            // Greedy: the likeliest token ended the text.
            Some(_) if beams == 1 => !self.finished.is_empty(),
            Some(leader) => !self.can_improve(leader.score, written + 1, config),
        };
        if self.done {
            parents.clear();
        }
        parents
    }

    /// Whether running on may still give a better text.
    fn can_improve(&self, leader: f32, written: usize, config: &GenerationConfig) -> bool {
        if self.finished.len() < config.num_beams {
            return true;
        }
        let length = match config.early_stopping {
            EarlyStopping::Full => return false,
            EarlyStopping::Never if config.length_penalty > 0.0 => config.max_new_tokens,
            _ => written,
        };
        let possible = leader / (length as f32).powf(config.length_penalty as f32);
        self.finished.last().is_none_or(|worst| possible > worst.score)
    }

    fn best(mut self, eos: &[i64]) -> Vec<i64> {
        let best = if self.finished.is_empty() { &mut self.running } else { &mut self.finished };
        let mut tokens = best.drain(..).next().map_or_else(Vec::new, |beam| beam.tokens);
        tokens.drain(..self.prompt.min(tokens.len()));
        if tokens.last().is_some_and(|last| eos.contains(last)) {
            tokens.pop();
        }
        tokens
    }
}
