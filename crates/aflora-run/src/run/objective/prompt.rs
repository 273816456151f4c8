//! Where a decoder's prompt ends and its target begins.
//!
//! In training a decoder reads prompt and target as one row; to write, it is given the prompt
//! alone. Both must be the same tokens, or the model is asked to go on from where it never was: a
//! space at the end of a prompt is a token of its own there, while in `=> four` it belongs to the
//! word behind it. So
//!
//! * spaces at the prompt's end are moved to the target, as evaluation harnesses do it: the model
//!   writes ` four`, a word as it was pretrained on, and what it writes is trimmed;
//! * the target's tokens are those behind the prompt's where the two texts as one begin with the
//!   prompt's tokens; where a token would reach over the border, the two are tokenised apart;
//! * the tokens that a tokenizer puts before a text stand before the prompt. What it would put
//!   behind one (`[SEP]`, or an end token by `add_eos_token`) would end the text before it begins:
//!   the target's end token is the model's.

use crate::task::INPUT;
use aflora_models::TextEncoder;
use anyhow::Result;

/// Makes tokens of prompts, and of prompts with their targets.
#[derive(Debug)]
pub(super) struct Prompts {
    /// The tokenizer.
    pub encoder: TextEncoder,
    /// What stands before every text.
    before: Vec<i64>,
    /// The prompt, with [`INPUT`] where the input comes.
    template: String,
    /// What a target ends with.
    eos: i64,
}

/// A prompt with its target, or without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PromptTokens {
    /// All tokens, the end token included.
    pub ids: Vec<i64>,
    /// How many of them are the prompt's.
    pub prompt: usize,
}

impl Prompts {
    /// Prompts of this form, as tokens of `encoder`, which must not cut them.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(super) fn new(encoder: TextEncoder, template: &str, eos: i64) -> Result<Self> {
        let before = encoder.before()?;
        Ok(Prompts { encoder, before, template: template.into(), eos })
    }

    /// The prompt of an input without the spaces at its end, and those.
    fn split(&self, input: &str) -> (String, String) {
        let mut prompt = self.template.replace(INPUT, input);
        let spaces = prompt.split_off(prompt.trim_end_matches(' ').len());
        (prompt, spaces)
    }

    /// The tokens to write on after, an input each.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub(super) fn alone(&self, inputs: &[&str]) -> Result<Vec<Vec<i64>>> {
        let prompts: Vec<String> = inputs.iter().map(|input| self.split(input).0).collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let ids = self.encoder.encode_plain(&prompts)?;
        Ok(ids.into_iter().map(|ids| self.begun(ids)).collect())
    }

    /// The tokens to learn from, a pair of input and target each.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub(super) fn with_targets(&self, pairs: &[(&str, &str)]) -> Result<Vec<PromptTokens>> {
        let inputs: Vec<&str> = pairs.iter().map(|(input, _)| *input).collect();
        let prompts = self.alone(&inputs)?;
        let split = pairs.iter().map(|(input, target)| {
            let (prompt, spaces) = self.split(input);
            (format!("{prompt}{spaces}{target}"), format!("{spaces}{target}"))
        });
        let (whole, targets): (Vec<String>, Vec<String>) = split.unzip();
        let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
        let whole = self.encoder.encode_plain(&whole)?;
        let mut rows = Vec::with_capacity(pairs.len());
        for ((prompt, whole), target) in prompts.into_iter().zip(whole).zip(targets) {
            let whole = self.begun(whole);
            let mut target = match whole.strip_prefix(prompt.as_slice()) {
                Some(behind) => behind.to_vec(),
                None => self.encoder.encode_plain(&[&target])?.concat(),
            };
            if target.last() != Some(&self.eos) {
                target.push(self.eos);
            }
            rows.push(PromptTokens { prompt: prompt.len(), ids: [prompt, target].concat() });
        }
        Ok(rows)
    }

    /// With what stands before a text. Nothing at all cannot be written on after: GPT-2's texts
    /// follow the end of the one before.
    fn begun(&self, ids: Vec<i64>) -> Vec<i64> {
        match self.before.is_empty() && ids.is_empty() {
            true => vec![self.eos],
            false => [self.before.as_slice(), &ids].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// Byte-level BPE with and without special tokens around a text, SentencePiece's unigram and
    /// BPE, word pieces.
    fn tokenizers() -> [(&'static str, PathBuf); 6] {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let models = own.join("../../configs/models");
        let fixtures = own.join("../aflora-models/tests/fixtures");
        [
            ("byte-level BPE", models.join("tiny-llama")),
            ("byte-level BPE with prefix", models.join("tiny-bart")),
            ("RoBERTa's", fixtures.join("bpe")),
            ("SentencePiece unigram", models.join("tiny-deberta")),
            ("SentencePiece BPE", fixtures.join("llama_bpe")),
            ("word pieces", fixtures.join("word_piece")),
        ]
    }

    const EOS: i64 = 2;

    fn prompts(folder: &Path, template: &str) -> Prompts {
        let encoder = TextEncoder::from_folder(folder, 1 << 20).unwrap();
        Prompts::new(encoder, template, EOS).unwrap()
    }

    #[test]
    fn a_training_row_begins_with_the_very_tokens_that_are_written_after() {
        let templates =
            ["{input} => ", "{input} =>", "{input}", "{input}\n", "# {input}:\n\n", "{input}  "];
        let inputs = ["", " ", "twelve", "good fil", "a\nb ", "naïve ﬁlm 12", "\u{1f600}", "the "];
        let targets = ["", "12", " four", "ms", "\n7", "is good", "é\u{301}", "\u{1f600}", "  x "];
        for (name, folder) in tokenizers() {
            for template in templates {
                let prompts = prompts(&folder, template);
                let pairs: Vec<(&str, &str)> =
                    inputs.iter().flat_map(|i| targets.map(|t| (*i, t))).collect();
                let rows = prompts.with_targets(&pairs).unwrap();
                for ((input, target), row) in pairs.into_iter().zip(rows) {
                    let alone = prompts.alone(&[input]).unwrap().concat();
                    let place = format!("{name}, {template:?}, {input:?}, {target:?}");
                    assert_eq!(row.ids[..row.prompt], alone, "{place}");
                    assert_eq!(row.ids.last(), Some(&EOS), "{place}");
                    assert!(!alone.is_empty(), "{place}");
                }
            }
        }
    }

    #[test]
    fn what_is_learned_is_the_target_s_text() {
        for (name, folder) in tokenizers() {
            for template in ["{input} => ", "{input} =>", "{input}\n"] {
                let prompts = prompts(&folder, template);
                for target in ["film", "is good", "it was a film"] {
                    let row = &prompts.with_targets(&[("the film", target)]).unwrap()[0];
                    let learned = &row.ids[row.prompt..row.ids.len() - 1];
                    let text = prompts.encoder.decode(learned).unwrap();
                    let plain = text.replace([' ', '▁'], "").replace("##", "");
                    assert_eq!(plain, target.replace(' ', ""), "{name}, {template:?}");
                }
            }
        }
    }

    /// `=>` then `Ġfour`, and not `=>`, `Ġ`, `four`: with and without a space behind the prompt.
    #[test]
    fn a_space_behind_the_prompt_changes_no_token() {
        let [(_, folder), ..] = tokenizers();
        let with = prompts(&folder, "{input} => ").with_targets(&[("four", "4")]).unwrap();
        let moved = prompts(&folder, "{input} =>").with_targets(&[("four", " 4")]).unwrap();
        assert_eq!(with, moved);
    }

    #[test]
    fn what_a_tokenizer_puts_behind_a_text_is_not_in_a_prompt() {
        let [.., (_, folder)] = tokenizers();
        let encoder = TextEncoder::from_folder(&folder, 64).unwrap();
        let around = &encoder.encode(&[("the film", None)]).unwrap()[0].ids;
        let alone = prompts(&folder, "{input}").alone(&["the film"]).unwrap().concat();
        assert_eq!(alone, around[..around.len() - 1]);
    }
}
