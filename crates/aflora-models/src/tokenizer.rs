//! Text to token ids, with Hugging Face's tokenizers.

use crate::{Error, Result};
use std::path::Path;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{EncodeInput, Model, Tokenizer, TruncationParams, TruncationStrategy};

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

impl TextEncoder {
    /// The tokenizer of a model folder: its `tokenizer.json`, or else its WordPiece `vocab.txt`.
    ///
    /// Texts are cut to `max_length` tokens, the longer of a pair first.
    ///
    /// # Errors
    /// The folder holds neither file, or a damaged one, or `max_length` is below [`SHORTEST`].
    pub fn from_folder(folder: &Path, max_length: usize) -> Result<Self> {
        if max_length < SHORTEST {
            let problem = format!("max_length is {max_length}, but must be at least {SHORTEST}");
            return Err(Error::Encode(problem));
        }
        let json = folder.join("tokenizer.json");
        let vocab = folder.join("vocab.txt");
        let mut tokenizer = if json.is_file() {
            Tokenizer::from_file(&json).map_err(|e| damaged(&json, &e.to_string()))?
        } else if vocab.is_file() {
            word_piece(&vocab, lower_cases(folder)?)?
        } else {
            return Err(Error::Tokenizer {
                path: folder.to_path_buf(),
                problem: "no tokenizer here: expected `tokenizer.json` or a WordPiece `vocab.txt`"
                    .into(),
            });
        };
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
        let encodings = self
            .tokenizer
            .encode_batch_fast(inputs, true)
            .map_err(|e| Error::Encode(e.to_string()))?;
        let wide = |ids: &[u32]| ids.iter().map(|&id| i64::from(id)).collect();
        Ok(encodings
            .iter()
            .map(|e| Encoded {
                ids: wide(e.get_ids()),
                type_ids: wide(e.get_type_ids()),
                truncated: !e.get_overflowing().is_empty(),
            })
            .collect())
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

/// `do_lower_case` of a folder's `tokenizer_config.json`; true, as BERT has it, without one.
fn lower_cases(folder: &Path) -> Result<bool> {
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(true);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let keys: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| damaged(&path, &e.to_string()))?;
    Ok(keys.get("do_lower_case").and_then(|v| v.as_bool()).unwrap_or(true))
}
