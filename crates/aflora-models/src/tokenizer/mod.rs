//! Text to token ids, with Hugging Face's tokenizers.

mod byte_bpe;
pub(crate) mod limits;
mod parts;
mod resolve;
mod sentencepiece;
pub(crate) mod sentencepiece_bpe;
mod settings;
mod spaces;
pub(crate) mod spm_file;
mod stream;
mod unmet;

use crate::{panics, Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use tokenizers::parallelism::*;
use tokenizers::{
    truncate_encodings, Encoding, PaddingParams, PostProcessor as _, PreTokenizerWrapper,
    Tokenizer, TruncationParams, TruncationStrategy,
};

pub use stream::TextStream;

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

/// The words of a text, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWords {
    /// Their tokens.
    pub encoded: Encoded,
    /// For each word the place of its first token; none of a word that was cut off, or has no
    /// token.
    pub firsts: Vec<Option<usize>>,
}

/// The tokens of a text, and where each lies in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedTokens {
    /// Token ids.
    pub ids: Vec<i64>,
    /// The bytes of the text that each stands for.
    pub places: Vec<Range<usize>>,
}

impl PlacedTokens {
    /// Which tokens stand for some of these parts of the text, as transformers' mask of the
    /// assistant's tokens has it.
    pub fn of(&self, parts: &[Range<usize>]) -> Vec<bool> {
        let within = |token: &Range<usize>| {
            parts.iter().any(|part| token.start < part.end && part.start < token.end)
        };
        self.places.iter().map(within).collect()
    }
}

/// A tokenizer that truncates to a maximum length and never pads.
#[derive(Debug)]
pub struct TextEncoder {
    /// It does not truncate: of a pair whose texts it cuts into many parts, it puts every part of
    /// one together with every part of the other.
    tokenizer: Tokenizer,
    truncation: TruncationParams,
    pad_id: i64,
    /// Whether texts of tokens lose the spaces of [`spaces`].
    cleans: bool,
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
            return Err(Error::Core(aflora_core::Error::Setting {
                field: "max_length",
                value: max_length.to_string(),
                expected: format!("at least {SHORTEST}").into(),
            }));
        }
        panics::catch_reading(|| Self::open(folder, max_length))
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
        let usual = || {
            ["[PAD]", "<pad>", "<|padding|>"].iter().find_map(|token| tokenizer.token_to_id(token))
        };
        let padding = || tokenizer.get_padding().map(|padding| padding.pad_id);
        let pad_id = named.or_else(padding).or_else(usual);
        let cleans = settings.cleans(folder, tokenizer.get_model())?;
        let side = settings.truncation_side(folder)?;
        let own = tokenizer.get_truncation().map(|truncation| truncation.direction);
        // The file may ask for padding to a fixed length; batches are padded to their longest.
        tokenizer.with_padding(None::<PaddingParams>);
        tokenizer.with_truncation(None).map_err(|e| Error::Encode(e.to_string()))?;
        let truncation = TruncationParams {
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            direction: side.or(own).unwrap_or_default(),
            ..Default::default()
        };
        Ok(TextEncoder { tokenizer, truncation, pad_id: i64::from(pad_id.unwrap_or(0)), cleans })
    }

    /// Encodes texts or pairs of texts, on all cores.
    ///
    /// # Errors
    /// The tokenizer refuses a text, or panics on one.
    pub fn encode(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Encoded>> {
        Ok(self
            .encodings(texts.to_vec(), true)?
            .iter()
            .map(|(e, truncated)| Encoded {
                ids: wide(e.get_ids()),
                type_ids: wide(e.get_type_ids()),
                truncated: *truncated,
            })
            .collect())
    }

    /// Encodes texts whose words are known. A tokenizer that takes the space before a word into its
    /// token is given one before every word, as transformers' `add_prefix_space` does.
    ///
    /// # Errors
    /// The tokenizer refuses a word, or panics on one.
    pub fn encode_words(&self, texts: &[&[String]]) -> Result<Vec<EncodedWords>> {
        let space = if self.takes_spaces() { " " } else { "" };
        let each = |words: &[String]| -> tokenizers::Result<EncodedWords> {
            let spaced: Vec<String> = words.iter().map(|word| format!("{space}{word}")).collect();
            let (e, truncated) = self.around(self.tokenizer.encode(spaced, false)?, None, true)?;
            let mut firsts = vec![None; words.len()];
            for (place, word) in e.get_word_ids().iter().enumerate() {
                let first = word.and_then(|word| firsts.get_mut(word as usize));
                if let Some(first) = first {
                    first.get_or_insert(place);
                }
            }
            let (ids, type_ids) = (wide(e.get_ids()), wide(e.get_type_ids()));
            Ok(EncodedWords { encoded: Encoded { ids, type_ids, truncated }, firsts })
        };
        panics::catch_reading(|| {
            texts.to_vec().into_maybe_par_iter().map(each).collect::<tokenizers::Result<_>>()
        })
        .map_err(Error::Encode)?
        .map_err(|e| Error::Encode(e.to_string()))
    }

    /// Whether a space before a word belongs to its token, and the tokenizer puts none there itself.
    fn takes_spaces(&self) -> bool {
        fn is_bare(part: &PreTokenizerWrapper) -> bool {
            match part {
                PreTokenizerWrapper::ByteLevel(bytes) => !bytes.add_prefix_space,
                PreTokenizerWrapper::Sequence(parts) => parts.as_ref().iter().any(is_bare),
                _ => false,
            }
        }
        self.tokenizer.get_pre_tokenizer().is_some_and(is_bare)
    }

    /// Token ids of texts without special tokens around them.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub fn encode_plain(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        let encodings = self.encodings(texts.iter().map(|&text| (text, None)).collect(), false)?;
        Ok(encodings.iter().map(|(e, _)| wide(e.get_ids())).collect())
    }

    /// Token ids of texts without special tokens around them, and the bytes of the text that each
    /// stands for.
    ///
    /// # Errors
    /// A text cannot be encoded.
    pub fn encode_with_places(&self, texts: &[&str]) -> Result<Vec<PlacedTokens>> {
        let each = |text: &str| -> tokenizers::Result<PlacedTokens> {
            let encoding = self.tokenizer.encode(text, false)?;
            let places = encoding.get_offsets().iter().map(|&(start, end)| start..end);
            Ok(PlacedTokens { ids: wide(encoding.get_ids()), places: places.collect() })
        };
        panics::catch_reading(|| {
            texts.to_vec().into_maybe_par_iter().map(each).collect::<tokenizers::Result<_>>()
        })
        .map_err(Error::Encode)?
        .map_err(|e| Error::Encode(e.to_string()))
    }

    /// The texts of the tokens beside the vocabulary that a text is parted by before all else, such
    /// as those that end a text or a turn.
    pub fn added_tokens(&self) -> Vec<String> {
        let added = self.tokenizer.get_added_tokens_decoder().into_values();
        let mut added: Vec<String> = added.map(|token| token.content).collect();
        added.retain(|token| !token.trim().is_empty());
        added.sort();
        added
    }

    /// The special tokens that stand before a text.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn before(&self) -> Result<Vec<i64>> {
        let encoding = self.encodings(vec![("a", None)], true)?.pop();
        Ok(encoding.map_or_else(Vec::new, |(e, _)| {
            let special = e.get_special_tokens_mask().iter().take_while(|&&special| special == 1);
            wide(&e.get_ids()[..special.count()])
        }))
    }

    /// Tokens, and whether some were cut off.
    fn encodings(
        &self,
        inputs: Vec<(&str, Option<&str>)>,
        special: bool,
    ) -> Result<Vec<(Encoding, bool)>> {
        let each = |input| self.encoding(input, special);
        panics::catch_reading(|| {
            inputs.into_maybe_par_iter().map(each).collect::<tokenizers::Result<_>>()
        })
        .map_err(Error::Encode)?
        .map_err(|e| Error::Encode(e.to_string()))
    }

    fn encoding(
        &self,
        (first, second): (&str, Option<&str>),
        special: bool,
    ) -> tokenizers::Result<(Encoding, bool)> {
        let first = self.tokenizer.encode_fast(first, false)?;
        let second = second.map(|text| self.tokenizer.encode_fast(text, false)).transpose()?;
        let second = second.map(|mut tokens| {
            tokens.set_type_ids(vec![1; tokens.len()]);
            tokens
        });
        self.around(first, second, special)
    }

    /// Tokens cut to the maximum length, with the special ones around them; and whether some were
    /// cut off.
    fn around(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        special: bool,
    ) -> tokenizers::Result<(Encoding, bool)> {
        let around = match self.tokenizer.get_post_processor() {
            Some(processor) if special => processor.added_tokens(second.is_some()),
            _ => 0,
        };
        let max_length = self.truncation.max_length.saturating_sub(around);
        let truncation = TruncationParams { max_length, ..self.truncation };
        let (mut first, mut second) = truncate_encodings(first, second, &truncation)?;
        let parts = [Some(&mut first), second.as_mut()];
        let cut = parts
            .into_iter()
            .flatten()
            .map(|tokens| tokens.take_overflowing().len())
            .sum::<usize>();
        Ok((self.tokenizer.post_process(first, second, special)?, cut > 0))
    }

    /// All that decides which tokens a text becomes.
    ///
    /// # Errors
    /// A part of the tokenizer cannot be written down.
    pub fn fingerprint(&self) -> Result<Vec<u8>> {
        let words = panics::catch_reading(|| self.tokenizer.to_string(false))
            .map_err(Error::Encode)?
            .map_err(|e| Error::Encode(e.to_string()))?;
        // What is not written down there.
        let special = self.tokenizer.get_encode_special_tokens();
        Ok(format!("{words}{special}{:?}", self.truncation).into_bytes())
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// An id is none of the tokenizer's.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let text = self.uncleaned(ids)?;
        Ok(if self.cleans { spaces::cleaned(&text) } else { text })
    }

    /// The text of token ids with all its spaces.
    fn uncleaned(&self, ids: &[i64]) -> Result<String> {
        let ids: std::result::Result<Vec<u32>, _> = ids.iter().map(|&id| id.try_into()).collect();
        let ids = ids.map_err(|_| Error::Encode("a token id is negative or too large".into()))?;
        panics::catch_reading(|| self.tokenizer.decode(&ids, true))
            .map_err(Error::Encode)?
            .map_err(|e| Error::Encode(e.to_string()))
    }

    /// The text of tokens that come one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self)
    }

    /// Whether a token is a byte, of which only several may be a character (`<0xE2>`).
    fn is_byte(&self, id: i64) -> bool {
        let token = u32::try_from(id).ok().and_then(|id| self.tokenizer.id_to_token(id));
        token.is_some_and(|token| {
            let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
        })
    }

    /// The tokens of these ids as the vocabulary has them, special ones too; `?` for what it has not.
    pub fn tokens(&self, ids: &[i64]) -> Vec<String> {
        let token = |id: &i64| self.tokenizer.id_to_token(u32::try_from(*id).ok()?);
        ids.iter().map(|id| token(id).unwrap_or_else(|| "?".into())).collect()
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

/// The special tokens of a folder's tokenizer by their names (`bos_token` and so on): those that its
/// files name, and those that transformers' class of it has anyway.
///
/// # Errors
/// A file of the tokenizer's settings is damaged.
pub fn special_tokens(folder: &Path) -> Result<BTreeMap<String, String>> {
    let settings = settings::TokenizerSettings::read(folder)?;
    let usual = settings.class.map_or(&[][..], settings::Class::usual_tokens);
    let usual =
        usual.iter().filter_map(|&(name, token)| Some((name, settings.token(name, token)?)));
    let named = settings.named().map(|(name, token)| (name, token.clone()));
    let tokens = usual.chain(named);
    Ok(tokens.map(|(name, token)| (name.to_string(), token.content)).collect())
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
