//! What a `tokenizer.json` may ask for: a small file must not make gigabytes of a short text, nor
//! hours.
//!
//! Three parts can. A normaliser's step may put many characters in place of one, and forty such
//! steps multiply; SentencePiece's table of such texts is one of them. A post-processor's template
//! may name thousands of tokens, thousands of times. A model may look at every stretch of a word
//! for every letter of it.

use super::damaged;
use crate::Result;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use tokenizers::ModelWrapper;

/// How many times longer a text may get before it is cut into tokens, and behind. SentencePiece's
/// mark for a space makes it three times as long at most, and bytes written as letters twice.
const GROWTH: f64 = 256.0;

/// Tokens that may be put around a text.
const AROUND: usize = 1024;

/// Bytes that a step may put before every stretch of a text, or a model before every letter.
const PREFIX: usize = 256;

/// Letters of a word that WordPiece may cut up, whose time grows with their third power; longer
/// words are unknown. Released models have 100 or 200.
const WORD: usize = 1_000;

/// Bytes of a piece at the most: unigram models try all of them at every letter. SentencePiece's
/// own limit is 16 characters.
const PIECE: usize = 512;

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
}

/// Checks that a `tokenizer.json` with this text makes no more of a text than one would expect.
///
/// # Errors
/// It does, or it is none.
pub(super) fn check(path: &Path, text: &str) -> Result<()> {
    let parts: Parts = serde_json::from_str(text).map_err(|e| damaged(path, &e.to_string()))?;
    let read = growth(&parts.normalizer) * growth(&parts.pre_tokenizer);
    for (which, growth) in [("normalizer", read), ("decoder", growth(&parts.decoder))] {
        if growth > GROWTH {
            let words =
                format!("its {which} may make a text {growth:.0} times as long; {GROWTH} at most");
            return Err(damaged(path, &words));
        }
    }
    if let Some(long) = longest_prefix(&parts.normalizer).filter(|&bytes| bytes > PREFIX) {
        let words = format!("its normalizer puts {long} bytes before a text; {PREFIX} at most");
        return Err(damaged(path, &words));
    }
    let (tokens, texts) = around(&parts.post_processor);
    if tokens > AROUND || texts > 4 {
        let words = format!(
            "its post_processor puts {tokens} tokens around a text, which it takes {texts} times; \
             {AROUND} and 4 at most"
        );
        return Err(damaged(path, &words));
    }
    Ok(())
}

/// Checks that a model takes a time that grows with a text's length alone.
///
/// # Errors
/// It does not.
pub(super) fn check_model(path: &Path, model: &ModelWrapper) -> Result<()> {
    let prefix = match model {
        ModelWrapper::WordPiece(model) => {
            let word = model.max_input_chars_per_word;
            if word > WORD {
                let words = format!("`max_input_chars_per_word` is {word}; {WORD} at most");
                return Err(damaged(path, &words));
            }
            Some(&model.continuing_subword_prefix)
        }
        ModelWrapper::Unigram(model) => {
            let pieces = model.iter().map(|(piece, _)| piece.as_str());
            check_pieces(pieces).map_err(|words| damaged(path, &words))?;
            None
        }
        // Its merges wait in a heap: a word's length times its logarithm.
        ModelWrapper::BPE(model) => model.continuing_subword_prefix.as_ref(),
        ModelWrapper::WordLevel(_) => None,
    };
    if let Some(long) = prefix.map(String::len).filter(|&bytes| bytes > PREFIX) {
        let words = format!("`continuing_subword_prefix` has {long} bytes; {PREFIX} at most");
        return Err(damaged(path, &words));
    }
    Ok(())
}

/// Checks the pieces of a SentencePiece model.
///
/// # Errors
/// A piece is too long.
pub(crate) fn check_pieces<'a>(
    mut pieces: impl Iterator<Item = &'a str>,
) -> std::result::Result<(), String> {
    match pieces.find(|piece| piece.len() > PIECE) {
        Some(long) => Err(format!("it has a piece of {} bytes; {PIECE} are the most", long.len())),
        None => Ok(()),
    }
}

/// The steps of a part, whatever sequences they stand in.
fn steps(part: &Value) -> Vec<&Value> {
    const LISTS: [&str; 4] = ["normalizers", "pretokenizers", "processors", "decoders"];
    match LISTS.iter().find_map(|list| part.get(list)?.as_array()) {
        Some(list) => list.iter().flat_map(steps).collect(),
        None => vec![part],
    }
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// How many times longer these steps make a text at most.
fn growth(part: &Value) -> f64 {
    steps(part).into_iter().map(growth_of).product()
}

fn growth_of(step: &Value) -> f64 {
    let bytes = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len) as f64;
    match kind(step) {
        // A byte beyond ASCII's becomes two.
        "ByteLevel" => 2.0,
        "Replace" => {
            let content = bytes(step.get("content"));
            let pattern = step.get("pattern");
            match pattern.and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str) {
                // Where it matches nothing, the content comes between any two letters.
                Some(regex) if matches_nothing(regex) => 1.0 + content,
                Some(_) => content.max(1.0),
                None => {
                    let string = pattern.and_then(|pattern| pattern.get("String"));
                    (content / bytes(string).max(1.0)).max(1.0)
                }
            }
        }
        "Precompiled" => {
            let table = step.get("precompiled_charsmap").and_then(Value::as_str);
            growth_by_table(&from_base64(table.unwrap_or_default()))
        }
        _ => 1.0,
    }
}

/// Checks the table of a SentencePiece normaliser.
///
/// # Errors
/// It makes more of a text than one would expect.
pub(super) fn check_table(path: &Path, table: &[u8]) -> Result<()> {
    let growth = growth_by_table(table);
    if growth > GROWTH {
        let words =
            format!("its normalizer may make a text {growth:.0} times as long; {GROWTH} at most");
        return Err(damaged(path, &words));
    }
    Ok(())
}

/// How many times longer a text gets by a SentencePiece table: the size of its trie in four bytes,
/// the trie, and then the texts that stand in place of others, each with a zero behind it. Unicode's
/// longest, for a letter of three bytes, has 33.
fn growth_by_table(table: &[u8]) -> f64 {
    let size = table.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    let texts = table.get(4usize.saturating_add(size)..).unwrap_or_default();
    let longest = texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    (longest as f64 / 3.0).max(1.0)
}

/// The bytes that base64 stands for, as far as it is base64.
fn from_base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for letter in text.bytes() {
        let Some(value) = LETTERS.iter().position(|&l| l == letter) else { break };
        (bits, count) = (bits << 6 | value as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// Whether a regular expression may match an empty stretch; in doubt, yes.
fn matches_nothing(regex: &str) -> bool {
    regex.is_empty()
        || ["*", "?", "|", "^", "$", "\\", "{0", "{,", "("].iter().any(|s| regex.contains(s))
}

fn longest_prefix(part: &Value) -> Option<usize> {
    let steps = steps(part).into_iter().filter(|step| kind(step) == "Prepend");
    Some(steps.filter_map(|step| step.get("prepend")?.as_str().map(str::len)).sum())
}

/// How many tokens a post-processor puts around a text or a pair at most, and how many times it
/// takes the text.
fn around(part: &Value) -> (usize, usize) {
    let mut whole = (0usize, 1usize);
    for step in steps(part) {
        let template = |name: &str| {
            let pieces = step.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let tokens =
                pieces.iter().filter_map(|piece| piece.get("SpecialToken")?.get("id")?.as_str());
            let ids = tokens.map(|token| {
                let special = step.get("special_tokens").and_then(|known| known.get(token));
                let ids = special.and_then(|known| known.get("ids")?.as_array());
                ids.map_or(1, Vec::len)
            });
            let texts = ["A", "B"].map(|which| {
                let is = |piece: &&Value| {
                    piece.get("Sequence").and_then(|s| s.get("id")?.as_str()) == Some(which)
                };
                pieces.iter().filter(is).count()
            });
            (ids.fold(0usize, usize::saturating_add), texts[0].max(texts[1]).max(1))
        };
        let (single, pair) = (template("single"), template("pair"));
        whole.0 = whole.0.saturating_mul(single.1.max(pair.1)).saturating_add(single.0.max(pair.0));
        whole.1 = whole.1.saturating_mul(single.1.max(pair.1));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_tokenizers_have_is_far_below_the_limit() {
        let llama = json!({ "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ]});
        let quotes = json!({ "type": "Sequence", "normalizers": [
            { "type": "Replace", "pattern": { "String": "``" }, "content": "\"" },
            { "type": "NFKD" },
            { "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " },
            { "type": "Replace", "pattern": { "Regex": "\\s{2,}|[\n\r\t]" }, "content": " " },
        ]});
        assert_eq!(growth(&llama), 3.0);
        assert!(growth(&quotes) <= 4.0);
        assert_eq!(growth(&Value::Null), 1.0);
        let twice =
            json!({ "type": "Sequence", "pretokenizers": vec![json!({ "type": "ByteLevel" }); 9] });
        assert!(growth(&twice) > GROWTH);
    }

    #[test]
    fn a_table_s_longest_text_counts() {
        assert_eq!(from_base64("AAEC/+8="), [0, 1, 2, 255, 239]);
        let table = [&[4, 0, 0, 0, 9, 9, 9, 9][..], b"fi\0", &[b'x'; 3000], b"\0"].concat();
        assert_eq!(growth_by_table(&table), 1000.0);
        assert!(check_table(Path::new("spm.model"), &table).is_err());
        assert_eq!(growth_by_table(&table[..11]), 1.0);
        assert_eq!(growth_by_table(&[255; 3]), 1.0);
    }
}
