//! The header's keys of a tokenizer, out of a tokenizer.json or of a SentencePiece model.

use super::pre_tokenizer::Pre;
use super::writer::Written;
use crate::tokenizer::spm_file::Piece;
use serde_json::Value;

/// What a token is, by the format's numbers.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const BYTE: i32 = 6;
const UNUSED: i32 = 5;

/// The score of a piece that was added to a SentencePiece model.
const OF_ADDED: f32 = -1000.0;

/// A table of tokens: as many as the model has rows for.
struct Table {
    tokens: Vec<String>,
    kinds: Vec<i32>,
}

impl Table {
    fn new(rows: usize) -> Self {
        // What no token has stands as llama.cpp fills it up.
        let tokens = (0..rows).map(|id| format!("[PAD{id}]")).collect();
        Table { tokens, kinds: vec![UNUSED; rows] }
    }

    fn set(&mut self, id: u64, token: &str, kind: i32) -> Result<(), String> {
        let rows = self.tokens.len();
        let place = usize::try_from(id).ok().filter(|id| *id < rows);
        let place = place.ok_or_else(|| {
            format!("the token `{token}` has the id {id}, but the model has {rows} rows")
        })?;
        self.tokens[place] = token.into();
        self.kinds[place] = kind;
        Ok(())
    }

    /// Tokens that a tokenizer.json adds to its vocabulary.
    fn add(&mut self, json: &Value) -> Result<(), String> {
        for token in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            let special = token.get("special") == Some(&Value::Bool(true));
            let id = token.get("id").and_then(Value::as_u64);
            let content = token.get("content").and_then(Value::as_str);
            if let Some((id, content)) = id.zip(content) {
                self.set(id, content, if special { CONTROL } else { USER_DEFINED })?;
            }
        }
        Ok(())
    }

    fn keys(self) -> Vec<(String, Written)> {
        vec![
            ("tokenizer.ggml.tokens".into(), Written::Texts(self.tokens)),
            ("tokenizer.ggml.token_type".into(), Written::I32s(self.kinds)),
        ]
    }
}

/// The keys of a byte-level tokenizer.json; none of another kind of tokenizer.
///
/// # Errors
/// llama.cpp has no name for the way that it cuts texts, or it has more tokens than the model's rows.
pub(crate) fn byte_level(
    json: &Value,
    rows: usize,
) -> Result<Option<Vec<(String, Written)>>, String> {
    let pre_tokenizer = json.get("pre_tokenizer").unwrap_or(&Value::Null);
    let model = json.get("model").unwrap_or(&Value::Null);
    if model.get("type") != Some(&"BPE".into()) || !pre_tokenizer.to_string().contains("ByteLevel")
    {
        return Ok(None);
    }
    let pre = Pre::of_parts(json.get("normalizer").unwrap_or(&Value::Null), pre_tokenizer);
    let pre =
        pre.ok_or("its tokenizer.json cuts texts in a way that no GGUF file is written of")?;
    let mut table = Table::new(rows);
    for (token, id) in model.get("vocab").and_then(Value::as_object).into_iter().flatten() {
        table.set(id.as_u64().unwrap_or(u64::MAX), token, NORMAL)?;
    }
    table.add(json)?;
    let merges = model.get("merges").and_then(Value::as_array).into_iter().flatten();
    let merge = |merge: &Value| match merge {
        Value::String(pair) => Some(pair.clone()),
        Value::Array(pair) => {
            Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?))
        }
        _ => None,
    };
    let merges: Option<Vec<String>> = merges.map(merge).collect();
    let merges = merges.ok_or("a merge of its tokenizer.json is no pair of tokens")?;
    let mut keys = table.keys();
    keys.push(("tokenizer.ggml.model".into(), Written::Text("gpt2".into())));
    keys.push(("tokenizer.ggml.pre".into(), Written::Text(pre.into())));
    keys.push(("tokenizer.ggml.merges".into(), Written::Texts(merges)));
    Ok(Some(keys))
}

/// The keys of a SentencePiece model with what the tokenizer.json beside it, if any, adds.
///
/// # Errors
/// It has more tokens than the model's rows.
pub(crate) fn sentencepiece(
    pieces: &[Piece],
    prefix: bool,
    json: Option<&Value>,
    rows: usize,
) -> Result<Vec<(String, Written)>, String> {
    let mut table = Table::new(rows);
    let mut scores = vec![OF_ADDED; rows];
    for (id, piece) in (0..).zip(pieces) {
        table.set(id, &piece.piece, piece.kind.unwrap_or(NORMAL))?;
        scores[id as usize] = piece.score;
    }
    // What the model has already keeps its kind there.
    let behind = |token: &&Value| {
        token.get("id").and_then(Value::as_u64).is_some_and(|id| id >= pieces.len() as u64)
    };
    let added = json.and_then(|json| json.get("added_tokens")?.as_array());
    let added: Vec<&Value> = added.into_iter().flatten().filter(behind).collect();
    table.add(&serde_json::json!({ "added_tokens": added }))?;
    let mut keys = table.keys();
    keys.push(("tokenizer.ggml.model".into(), Written::Text("llama".into())));
    keys.push(("tokenizer.ggml.pre".into(), Written::Text("default".into())));
    keys.push(("tokenizer.ggml.scores".into(), Written::F32s(scores)));
    keys.push(("tokenizer.ggml.add_space_prefix".into(), Written::Flag(prefix)));
    Ok(keys)
}
