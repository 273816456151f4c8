//! What a `tokenizer.json` may ask for: a small file must not make gigabytes of a short text.
//!
//! Two parts can. A normaliser's step may put many characters in place of one, and forty such steps
//! multiply. A post-processor's template may name thousands of tokens, thousands of times.

use super::damaged;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// How many times longer a text may get before it is cut into tokens, and behind. SentencePiece's
/// mark for a space makes it three times as long at most, and bytes written as letters twice.
const GROWTH: f64 = 256.0;

/// Tokens that may be put around a text.
const AROUND: usize = 1024;

/// Bytes that a step may put before every stretch of a text.
const PREFIX: usize = 256;

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

/// Checks that a `tokenizer.json` makes no more of a text than one would expect.
///
/// # Errors
/// It does, or it cannot be read.
pub(super) fn check(path: &Path) -> Result<()> {
    let text = aflora_files::read_text(path).map_err(Error::io(path))?;
    let parts: Parts = serde_json::from_str(&text).map_err(|e| damaged(path, &e.to_string()))?;
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
        _ => 1.0,
    }
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
