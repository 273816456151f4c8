//! Settings beside a tokenizer that do not count: what a file states is compared with what the
//! tokenizer that was made does to a probe, and where the two differ, that is said.
//!
//! A class makes its parts by some settings only, and any other tokenizer.json is taken as it is, as
//! in transformers. Which settings those are need not be known here: one that counts is met.

use super::settings::Settings;
use crate::{said, Error, Result};
use std::path::Path;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer,
};

/// A setting that is true or false, whether a tokenizer does it (none where the probe cannot tell),
/// and what it does where it does not, and where it does.
type Check = (&'static str, fn(&Probe<'_>) -> tokenizers::Result<Option<bool>>, [&'static str; 2]);

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
/// A setting is neither true nor false, or the tokenizer fails.
pub(super) fn warn(
    folder: &Path,
    settings: &Settings,
    file: &Path,
    tokenizer: &Tokenizer,
) -> Result<()> {
    let probe = Probe { tokenizer, settings };
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    for (key, does, words) in CHECKS {
        let Some(stated) = settings.flag(folder, key)? else { continue };
        let does = does(&probe).map_err(|e| Error::Encode(e.to_string()))?;
        if let Some(does) = does.filter(|&does| does != stated) {
            let words = format!(
                "`{key}` is {stated}, which does not count beside this {file}: {}",
                words[usize::from(does)]
            );
            said::warn(&folder.join("tokenizer_config.json"), &words);
        }
    }
    Ok(())
}

struct Probe<'a> {
    tokenizer: &'a Tokenizer,
    settings: &'a Settings,
}

impl Probe<'_> {
    fn lowers(&self) -> tokenizers::Result<Option<bool>> {
        let text = self.words("A")?.concat();
        Ok(match text.as_str() {
            "a" => Some(true),
            "A" => Some(false),
            _ => None,
        })
    }

    fn strips(&self) -> tokenizers::Result<Option<bool>> {
        let text = self.words("é")?.concat();
        Ok((!text.is_empty()).then_some(text == "e"))
    }

    fn keeps(&self) -> tokenizers::Result<Option<bool>> {
        Ok(self.strips()?.map(|strips| !strips))
    }

    fn splits_chinese(&self) -> tokenizers::Result<Option<bool>> {
        Ok(Some(self.words("a电b")?.len() == 3))
    }

    fn splits_punctuation(&self) -> tokenizers::Result<Option<bool>> {
        Ok(Some(self.words("a!b")?.len() == 3))
    }

    fn trims(&self) -> tokenizers::Result<Option<bool>> {
        Ok(Some(self.pieces("  a ")?.len() == 1))
    }

    fn begins_with_space(&self) -> tokenizers::Result<Option<bool>> {
        let pieces = self.pieces("a")?;
        Ok(pieces.first().map(|piece| piece.starts_with(SPACE)))
    }

    fn begins(&self) -> tokenizers::Result<Option<bool>> {
        let ids = self.tokenizer.encode_fast("a", true)?;
        Ok(Some(self.is("bos_token", ids.get_ids().first())))
    }

    fn ends(&self) -> tokenizers::Result<Option<bool>> {
        let ids = self.tokenizer.encode_fast("a", true)?;
        Ok(Some(self.is("eos_token", ids.get_ids().last())))
    }

    /// Whether this is the id of the token with this name.
    fn is(&self, name: &str, id: Option<&u32>) -> bool {
        let token = self.settings.named().find(|(named, _)| *named == name);
        let token = token.and_then(|(_, token)| self.tokenizer.token_to_id(&token.content));
        token.is_some() && token.as_ref() == id
    }

    /// What a text is cut into before the vocabulary comes into it.
    fn pieces(&self, text: &str) -> tokenizers::Result<Vec<String>> {
        let mut normalized = NormalizedString::from(text);
        if let Some(part) = self.tokenizer.get_normalizer() {
            part.normalize(&mut normalized)?;
        }
        let mut cut = PreTokenizedString::from(normalized);
        if let Some(part) = self.tokenizer.get_pre_tokenizer() {
            part.pre_tokenize(&mut cut)?;
        }
        let pieces = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(pieces.into_iter().map(|(piece, ..)| piece.to_string()).collect())
    }

    /// [`Self::pieces`] without marks for spaces.
    fn words(&self, text: &str) -> tokenizers::Result<Vec<String>> {
        let pieces = self.pieces(text)?.into_iter();
        let words = pieces.map(|piece| piece.trim_matches(SPACE).to_string());
        Ok(words.filter(|word| !word.is_empty()).collect())
    }
}

/// How a space is written before a word: itself, SentencePiece's mark, and that of byte-level BPE.
const SPACE: [char; 3] = [' ', '▁', 'Ġ'];
