//! The tokenizer.json and the tokenizer_config.json that a header stands for.
//!
//! `tokenizer.ggml.model` says which kind it is: `gpt2`, a byte-level BPE with its merges, whose
//! words are cut as `tokenizer.ggml.pre` says; or `llama`, SentencePiece's pieces with their scores.

use super::header::{short, Header};
use super::pre_tokenizer::{bytes, Pre};
use super::value::Value;
use crate::tokenizer::sentencepiece_bpe;
use crate::tokenizer::spm_file::Piece;
use serde_json::{json, Map};
use std::collections::HashSet;
use tokenizers::AddedToken;

/// What a token is, by the format's numbers.
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;
const UNUSED: i128 = 5;

/// Whether a header has a tokenizer.
pub(super) fn is_in(header: &Header<'_>) -> bool {
    !matches!(
        header.keys.get("tokenizer.ggml.model"),
        None | Some(Value::Text("none" | "no_vocab"))
    )
}

/// What a header says of its tokenizer.
struct GgufTokenizer<'a> {
    header: &'a Header<'a>,
    tokens: &'a [&'a str],
    /// The kind of each token.
    kinds: Vec<i128>,
}

/// The text of the tokenizer.json.
///
/// # Errors
/// The header lacks something, or has a tokenizer of a kind that is not read.
pub(super) fn tokenizer_json(header: &Header<'_>) -> Result<String, String> {
    let tokenizer = GgufTokenizer::new(header)?;
    match tokenizer.text("model")? {
        Some("gpt2") => tokenizer.byte_level(),
        Some("llama") => tokenizer.sentencepiece(),
        other => Err(format!(
            "`tokenizer.ggml.model` is `{}`; `gpt2` and `llama` are read",
            short(other.unwrap_or_default())
        )),
    }
}

/// The keys of the tokenizer_config.json: the special tokens by their names, and the chat templates.
///
/// # Errors
/// The header has something else where they should be.
pub(super) fn tokenizer_config(
    header: &Header<'_>,
) -> Result<Map<String, serde_json::Value>, String> {
    let tokenizer = GgufTokenizer::new(header)?;
    let mut keys = Map::new();
    for (name, key) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ] {
        if let Some(id) = tokenizer.token(key)? {
            keys.insert(name.into(), json!(tokenizer.tokens[id]));
        }
    }
    // The tokenizer.json is taken as it is.
    keys.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    keys.insert("clean_up_tokenization_spaces".into(), json!(false));
    let template = "tokenizer.chat_template";
    let named = header.keys.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(template)?;
        let name = if name.is_empty() { "default" } else { name.strip_prefix('.')? };
        Some((name, value))
    });
    let mut templates = Vec::new();
    for (name, value) in named {
        let Value::Text(text) = value else {
            return Err(format!("`{template}` is {}; it must be a text", value.what()));
        };
        templates.push((name, *text));
    }
    match templates[..] {
        [] => {}
        [("default", text)] => drop(keys.insert("chat_template".into(), json!(text))),
        _ => {
            let named = |(name, text): &(&str, &str)| json!({ "name": name, "template": text });
            keys.insert("chat_template".into(), templates.iter().map(named).collect());
        }
    }
    Ok(keys)
}

impl<'a> GgufTokenizer<'a> {
    fn new(header: &'a Header<'a>) -> Result<Self, String> {
        let mut tokenizer = GgufTokenizer { header, tokens: &[], kinds: Vec::new() };
        tokenizer.tokens = tokenizer.texts("tokens")?;
        let count = tokenizer.tokens.len();
        tokenizer.kinds = match tokenizer.numbers("token_type", count)? {
            Some(kinds) => kinds.iter().map(integer).collect(),
            None => vec![1; count],
        };
        Ok(tokenizer)
    }

    fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.header.keys.get(format!("tokenizer.ggml.{key}").as_str())
    }

    fn problem(&self, key: &str, what: &str) -> String {
        let found = self.get(key).map_or("missing".into(), Value::what);
        format!("`tokenizer.ggml.{key}` is {found}; it must be {what}")
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.problem(key, "a text")),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Flag(flag)) => Ok(*flag),
            Some(_) => Err(self.problem(key, "true or false")),
        }
    }

    fn texts(&self, key: &str) -> Result<&'a [&'a str], String> {
        match self.get(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            _ => Err(self.problem(key, "a list of texts")),
        }
    }

    /// As many numbers as there are tokens.
    fn numbers(&self, key: &str, count: usize) -> Result<Option<Vec<Value<'static>>>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Numbers(numbers)) if numbers.len() == count => {
                Ok(Some(numbers.iter().collect()))
            }
            Some(_) => Err(self.problem(key, &format!("a number for each of {count} tokens"))),
        }
    }

    /// The place of a special token.
    fn token(&self, key: &str) -> Result<Option<usize>, String> {
        let count = self.tokens.len();
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(id)) if *id >= 0 && *id < count as i128 => Ok(Some(*id as usize)),
            Some(_) => Err(self.problem(key, &format!("the id of one of {count} tokens"))),
        }
    }

    /// The tokens that stand before and behind a text.
    fn around(&self, begins: bool) -> Result<[Option<usize>; 2], String> {
        let one = |wanted: bool, key: &str| match wanted {
            true => {
                let named = self.token(key)?;
                named.map(Some).ok_or_else(|| self.problem(key, "a token, which texts are to get"))
            }
            false => Ok(None),
        };
        let first = one(self.flag("add_bos_token", begins)?, "bos_token_id")?;
        Ok([first, one(self.flag("add_eos_token", false)?, "eos_token_id")?])
    }

    /// A byte-level BPE. Tokens that fill the table up are left out.
    fn byte_level(&self) -> Result<String, String> {
        let pre = Pre::of(self.text("pre")?)?;
        let mut vocabulary = Map::new();
        let mut added = Vec::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            if *kind == UNUSED {
                continue;
            }
            if vocabulary.insert(token.to_string(), json!(id)).is_some() {
                return Err(format!("the token `{}` stands in it twice", short(token)));
            }
            if matches!(*kind, CONTROL | USER_DEFINED) {
                added.push(json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": *kind == CONTROL,
                }));
            }
        }
        let merges = self.texts("merges")?;
        let parts = |merge: &&str| merge.split_once(' ').map(|(a, b)| json!([a, b]));
        let merges: Option<Vec<serde_json::Value>> = merges.iter().map(parts).collect();
        let merges = merges.ok_or("a merge of `tokenizer.ggml.merges` is no pair of tokens")?;
        let model = json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.whole_words,
            "vocab": vocabulary,
            "merges": merges,
        });
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": pre.normalizer(),
            "pre_tokenizer": pre.pre_tokenizer(),
            "post_processor": self.post_processor(self.around(pre.begins)?),
            "decoder": bytes(true),
            "model": model,
        });
        Ok(tokenizer.to_string())
    }

    /// What puts tokens around a text.
    fn post_processor(&self, around: [Option<usize>; 2]) -> serde_json::Value {
        let [first, last] = around;
        let special = |id: usize, text: u8| json!({ "SpecialToken": { "id": self.tokens[id], "type_id": text } });
        let part = |name: &str, text: u8| {
            let sequence = json!({ "Sequence": { "id": name, "type_id": text } });
            let first = first.map(|id| special(id, text));
            let last = last.map(|id| special(id, text));
            first.into_iter().chain([sequence]).chain(last).collect::<Vec<_>>()
        };
        let named = |id: usize| {
            let token = self.tokens[id];
            (token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] }))
        };
        let tokens: Map<_, _> = first.into_iter().chain(last).map(named).collect();
        if tokens.is_empty() {
            return bytes(true);
        }
        let pair = [part("A", 0), part("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": part("A", 0),
            "pair": pair,
            "special_tokens": tokens,
        })
    }

    /// The special tokens that take the space behind them along. No header tells of them: they are
    /// Phi-3's but three, as llama.cpp has it.
    fn taking_space(&self) -> Vec<AddedToken> {
        const NONE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];
        let of_phi3 = self.header.keys.get("general.architecture") == Some(&Value::Text("phi3"));
        let tokens = self.tokens.iter().zip(&self.kinds).filter(|(_, kind)| **kind == CONTROL);
        let tokens = tokens.filter(|(token, _)| of_phi3 && !NONE.contains(token));
        let taking = |token: &str| AddedToken::from(token, true).normalized(false).rstrip(true);
        tokens.map(|(token, _)| taking(token)).collect()
    }

    /// SentencePiece's pieces.
    fn sentencepiece(&self) -> Result<String, String> {
        if self.get("precompiled_charsmap").is_some()
            || self.flag("remove_extra_whitespaces", false)?
        {
            return Err("its tokenizer normalises texts, which is not built of a GGUF file".into());
        }
        let scores = self.numbers("scores", self.tokens.len())?;
        let scores = scores.ok_or_else(|| self.problem("scores", "a number for each token"))?;
        let mut seen = HashSet::new();
        if let Some(twice) = self.tokens.iter().find(|token| !seen.insert(**token)) {
            return Err(format!("the token `{}` stands in it twice", short(twice)));
        }
        let piece = |((token, score), kind): ((&&str, &Value<'_>), &i128)| Piece {
            piece: token.to_string(),
            score: match score {
                Value::Float(score) => *score as f32,
                _ => 0.0,
            },
            kind: i32::try_from(*kind).ok(),
        };
        let pieces: Vec<Piece> =
            self.tokens.iter().zip(&scores).zip(&self.kinds).map(piece).collect();
        let unknown = self.token("unknown_token_id")?.unwrap_or(0);
        if pieces.is_empty() {
            return Err(self.problem("tokens", "a list of texts"));
        }
        let prefix = self.flag("add_space_prefix", true)?;
        let mut made = sentencepiece_bpe::of_pieces(&pieces, unknown, self.around(true)?, prefix)?;
        made.add_special_tokens(&self.taking_space());
        made.to_string(false).map_err(|e| e.to_string())
    }
}

fn integer(value: &Value<'_>) -> i128 {
    match value {
        Value::Integer(n) => *n,
        _ => 0,
    }
}
