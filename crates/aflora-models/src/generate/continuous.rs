//! Writing any number of texts, so many at once, each at its own length: where one is done, the next
//! takes its place.
//!
//! Tokens are chosen on the device, and a step is always the same operations on the same tensors: on a
//! GPU it is recorded once and replayed. The host looks at what was written every few tokens only; what
//! a text ran on behind its end until then is thrown away. None of that changes what is written: a
//! text depends on its prompt, its number and the settings.

use super::choice::Chooser;
use super::past::Past;
use super::rules::Rules;
use super::sample::{checked, Chance};
use super::{DecodingSlots, GenerationConfig, SpecialTokens, TextGenerator};
use crate::{Error, Result};
use aflora_core::Recorder;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use tch::{Device, Kind, Tensor};

/// How texts are written side by side; none of it changes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The device of the model.
    pub device: Device,
    /// How many are written at once.
    pub slots: usize,
    /// Tokens of a text from one look at what was written to the next.
    pub stride: usize,
    /// Slots that must be free before texts are read into them, while others are written: reading them
    /// together takes hardly longer than reading one.
    pub refill_from: usize,
    /// Numbers of keys that steps look at are multiples of this, each a recording; and so are the lengths
    /// to which prompts are filled up.
    pub bucket: usize,
    /// Whether steps are recorded on a GPU. If not, slots that nothing is left for are taken out of
    /// the steps.
    pub record: bool,
}

impl Pace {
    /// What suits a device. A CPU has nothing to wait for, so every token is looked at.
    pub fn of(device: Device, slots: usize) -> Self {
        match device {
            Device::Cuda(_) => {
                let refill_from = slots.div_ceil(8);
                Pace { device, slots, stride: 8, refill_from, bucket: 64, record: true }
            }
            _ => Pace { device, slots, stride: 1, refill_from: 1, bucket: 1, record: false },
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// A token of the text of this place, but for its end token.
    Token(usize, i64),
    /// All of the text of this place.
    Text(usize, Vec<i64>),
}

/// Writes texts of one beam into slots, and keeps the slots and the recordings for the next ones.
pub struct ContinuousWriter<'a> {
    slots: Box<dyn DecodingSlots + 'a>,
    tokens: SpecialTokens,
    config: &'a GenerationConfig,
    pace: Pace,
    /// The longest prompt that there is room for.
    longest: i64,
    state: State,
    recorder: Recorder<i64>,
}

/// What a step reads and writes on the device, of each slot.
struct State {
    /// The token to be read, `[slots]`, and its place in its text, `[slots]`.
    tokens: Tensor,
    positions: Tensor,
    /// How many tokens were written, `[slots]`.
    written: Tensor,
    past: Option<Past>,
    /// Of the steps until the host looks, `[slots, stride]`: what decides what is drawn, and the
    /// tokens.
    chances: Option<Tensor>,
    chosen: Tensor,
    /// The number of the step, `[1]`.
    step: Tensor,
}

impl State {
    fn new(pace: &Pace, capacity: i64, sampling: bool, remember: bool) -> Self {
        let (slots, stride) = (pace.slots as i64, pace.stride as i64);
        let whole = (Kind::Int64, pace.device);
        let zeros = |size: &[i64]| Tensor::zeros(size, whole);
        State {
            tokens: zeros(&[slots]),
            positions: zeros(&[slots]),
            written: zeros(&[slots]),
            past: remember.then(|| Past::new(slots, capacity, pace.device)),
            chances: sampling.then(|| Tensor::zeros([slots, stride], (Kind::Double, pace.device))),
            chosen: zeros(&[slots, stride]),
            step: zeros(&[1]),
        }
    }
}

/// A text that is being written.
struct Running {
    text: usize,
    prompt: usize,
    tokens: Vec<i64>,
    chance: Chance,
}

impl<'a> ContinuousWriter<'a> {
    /// A writer of texts whose prompts have at most `longest` tokens; none of a model that writes its
    /// texts in step alone, or for several beams.
    ///
    /// # Errors
    /// A setting is out of range, or the model has not the positions.
    pub fn new(
        generator: &'a dyn TextGenerator,
        config: &'a GenerationConfig,
        pace: Pace,
        longest: i64,
    ) -> Result<Option<Self>> {
        config.validate()?;
        if config.num_beams > 1 || pace.slots == 0 {
            return Ok(None);
        }
        let pace = Pace { stride: pace.stride.max(1), bucket: pace.bucket.max(1), ..pace };
        let room = config.max_new_tokens as i64;
        let Some(slots) = generator.slots(pace.slots as i64, longest, room)? else {
            return Ok(None);
        };
        let tokens = generator.tokens().with_ends(&config.further_eos);
        let remember = Rules { config, tokens: &tokens }.remember();
        let state = State::new(&pace, longest + room, config.do_sample, remember);
        let pace = Pace { record: pace.record && slots.can_be_recorded(), ..pace };
        let recorder = match pace.record {
            true => Recorder::new(pace.device),
            false => Recorder::off(),
        };
        Ok(Some(ContinuousWriter { slots, tokens, config, pace, longest, state, recorder }))
    }

    /// Writes on after each of `prompts`, texts of these `numbers`, in their order as places get free;
    /// tells `each` what it wrote, which may end it all.
    ///
    /// # Errors
    /// A prompt is empty or longer than there is room for, the model's end token is none of its tokens,
    /// or the scores to draw by are no numbers.
    pub fn write(
        &mut self,
        prompts: &[&[i64]],
        numbers: &[u64],
        each: &mut dyn FnMut(Written) -> ControlFlow<()>,
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        paired(numbers, prompts.len())?;
        for prompt in prompts {
            if prompt.is_empty() || prompt.len() as i64 > self.longest {
                let (length, longest) = (prompt.len(), self.longest);
                let words = format!("a prompt of {length} tokens where 1 to {longest} are read");
                return Err(Error::Generation(words));
            }
        }
        let mut pending: VecDeque<usize> = (0..prompts.len()).collect();
        // Those that a step computes; without recordings, as many as are needed.
        let mut running: Vec<Option<Running>> = Vec::new();
        running.resize_with(self.pace.slots, || None);
        loop {
            let free: Vec<usize> = (0..running.len()).filter(|&i| running[i].is_none()).collect();
            let none_runs = free.len() == running.len();
            if !pending.is_empty() && (none_runs || free.len() >= self.pace.refill_from.max(1)) {
                let next: Vec<usize> = pending.drain(..free.len().min(pending.len())).collect();
                let next: Vec<(usize, usize)> = free.into_iter().zip(next).collect();
                if self.fill(&next, prompts, numbers, &mut running, each)?.is_break() {
                    return Ok(());
                }
                continue;
            }
            if none_runs {
                return Ok(());
            }
            if !self.pace.record && pending.is_empty() && !free.is_empty() {
                self.close_ranks(&mut running);
            }
            if self.steps(&mut running, each)?.is_break() {
                return Ok(());
            }
        }
    }

    /// The longest text that there is room for, prompt and all.
    fn capacity(&self) -> i64 {
        self.longest + self.config.max_new_tokens as i64
    }

    /// How many recordings there are.
    pub fn recordings(&self) -> usize {
        self.recorder.len()
    }

    /// Reads the beginnings of texts into free slots: pairs of both.
    fn fill(
        &mut self,
        next: &[(usize, usize)],
        prompts: &[&[i64]],
        numbers: &[u64],
        running: &mut [Option<Running>],
        each: &mut dyn FnMut(Written) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let device = self.pace.device;
        let on_device = |ids: &[i64]| Tensor::from_slice(ids).to_device(device);
        let read: Vec<&[i64]> = next.iter().map(|&(_, text)| prompts[text]).collect();
        let width = read.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        // Few widths, for which a GPU's libraries make plans.
        let width = width.next_multiple_of(self.pace.bucket).min(self.capacity() as usize);
        let padded = read.iter().flat_map(|prompt| {
            let padding = std::iter::repeat_n(0, width - prompt.len());
            prompt.iter().copied().chain(padding)
        });
        let padded: Vec<i64> = padded.collect();
        let ids = on_device(&padded).view([next.len() as i64, width as i64]);
        let lengths: Vec<i64> = read.iter().map(|prompt| prompt.len() as i64).collect();
        let lengths = on_device(&lengths);
        let rows: Vec<i64> = next.iter().map(|&(slot, _)| slot as i64).collect();
        let rows = on_device(&rows);
        let logits = self.slots.fill(&rows, &ids, &lengths);
        self.tokens.check(logits.size()[1])?;

        let mut chances = Vec::new();
        for &(slot, text) in next {
            let mut chance = Chance::new(self.config.seed, numbers[text]);
            if self.config.do_sample {
                chances.extend(chance.next());
            }
            let (prompt, tokens) = (prompts[text].len(), Vec::new());
            running[slot] = Some(Running { text, prompt, tokens, chance });
        }
        let State { tokens, positions, written, past, .. } = &mut self.state;
        if let Some(past) = &*past {
            past.put(&rows, &ids, &lengths);
        }
        let chances = Tensor::from_slice(&chances).to_device(device);
        let before = past.as_ref().map(|past| past.of(&rows));
        let chooser = Chooser { config: self.config, tokens: &self.tokens };
        let chosen = chooser.choose(logits, before.as_ref(), &rows.zeros_like(), Some(&chances));
        let token = chosen.clamp_min(0);
        if let (Some(past), Some(before)) = (past, before) {
            before.push(&token);
            past.replace(&rows, &before);
        }
        let _ = tokens.index_copy_(0, &rows, &token);
        let _ = positions.index_copy_(0, &rows, &lengths);
        let _ = written.index_fill_(0, &rows, 1);
        let chosen = Vec::<i64>::try_from(chosen.to_device(Device::Cpu))?;
        for (&(slot, _), id) in next.iter().zip(checked(chosen)?) {
            if self.take(&mut running[slot], id, each).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Runs steps until the host looks, and tells what they wrote.
    fn steps(
        &mut self,
        running: &mut [Option<Running>],
        each: &mut dyn FnMut(Written) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let live = || running.iter().flatten();
        let most = self.config.max_new_tokens;
        let left = live().map(|text| most - text.tokens.len()).max().unwrap_or(0);
        let steps = self.pace.stride.min(left);
        let longest = live().map(|text| text.prompt + text.tokens.len()).max().unwrap_or(0);
        let active = running.len() as i64;
        if let Some(chances) = &self.state.chances {
            // Of a slot without a text any will do.
            let of = |slot: &mut Option<Running>| match slot {
                Some(text) => text.chance.by_ref().take(steps).collect::<Vec<f64>>(),
                None => vec![0.5; steps],
            };
            let drawn: Vec<f64> = running.iter_mut().flat_map(of).collect();
            let drawn = Tensor::from_slice(&drawn).view([active, steps as i64]);
            chances.narrow(0, 0, active).narrow(1, 0, steps as i64).copy_(&drawn);
        }
        let _ = self.state.step.zero_();
        for step in 0..steps {
            let seen = (longest + step).next_multiple_of(self.pace.bucket) as i64;
            self.step(active, seen.min(self.capacity()))?;
        }
        let chosen = self.state.chosen.narrow(0, 0, active).narrow(1, 0, steps as i64);
        let chosen = Vec::<Vec<i64>>::try_from(chosen.to_device(Device::Cpu))?;
        for step in 0..steps {
            for (slot, chosen) in running.iter_mut().zip(&chosen) {
                if slot.is_none() {
                    continue;
                }
                let id = checked(vec![chosen[step]])?[0];
                if self.take(slot, id, each).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One step of the first `active` slots, recorded or not.
    fn step(&mut self, active: i64, seen: i64) -> Result<()> {
        let last = self.capacity() - 1;
        let ContinuousWriter { slots, tokens, config, state, recorder, .. } = self;
        let chooser = Chooser { config, tokens };
        let first = |of: &Tensor| of.narrow(0, 0, active);
        recorder.run(seen, || {
            let [mut tokens, mut positions, mut written] =
                [&state.tokens, &state.positions, &state.written].map(first);
            let past = state.past.as_ref().map(|past| past.first(active));
            let chances = state.chances.as_ref();
            let chances = chances.map(|all| first(all).index_select(1, &state.step).squeeze_dim(1));
            let logits = slots.step(&tokens, &positions, seen);
            let chosen = chooser.choose(logits, past.as_ref(), &written, chances.as_ref());
            let _ = first(&state.chosen).index_copy_(1, &state.step, &chosen.unsqueeze(1));
            tokens.copy_(&chosen.clamp_min(0));
            if let Some(past) = &past {
                past.push(&tokens);
            }
            // A text that is done runs on until the host looks, but not out of its slot.
            let _ = positions.g_add_scalar_(1);
            let _ = positions.clamp_max_(last);
            let _ = written.g_add_scalar_(1);
            let _ = state.step.g_add_scalar_(1);
            Ok::<(), Error>(())
        })?;
        if let Some(reason) = recorder.remark() {
            tracing::info!("text is written operation by operation: {reason}");
        }
        Ok(())
    }

    /// Takes a token of a slot's text, and the text where it is done.
    fn take(
        &self,
        slot: &mut Option<Running>,
        id: i64,
        each: &mut dyn FnMut(Written) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(running) = slot else { return ControlFlow::Continue(()) };
        let ended = self.tokens.eos.contains(&id);
        if !ended {
            running.tokens.push(id);
            each(Written::Token(running.text, id))?;
        }
        if ended || running.tokens.len() == self.config.max_new_tokens {
            let whole = Written::Text(running.text, std::mem::take(&mut running.tokens));
            *slot = None;
            each(whole)?;
        }
        ControlFlow::Continue(())
    }

    /// Moves the texts that are being written to the first slots, and leaves the others out.
    fn close_ranks(&mut self, running: &mut Vec<Option<Running>>) {
        let live: Vec<i64> =
            (0..).zip(&*running).filter(|(_, slot)| slot.is_some()).map(|(i, _)| i).collect();
        running.retain(Option::is_some);
        let used = running.iter().flatten().map(|text| text.prompt + text.tokens.len()).max();
        let rows = Tensor::from_slice(&live).to_device(self.pace.device);
        self.slots.keep(&rows, used.unwrap_or(0) as i64);
        let State { tokens, positions, written, past, .. } = &self.state;
        for of in [tokens, positions, written] {
            of.narrow(0, 0, live.len() as i64).copy_(&of.index_select(0, &rows));
        }
        if let Some(past) = past {
            let first = Tensor::arange(live.len() as i64, (Kind::Int64, self.pace.device));
            past.replace(&first, &past.of(&rows));
        }
    }
}

/// Refuses numbers that are not as many as the texts.
pub(super) fn paired(numbers: &[u64], texts: usize) -> Result<()> {
    match numbers.len() {
        n if n == texts => Ok(()),
        n => Err(Error::Generation(format!("{n} numbers of {texts} texts"))),
    }
}
