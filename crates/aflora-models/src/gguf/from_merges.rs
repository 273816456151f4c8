//! SentencePiece's pieces out of a tokenizer.json, which has their merges in place of their scores.

use super::from_tokenizer::{BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED};
use crate::tokenizer::limits::check_pieces;
use crate::tokenizer::sentencepiece_bpe;
use crate::tokenizer::spm_file::Piece;
use serde_json::{json, Value};
use std::collections::{HashMap, HashSet};

/// The pieces, with scores of which the merges follow, and whether a text gets a space before it;
/// none of another kind of tokenizer than LLaMA's and Gemma's.
///
/// # Errors
/// The merges follow of no scores.
pub(crate) fn pieces(json: &Value) -> Result<Option<(Vec<Piece>, bool)>, String> {
    let model = json.get("model").unwrap_or(&Value::Null);
    let vocabulary = model.get("vocab").and_then(Value::as_object);
    let on = |key: &str| model.get(key) == Some(&true.into());
    let bytes = on("byte_fallback") && !on("ignore_merges");
    let (Some(vocabulary), Some(prefix), true) = (vocabulary, prefix(json), bytes) else {
        return Ok(None);
    };
    let problem = |what: &str| format!("its tokenizer.json {what}: no GGUF file is written of it");
    let mut tokens = vec![None; vocabulary.len()];
    for (token, id) in vocabulary {
        let place = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        *place.ok_or_else(|| problem("leaves out numbers of tokens"))? = Some(token.as_str());
    }
    let tokens: Option<Vec<&str>> = tokens.into_iter().collect();
    let tokens = tokens.ok_or_else(|| problem("has two tokens of one number"))?;
    check_pieces(tokens.iter().copied())?;

    let merges: Option<Vec<(&str, &str)>> =
        model.get("merges").and_then(Value::as_array).into_iter().flatten().map(pair).collect();
    let merges = merges.ok_or_else(|| problem("has a merge that is no pair of tokens"))?;
    // The sooner it is made, the higher; what no merge makes is never chosen for its score.
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (a, b) in &merges {
        let next = ranks.len();
        ranks.entry(format!("{a}{b}")).or_insert(next);
    }
    let added: HashMap<&str, bool> = json
        .get("added_tokens")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|token| Some((token.get("content")?.as_str()?, token.get("special")? == true)))
        .collect();
    let unknown = model.get("unk_token").and_then(Value::as_str);
    let kind = |token: &str| match added.get(token) {
        _ if Some(token) == unknown => UNKNOWN,
        Some(true) => CONTROL,
        Some(false) => USER_DEFINED,
        None if is_byte(token) => BYTE,
        None => NORMAL,
    };
    let piece = |token: &&str| Piece {
        piece: token.to_string(),
        score: -(ranks.get(*token).copied().unwrap_or(tokens.len()) as f32),
        kind: Some(kind(token)),
    };
    let pieces: Vec<Piece> = tokens.iter().map(piece).collect();

    // Added tokens are found in a text before its letters merge; those with a mark for a space are
    // not, for no text has that yet.
    let whole: HashSet<&str> = added.keys().copied().filter(|token| !token.contains('▁')).collect();
    let counts = |(a, b): &(&str, &str)| {
        !whole.contains(a) && !whole.contains(b) && !whole.contains(format!("{a}{b}").as_str())
    };
    let again = sentencepiece_bpe::merges(&pieces);
    let again = again.iter().map(|(a, b)| (a.as_str(), b.as_str())).filter(counts);
    match again.eq(merges.iter().copied().filter(counts)) {
        true => Ok(Some((pieces, prefix))),
        false => Err(problem("has merges that follow of no scores of its tokens")),
    }
}

/// Whether a text gets a space before it; none where other things happen to it.
fn prefix(json: &Value) -> Option<bool> {
    let part = |key: &str| json.get(key).unwrap_or(&Value::Null);
    // Of texts whose spaces are marks already there is nothing to split.
    let idle = |part: &Value| {
        part.is_null()
            || part.get("type") == Some(&"Split".into())
                && part["pattern"] == json!({ "String": " " })
    };
    if part("model").get("type") != Some(&"BPE".into()) || !idle(part("pre_tokenizer")) {
        return None;
    }
    let marks = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    let before = json!({ "type": "Prepend", "prepend": "▁" });
    let normalizer = part("normalizer");
    let steps = match normalizer.get("normalizers").and_then(Value::as_array) {
        Some(steps) => steps.iter().collect(),
        None => vec![normalizer],
    };
    match steps[..] {
        [only] if *only == marks => Some(false),
        [first, second] if *first == before && *second == marks => Some(true),
        _ => None,
    }
}

fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(pair) => pair.split_once(' '),
        Value::Array(pair) => Some((pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    }
}

/// Whether a token is written as `<0x0A>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}
