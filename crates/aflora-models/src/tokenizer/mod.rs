//! Text to token ids, with Hugging Face's tokenizers.

mod byte_bpe;
mod sentencepiece;
mod sentencepiece_bpe;
mod spm_file;

use crate::{foreign, Error, Result};
use serde::Deserialize;
use std::path::Path;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{EncodeInput, Encoding, Model, Tokenizer, TruncationParams, TruncationStrategy};

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
    /// The tokenizer of a model folder: its `tokenizer.json`, or else what is made of its
    /// SentencePiece `spm.model` or `tokenizer.model`, its byte-level BPE (`vocab.json` and `merges.txt`) or its
    /// WordPiece `vocab.txt`.
    ///
    /// Texts are cut to `max_length` tokens, the longer of a pair first.
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
        let mut tokenizer = read(folder)?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest > LARGEST_ID {
            let problem = format!("a token has the id {largest}; no vocabulary is so large");
            return Err(damaged(folder, &problem));
        }
        let pad_id = match tokenizer.get_padding() {
            Some(padding) => Some(padding.pad_id),
            None => ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token)),
        };
        // The file may ask for padding to a fixed length; batches are padded to their longest.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length,
                strategy: TruncationStrategy::LongestFirst,
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
        Ok(words.into_bytes())
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

fn read(folder: &Path) -> Result<Tokenizer> {
    let [json, spm, llama, bpe, merges, words] = VOCABULARIES.map(|name| folder.join(name));
    let config = TokenizerConfig::read(folder)?;
    if json.is_file() {
        Tokenizer::from_file(&json).map_err(|e| damaged(&json, &e.to_string()))
    } else if spm.is_file() {
        sentencepiece::read(&spm, config.do_lower_case.unwrap_or(false), config.split_by_punct)
    } else if llama.is_file() {
        sentencepiece_bpe::read(&llama)
    } else if bpe.is_file() && merges.is_file() {
        byte_bpe::read(&bpe, &merges, config.add_prefix_space)
    } else if words.is_file() {
        word_piece(&words, config.do_lower_case.unwrap_or(true))
    } else {
        Err(Error::Tokenizer {
            path: folder.to_path_buf(),
            problem:
                "no tokenizer here: expected `tokenizer.json`, a SentencePiece `spm.model` or \
                      `tokenizer.model`, `vocab.json` with `merges.txt`, or a WordPiece `vocab.txt`"
                    .into(),
        })
    }
}

fn damaged(path: &Path, words: &str) -> Error {
    Error::Tokenizer { path: path.to_path_buf(), problem: format!("damaged tokenizer: {words}") }
}

/// BERT's own tokenizer over a `vocab.txt` of one token a line.
fn word_piece(vocab: &Path, lowercase: bool) -> Result<Tokenizer> {
    let damaged = |words: &str| damaged(vocab, words);
    let path = vocab.to_str().ok_or_else(|| damaged("its path is not UTF-8"))?;
    let model = WordPiece::from_file(path)
        .unk_token("[UNK]".into())
        .build()
        .map_err(|e| damaged(&e.to_string()))?;
    let special = |token: &str| {
        let id = model.token_to_id(token);
        id.map(|id| (token.to_string(), id)).ok_or_else(|| damaged(&format!("no {token} in it")))
    };
    let (sep, cls) = (special("[SEP]")?, special("[CLS]")?);
    special("[UNK]")?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(true, true, None, lowercase)))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(sep, cls)));
    Ok(tokenizer)
}

/// The folder's `tokenizer_config.json`; empty without one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    do_lower_case: Option<bool>,
    split_by_punct: bool,
    add_prefix_space: bool,
}

impl TokenizerConfig {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer_config.json");
        if !path.is_file() {
            return Ok(TokenizerConfig::default());
        }
        let text = aflora_files::read_text(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|e| damaged(&path, &e.to_string()))
    }
}
