//! Pairs of texts as tokens, for training and for writing alike.
//!
//! A mere decoder reads prompt and target as one row that ends with the end token
//! (`prompt.rs`); its loss is on the target, or on the prompt too. An encoder-decoder reads the
//! prompt and writes the target. Texts are written with the prompt alone, as after training.

use super::conversations::Conversations;
use super::prompt::Prompts;
use crate::kinds::ModelContext;
use crate::metrics::Answer;
use crate::run::batches::CHUNK;
use crate::run::tokens::{CacheKey, TableWriter, Tokens, EMPTY, TRUNCATED};
use crate::task::{pair, Example, TaskSpec, INPUT};
use crate::ui::Progress;
use aflora_models::generate::{GenerationConfig, ModelSettings, SpecialTokens};
use aflora_models::{ModelSource, TextEncoder};
use anyhow::{bail, Context, Result};
use std::path::Path;
use std::sync::Arc;
use tch::Device;

/// What a label says where there is nothing to learn.
pub(super) const NONE: i64 = -100;

/// How a task whose examples are pairs of texts, input and target, makes tokens of them.
#[derive(Debug)]
pub struct TextPairs {
    pub(super) learned: Learned,
    /// Whether rows to learn from are put together.
    pub(super) packing: bool,
    form: Form,
    /// How the model talks, where examples are conversations.
    pub(super) conversations: Option<Box<Conversations>>,
    pub(super) task: Arc<TaskSpec>,
    /// How texts are written: as the task says, else as the model's files have it.
    pub(super) generation: GenerationConfig,
    pub(super) tokens: SpecialTokens,
    eos: i64,
    pub(super) pad: i64,
    pub(super) max_length: usize,
    /// The longest prompt that leaves room for what is written.
    pub(super) longest_prompt: usize,
    /// The device on which the model computes.
    pub(super) device: Device,
}

/// What a task's examples are to learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// An input, and the target to be written for it.
    Pairs,
    /// A text.
    Documents,
    /// A conversation.
    Conversations,
}

/// What reads and writes, with what makes tokens of its texts.
#[derive(Debug)]
enum Form {
    /// A mere decoder, of one row of prompt and target.
    Decoder(Box<Prompts>),
    /// An encoder-decoder, of source and target.
    EncoderDecoder { source: Box<TextEncoder>, target: Box<TextEncoder> },
}

impl Form {
    fn encoder(&self) -> &TextEncoder {
        match self {
            Form::Decoder(prompts) => &prompts.encoder,
            Form::EncoderDecoder { source, .. } => source,
        }
    }
}

// Columns of the table of tokens.

/// What is read in training: prompt and target of a decoder, the source of an encoder-decoder.
pub(super) const IDS: usize = 0;
/// The token wanted after each of a decoder's tokens, or the tokens an encoder-decoder should
/// write; [`NONE`] where it does not matter.
pub(super) const LABELS: usize = 1;
/// What a decoder reads to write on; an encoder-decoder reads [`IDS`].
pub(super) const PROMPT: usize = 2;

impl TextPairs {
    /// Tokens as the model's tokenizer makes them, for a model that writes.
    ///
    /// # Errors
    /// The model does not write, its tokenizer is missing or damaged, or the model knows no end
    /// token, or too few positions for what should be written.
    pub fn new(with: &ModelContext<'_>, learned: Learned) -> Result<Self> {
        let &ModelContext { task, source, backbone, max_length, device } = with;
        let ModelSource { model: folder, tokenizer } = source;
        let tokens = backbone.text_generator().context("the model does not write")?.tokens();
        let max_positions = backbone.about().max_positions;
        let Some(&eos) = tokens.eos.first() else {
            bail!(
                "{}: neither generation_config.json nor config.json has an eos_token_id among the \
                 model's tokens, without which no text learns to end; set it to the tokenizer's \
                 end token",
                folder.display()
            );
        };
        let packing = task.packing || learned == Learned::Documents;
        if packing && tokens.decoder_start.is_some() {
            crate::usage!(
                "rows are packed for a mere decoder alone; this model reads one text and writes \
                 another"
            );
        }
        if learned == Learned::Conversations && tokens.decoder_start.is_some() {
            crate::usage!(
                "conversations are learned by a mere decoder alone; this model reads one text and \
                 writes another"
            );
        }
        let positions = usize::try_from(max_positions).unwrap_or(usize::MAX);
        let model =
            ModelSettings::read(&folder.join("config.json"), tokens.decoder_start.is_some())?;
        let mut generation = task.generation.over(&model.settings);
        generation.validate()?;
        let new = generation.max_new_tokens;
        let room = match tokens.decoder_start {
            Some(_) => positions.saturating_sub(1),
            // A prompt of some length must fit before it.
            None => positions.saturating_sub(aflora_models::tokenizer::SHORTEST),
        };
        if new > room {
            crate::usage!(
                "task.generation.max_new_tokens is {new}, but the model has {positions} positions; \
                 set it to {room} or less"
            );
        }
        let (form, longest_prompt) = match tokens.decoder_start {
            Some(_) => {
                let longest = task.max_target_length.max(aflora_models::tokenizer::SHORTEST);
                let source = Box::new(TextEncoder::from_folder(tokenizer, max_length)?);
                let target = Box::new(TextEncoder::from_folder(tokenizer, longest)?);
                (Form::EncoderDecoder { source, target }, max_length)
            }
            None => {
                let encoder = TextEncoder::from_folder(tokenizer, 1 << 30)?;
                let prompts = Prompts::new(encoder, &task.prompt, eos)?;
                (Form::Decoder(Box::new(prompts)), positions - new)
            }
        };
        let conversations = match learned {
            Learned::Conversations => {
                let talks = Conversations::new(task, tokenizer, form.encoder(), eos)?;
                generation.further_eos = talks.ends().to_vec();
                Some(Box::new(talks))
            }
            Learned::Pairs | Learned::Documents => None,
        };
        Ok(TextPairs {
            learned,
            packing,
            conversations,
            pad: tokens.pad.unwrap_or(form.encoder().pad_id()),
            form,
            task: task.clone(),
            generation,
            tokens: tokens.clone(),
            eos,
            max_length,
            longest_prompt,
            device,
        })
    }

    /// The tokenizer of what is read.
    pub(super) fn encoder(&self) -> &TextEncoder {
        self.form.encoder()
    }

    /// The tokens of what is read to write on, an input each, and whether it was cut.
    pub(super) fn begin(&self, inputs: &[&str]) -> Result<Vec<(Vec<i64>, bool)>> {
        match &self.form {
            Form::Decoder(_) if self.learned == Learned::Conversations => {
                inputs.iter().map(|input| self.asked_of(input, false)).collect()
            }
            Form::Decoder(prompts) => {
                Ok(prompts.alone(inputs)?.into_iter().map(|ids| (ids, false)).collect())
            }
            Form::EncoderDecoder { source, .. } => {
                let texts = inputs.iter().map(|input| self.task.prompt.replace(INPUT, input));
                let texts: Vec<String> = texts.collect();
                tokens(source, texts.iter().map(String::as_str))
            }
        }
    }

    /// The tokens of a text that no prompt goes around, and whether it was cut.
    pub(super) fn begin_raw(&self, text: &str) -> Result<(Vec<i64>, bool)> {
        match &self.form {
            Form::Decoder(prompts) => Ok((prompts.raw(text)?, false)),
            Form::EncoderDecoder { source, .. } => {
                Ok(tokens(source, std::iter::once(text))?.remove(0))
            }
        }
    }

    /// The pairs as tokens, or what an earlier run left of them in `cache`.
    pub(super) fn encode(
        &self,
        examples: &[Example],
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Tokens> {
        let TextPairs { task, tokens, eos, max_length, longest_prompt, .. } = self;
        let settings = (
            (&task.prompt, task.train_on_inputs, task.max_target_length),
            (tokens.decoder_start.is_some(), eos, max_length, longest_prompt),
            // How prompt and target meet.
            match self.learned {
                Learned::Pairs => "prompt apart".to_string(),
                Learned::Documents => "documents in pieces".to_string(),
                Learned::Conversations => {
                    format!("{} {}", self.writes(), self.talks()?.fingerprint())
                }
            },
        );
        let mut key = CacheKey::new(&self.encoder().fingerprint()?, &settings);
        for example in examples {
            key.add(Some(input_of(example)));
            key.add(Some(target_of(example)));
        }
        Tokens::cached(cache, key, 3, |writer| {
            progress.begin("tokens", examples.len() as u64);
            for (done, chunk) in (1..).zip(examples.chunks(CHUNK)) {
                self.tokenise(chunk, writer)?;
                progress.update((done * CHUNK).min(examples.len()) as u64, "");
            }
            progress.end();
            Ok(())
        })
    }

    fn tokenise(&self, examples: &[Example], writer: &mut TableWriter) -> Result<()> {
        let mut push = |ids: &[i64], labels: &[i64], prompt: &[i64], truncated: bool| {
            let empty = labels.iter().all(|&label| label == NONE);
            let flags = [(truncated, TRUNCATED), (empty, EMPTY)];
            let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
            writer.push(&[ids, labels, prompt], flags)
        };
        let prompts = match &self.form {
            Form::Decoder(prompts) => prompts,
            Form::EncoderDecoder { target, .. } => {
                let inputs: Vec<&str> = examples.iter().map(input_of).collect();
                let targets = tokens(target, examples.iter().map(target_of))?;
                for ((ids, cut), (labels, target_cut)) in
                    self.begin(&inputs)?.into_iter().zip(targets)
                {
                    let labels = with_end(labels, self.eos, target_cut);
                    push(&ids, &labels, &[], cut || target_cut)?;
                }
                return Ok(());
            }
        };
        match self.learned {
            Learned::Pairs => self.pairs(prompts, examples, &mut push),
            Learned::Documents => self.documents(prompts, examples, &mut push),
            Learned::Conversations => self.conversations(prompts, examples, &mut push),
        }
    }

    /// What examples are called in a message, what of one is learned, and what of all.
    pub(super) fn called(&self) -> [&'static str; 3] {
        match self.learned {
            Learned::Pairs | Learned::Documents => ["texts", "its target", "their whole target"],
            Learned::Conversations => {
                ["conversations", "anything to learn", "all that is learned of them"]
            }
        }
    }

    /// Whether an evaluation has texts written: for conversations, where a metric compares them.
    pub(super) fn writes(&self) -> bool {
        match self.learned {
            Learned::Pairs => true,
            Learned::Documents => false,
            Learned::Conversations => self.task.metrics.iter().any(|metric| !metric.is_of_loss()),
        }
    }

    /// The column of what is read to write on.
    pub(super) fn prompts(&self) -> usize {
        match self.tokens.decoder_start {
            Some(_) => IDS,
            None => PROMPT,
        }
    }

    /// The prompt's end, where it is too long, behind its first token.
    pub(super) fn fitting(&self, mut prompt: Vec<i64>) -> Vec<i64> {
        let over = prompt.len().saturating_sub(self.longest_prompt);
        if over > 0 {
            prompt.drain(1..=over);
        }
        prompt
    }

    /// The same of a prompt that may have been cut before; and whether it was, then or now.
    pub(super) fn fitted(&self, (prompt, cut): (Vec<i64>, bool)) -> (Vec<i64>, bool) {
        let whole = prompt.len();
        let prompt = self.fitting(prompt);
        let cut = cut || prompt.len() < whole;
        (prompt, cut)
    }
}

/// The text that an example gives.
pub(super) fn input_of(example: &Example) -> &str {
    pair(&example.texts).0
}

/// The text that an example wants.
pub(super) fn target_of(example: &Example) -> &str {
    match &example.right {
        Answer::Text(text) => text,
        _ => "",
    }
}

/// Token ids of texts, and whether each was cut.
fn tokens<'a>(
    encoder: &TextEncoder,
    texts: impl Iterator<Item = &'a str>,
) -> Result<Vec<(Vec<i64>, bool)>> {
    let texts: Vec<(&str, Option<&str>)> = texts.map(|text| (text, None)).collect();
    Ok(encoder.encode(&texts)?.into_iter().map(|e| (e.ids, e.truncated)).collect())
}

/// A text with its end token, unless it was cut before its end.
fn with_end(mut ids: Vec<i64>, eos: i64, cut: bool) -> Vec<i64> {
    if !cut && ids.last() != Some(&eos) {
        ids.push(eos);
    }
    ids
}
