//! Greedy and beam search, with the choices of transformers: which candidates run on, which
//! finished texts are kept, when to stop. With one beam a token may also be drawn (`sample`).
//!
//! Scores and caches stay on the device; of each step only the best candidates, a few numbers a
//! text, come to the host. A text that is done leaves the batch. Texts of one beam are written so only
//! where the model has no slots for them (`continuous`).

use super::past::Past;
use super::rules::Rules;
use super::sample::{checked, drawn, filtered, Chance};
use super::{EarlyStopping, GenerationConfig, SpecialTokens, TextGenerator};
use crate::batch::Batch;
use crate::Result;
use std::ops::ControlFlow;
use tch::{Device, Kind, Tensor};

/// Writes on after each text of `batch`, of these `numbers`; `each` is told every token of one beam.
pub(super) fn search(
    generator: &dyn TextGenerator,
    batch: &Batch,
    config: &GenerationConfig,
    numbers: &[u64],
    each: &mut dyn FnMut(usize, i64) -> ControlFlow<()>,
) -> Result<Vec<Vec<i64>>> {
    let tokens = &generator.tokens().with_ends(&config.further_eos);
    let begun = batch.decoder_input_ids.as_ref().unwrap_or(&batch.input_ids);
    let prompts = Vec::<Vec<i64>>::try_from(begun.to_device(Device::Cpu))?;
    let device = begun.device();
    let (mut logits, mut state) = generator.start(batch, config.max_new_tokens as i64)?;
    let vocabulary = logits.size()[1];
    tokens.check(vocabulary)?;
    let rules = Rules { config, tokens };
    let on_device = |ids: &[i64]| Tensor::from_slice(ids).to_device(device);
    let padding = padding(batch)?;
    let mut past = rules.remember().then(|| {
        let room = begun.size()[1] + config.max_new_tokens as i64;
        let past = Past::new(prompts.len() as i64, room, device);
        for (row, (prompt, &padding)) in (0..).zip(prompts.iter().zip(&padding)) {
            let text = &prompt[padding..];
            let length = on_device(&[text.len() as i64]);
            past.put(&on_device(&[row]), &on_device(text).unsqueeze(0), &length);
        }
        past
    });
    let mut chances: Option<Vec<Chance>> = config
        .do_sample
        .then(|| numbers.iter().map(|&number| Chance::new(config.seed, number)).collect());
    let mut texts: Vec<Search> = prompts.into_iter().map(Search::new).collect();
    'steps: for written in 0..config.max_new_tokens {
        let open: Vec<usize> = (0..texts.len()).filter(|&text| !texts[text].done).collect();
        let running = open.iter().flat_map(|&text| &texts[text].running);
        let last: Vec<i64> = running.filter_map(|beam| beam.tokens.last().copied()).collect();
        if last.is_empty() {
            break;
        }
        if written > 0 {
            let last = on_device(&last);
            if let Some(past) = &past {
                past.push(&last);
            }
            logits = state.step(&last)?;
        }
        // As in transformers: only beams are scored by what they add up, log-probabilities.
        let scores = match config.num_beams {
            1 => logits.to_kind(Kind::Float),
            _ => logits.log_softmax(1, Kind::Float),
        };
        let count = Tensor::full([last.len() as i64], written as i64, (Kind::Int64, device));
        let scores = rules.apply(scores, past.as_ref(), &count);
        let (best, ids) = match &mut chances {
            Some(chances) => {
                let chances: Vec<f64> =
                    open.iter().filter_map(|&text| chances[text].next()).collect();
                let chances = Tensor::from_slice(&chances).to_device(device);
                let ids = drawn(&filtered(scores, config), &chances).to_device(Device::Cpu);
                let ids = checked(Vec::try_from(ids)?)?;
                (vec![vec![0.0]; ids.len()], ids.into_iter().map(|id| vec![id]).collect())
            }
            None => {
                let keep = (kept(config, tokens) as i64).min(vocabulary);
                let (best, ids) = scores.topk(keep, 1, true, true);
                // One copy each; a table would else be fetched row by row.
                let best = Vec::<Vec<f32>>::try_from(best.to_device(Device::Cpu))?;
                (best, Vec::<Vec<i64>>::try_from(ids.to_device(Device::Cpu))?)
            }
        };

        // Rows of the batch for the beams that run on.
        let (mut row, mut rows) = (0, Vec::new());
        for &place in &open {
            let text = &mut texts[place];
            let first = row;
            row += text.running.len();
            let parents =
                text.advance(&best[first..row], &ids[first..row], written, config, tokens);
            rows.extend(parents.into_iter().map(|parent| (first + parent) as i64));
        }
        if config.num_beams == 1 {
            let came = open.iter().zip(&ids).map(|(&text, ids)| (text, ids[0]));
            for (text, id) in came.filter(|(_, id)| !tokens.eos.contains(id)) {
                if each(text, id).is_break() {
                    break 'steps;
                }
            }
        }
        if !rows.iter().copied().eq(0..row as i64) {
            let rows = on_device(&rows);
            state.select(&rows);
            past = past.map(|past| past.of(&rows));
        }
    }
    Ok(texts.into_iter().map(|text| text.best(&tokens.eos)).collect())
}

/// The tokens before each text that only fill up the batch.
pub(super) fn padding(batch: &Batch) -> Result<Vec<usize>> {
    if batch.decoder_input_ids.is_some() {
        return Ok(vec![0; batch.input_ids.size()[0] as usize]);
    }
    let mask = batch.attention_mask.to_kind(Kind::Int64).to_device(Device::Cpu);
    let mask = Vec::<Vec<i64>>::try_from(mask)?;
    Ok(mask.iter().map(|row| row.iter().take_while(|&&seen| seen == 0).count()).collect())
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
