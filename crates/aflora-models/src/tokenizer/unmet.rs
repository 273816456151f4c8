//! Settings beside a tokenizer that do not count: what a file states is compared with what the
//! tokenizer that was made does to a probe, and where the two differ, that is said.
//!
//! A class makes its parts by some settings only, and any other tokenizer.json is taken as it is, as
//! in transformers. Which settings those are need not be known here: one that counts is met.

use super::settings::TokenizerSettings;
use crate::{said, Result};
use std::path::Path;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer,
};

/// A setting that is true or false, whether a tokenizer does it (none where a probe cannot tell, or fails),
/// and what it does where it does not, and where it does.
type Check = (&'static str, fn(&Probe<'_>) -> Option<bool>, [&'static str; 2]);

const CHECKS: [Check; 10] = [
    ("do_lower_case", |probe| probe.lowers(), ["capitals are kept", "texts are lowercased"]),
    ("strip_accents", |probe| probe.strips(), ["accents are kept", "accents are stripped"]),
    ("keep_accents", |probe| probe.keeps(), ["accents are stripped", "accents are kept"]),
    (
        "tokenize_chinese_chars",
        |probe| probe.splits_chinese(),
        ["Chinese characters stay together", "each Chinese character is a word"],
    ),
    (
        "split_by_punct",
        |probe| probe.splits_punctuation(),
        ["words are not split at punctuation", "words are split at punctuation"],
    ),
    (
        "do_basic_tokenize",
        |probe| probe.splits_punctuation(),
        ["words are not split at punctuation", "words are split at punctuation"],
    ),
    (
        "remove_space",
        |probe| probe.trims(),
        ["spaces around a text are kept", "spaces around a text are removed"],
    ),
    (
        "add_prefix_space",
        |probe| probe.begins_with_space(),
        ["a text's first word has no space before it", "a text's first word has a space before it"],
    ),
    (
        "add_bos_token",
        |probe| probe.begins(),
        ["no bos_token begins a text", "a bos_token begins a text"],
    ),
    (
        "add_eos_token",
        |probe| probe.ends(),
        ["no eos_token ends a text", "an eos_token ends a text"],
    ),
];

/// Warns of every setting in `folder` that the tokenizer, made of the vocabulary `file`, does not
/// meet.
///
/// # Errors
/// A setting is neither true nor false.
pub(super) fn warn(
    folder: &Path,
    settings: &TokenizerSettings,
    file: &Path,
    tokenizer: &Tokenizer,
) -> Result<()> {
    let probe = Probe { tokenizer, settings };
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    let words = |key: &str, stated: &str, does: &str| {
        format!("`{key}` is {stated}, which does not count beside this {file}: {does}")
    };
    for (key, does, each) in CHECKS {
        let Some(stated) = settings.flag(folder, key)? else { continue };
        if let Some(does) = does(&probe).filter(|&does| does != stated) {
            let words = words(key, &stated.to_string(), each[usize::from(does)]);
            said::warn(&folder.join("tokenizer_config.json"), &words);
        }
    }
    if let Some((stated, does)) = probe.unknown() {
        let does = format!("unknown words become `{does}`");
        // Either of two files names it.
        said::warn(folder, &words("unk_token", &format!("`{stated}`"), &does));
    }
    Ok(())
}

struct Probe<'a> {
    tokenizer: &'a Tokenizer,
    settings: &'a TokenizerSettings,
}

impl Probe<'_> {
    fn lowers(&self) -> Option<bool> {
        let text = self.words("A")?.concat();
        match text.as_str() {
            "a" => Some(true),
            "A" => Some(false),
            _ => None,
        }
    }

    fn strips(&self) -> Option<bool> {
        let text = self.words("é")?.concat();
        (!text.is_empty()).then_some(text == "e")
    }

    fn keeps(&self) -> Option<bool> {
        self.strips().map(|strips| !strips)
    }

    fn splits_chinese(&self) -> Option<bool> {
        Some(self.words("a电b")?.len() == 3)
    }

    fn splits_punctuation(&self) -> Option<bool> {
        Some(self.words("a!b")?.len() == 3)
    }

    fn trims(&self) -> Option<bool> {
        Some(self.pieces("  a ")?.len() == 1)
    }

    fn begins_with_space(&self) -> Option<bool> {
        self.pieces("a")?.first().map(|piece| piece.starts_with(SPACE))
    }

    fn begins(&self) -> Option<bool> {
        self.around("bos_token", |tokens| tokens.first().copied())
    }

    fn ends(&self) -> Option<bool> {
        self.around("eos_token", |tokens| tokens.last().copied())
    }

    /// Whether the token with this name stands on this side of a text; where no file names one,
    /// whether any special one does.
    fn around(&self, name: &str, side: fn(&[u32]) -> Option<u32>) -> Option<bool> {
        let encoding = self.tokenizer.encode_fast("a", true).ok()?;
        Some(match self.named(name) {
            Some((_, named)) => side(encoding.get_ids()) == Some(named),
            None => side(encoding.get_special_tokens_mask()) == Some(1),
        })
    }

    /// The token that is named as the unknown one, and what the unknown becomes, if that is another.
    fn unknown(&self) -> Option<(&str, String)> {
        let (named, wanted) = self.named("unk_token")?;
        // A character that stands for nothing. Bytes, or nothing at all, are no unknown token.
        let found = self.tokenizer.get_model().tokenize("\u{10fffd}").ok()?;
        let [found] = &found[..] else { return None };
        let does = self.tokenizer.id_to_token(found.id).filter(|_| found.id != wanted);
        does.map(|does| (named, does))
    }

    /// The token with this name, and its id, if a file names it and the vocabulary has it.
    fn named(&self, name: &str) -> Option<(&str, u32)> {
        let (_, token) = self.settings.named().find(|(named, _)| *named == name)?;
        Some((&token.content, self.tokenizer.token_to_id(&token.content)?))
    }

    /// What a text is cut into before the vocabulary comes into it.
    fn pieces(&self, text: &str) -> Option<Vec<String>> {
        let mut normalized = NormalizedString::from(text);
        if let Some(part) = self.tokenizer.get_normalizer() {
            part.normalize(&mut normalized).ok()?;
        }
        let mut cut = PreTokenizedString::from(normalized);
        if let Some(part) = self.tokenizer.get_pre_tokenizer() {
            part.pre_tokenize(&mut cut).ok()?;
        }
        let pieces = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Some(pieces.into_iter().map(|(piece, ..)| piece.to_string()).collect())
    }

    /// [`Self::pieces`] without marks for spaces.
    fn words(&self, text: &str) -> Option<Vec<String>> {
        let pieces = self.pieces(text)?.into_iter();
        let words = pieces.map(|piece| piece.trim_matches(SPACE).to_string());
        Some(words.filter(|word| !word.is_empty()).collect())
    }
}

/// How a space is written before a word: itself, SentencePiece's mark, and that of byte-level BPE.
const SPACE: [char; 3] = [' ', '▁', 'Ġ'];
