//! Text to token ids, with Hugging Face's tokenizers.

mod byte_bpe;
mod limits;
mod resolve;
mod sentencepiece;
mod sentencepiece_bpe;
mod settings;
mod spm_file;

use crate::{foreign, Error, Result};
use std::path::Path;
use tokenizers::{
    EncodeInput, Encoding, PaddingParams, Tokenizer, TruncationParams, TruncationStrategy,
};

/// One encoded text or pair of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included.
    pub ids: Vec<i64>,
    /// 0 for the first text, 1 for the second.
    pub type_ids: Vec<i64>,
    /// Whether tokens were cut off.
    pub truncated: bool,
}

/// A tokenizer that truncates to a maximum length and never pads.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    pad_id: i64,
}

/// Room for `[CLS] a [SEP] b [SEP]`, the least that makes sense for a pair.
pub const SHORTEST: usize = 8;

/// Far above any vocabulary: what is written of one holds a place for every id below its largest.
const LARGEST_ID: u32 = 1 << 24;

impl TextEncoder {
    /// The tokenizer of a model folder, of the first of [`VOCABULARIES`] that it holds and of all
    /// [`SETTINGS`] beside it.
    ///
    /// Texts are cut to `max_length` tokens, the longer of a pair first, at their ends unless the
    /// settings say `truncation_side: left`.
    ///
    /// # Errors
    /// The folder holds none of them, or a damaged one, or `max_length` is below [`SHORTEST`].
    pub fn from_folder(folder: &Path, max_length: usize) -> Result<Self> {
        if max_length < SHORTEST {
            let problem = format!("max_length is {max_length}, but must be at least {SHORTEST}");
            return Err(Error::Encode(problem));
        }
        foreign::held(|| Self::open(folder, max_length))
            .unwrap_or_else(|problem| Err(damaged(folder, &problem)))
    }

    fn open(folder: &Path, max_length: usize) -> Result<Self> {
        let (mut tokenizer, settings) = resolve::read(folder)?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest > LARGEST_ID {
            let problem = format!("a token has the id {largest}; no vocabulary is so large");
            return Err(damaged(folder, &problem));
        }
        let named = settings.named().find(|(name, _)| *name == "pad_token");
        let named = named.and_then(|(_, token)| tokenizer.token_to_id(&token.content));
        let usual = || ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token));
        let padding = || tokenizer.get_padding().map(|padding| padding.pad_id);
        let pad_id = named.or_else(padding).or_else(usual);
        let side = settings.truncation_side(folder)?;
        let own = tokenizer.get_truncation().map(|truncation| truncation.direction);
        // The file may ask for padding to a fixed length; batches are padded to their longest.
        tokenizer.with_padding(None::<PaddingParams>);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length,
                strategy: TruncationStrategy::LongestFirst,
                direction: side.or(own).unwrap_or_default(),
                ..Default::default()
            }))
            .map_err(|e| Error::Encode(e.to_string()))?;
        Ok(TextEncoder { tokenizer, pad_id: i64::from(pad_id.unwrap_or(0)) })
    }

    /// Encodes texts or pairs of texts, on all cores.
    pub fn encode(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Encoded>> {
        let inputs: Vec<EncodeInput> = texts
            .iter()
            .map(|&(a, b)| match b {
                Some(b) => EncodeInput::Dual(a.into(), b.into()),
                None => EncodeInput::Single(a.into()),
            })
            .collect();
        Ok(self
            .encodings(inputs, true)?
            .iter()
            .map(|e| Encoded {
                ids: wide(e.get_ids()),
                type_ids: wide(e.get_type_ids()),
                truncated: !e.get_overflowing().is_empty(),
            })
            .collect())
    }

    /// Token ids of texts without special tokens around them.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub fn encode_plain(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        let encodings = self.encodings(texts.iter().map(|&text| text.into()).collect(), false)?;
        Ok(encodings.iter().map(|e| wide(e.get_ids())).collect())
    }

    /// The special tokens that stand before a text.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn before(&self) -> Result<Vec<i64>> {
        let encoding = self.encodings(vec!["a".into()], true)?.pop();
        Ok(encoding.map_or_else(Vec::new, |e| {
            let special = e.get_special_tokens_mask().iter().take_while(|&&special| special == 1);
            wide(&e.get_ids()[..special.count()])
        }))
    }

    fn encodings(&self, inputs: Vec<EncodeInput>, special: bool) -> Result<Vec<Encoding>> {
        foreign::held(|| self.tokenizer.encode_batch_fast(inputs, special))
            .map_err(Error::Encode)?
            .map_err(|e| Error::Encode(e.to_string()))
    }

    /// All that decides which tokens a text becomes.
    ///
    /// # Errors
    /// A part of the tokenizer cannot be written down.
    pub fn fingerprint(&self) -> Result<Vec<u8>> {
        let words = foreign::held(|| self.tokenizer.to_string(false))
            .map_err(Error::Encode)?
            .map_err(|e| Error::Encode(e.to_string()))?;
        // What is not written down there.
        let special = self.tokenizer.get_encode_special_tokens();
        Ok(format!("{words}{special}").into_bytes())
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// An id is none of the tokenizer's.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let ids: std::result::Result<Vec<u32>, _> = ids.iter().map(|&id| id.try_into()).collect();
        let ids = ids.map_err(|_| Error::Encode("a token id is negative or too large".into()))?;
        foreign::held(|| self.tokenizer.decode(&ids, true))
            .map_err(Error::Encode)?
            .map_err(|e| Error::Encode(e.to_string()))
    }

    /// The id that fills a batch up; 0 where the tokenizer has no padding token (it is masked).
    pub fn pad_id(&self) -> i64 {
        self.pad_id
    }

    /// The largest token id plus one.
    pub fn vocab_size(&self) -> i64 {
        let largest = self.tokenizer.get_vocab(true).into_values().max();
        largest.map_or(0, |id| i64::from(id) + 1)
    }
}

fn wide(ids: &[u32]) -> Vec<i64> {
    ids.iter().map(|&id| i64::from(id)).collect()
}

/// Every file that says something about a tokenizer: [`VOCABULARIES`], [`SETTINGS`] and the chat
/// template. What is copied with a model is these.
pub const FILES: [&str; 10] = [
    "tokenizer.json",
    "spm.model",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// The files that a vocabulary is read from: the first that there is, `vocab.json` with its
/// `merges.txt`.
pub const VOCABULARIES: [&str; 6] =
    ["tokenizer.json", "spm.model", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"];

/// The files beside the vocabulary that decide which tokens a text becomes.
pub const SETTINGS: [&str; 3] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

fn damaged(path: &Path, words: &str) -> Error {
    Error::Tokenizer { path: path.to_path_buf(), problem: format!("damaged tokenizer: {words}") }
}
