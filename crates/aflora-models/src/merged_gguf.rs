//! A fine-tuned model as a GGUF file, its adapters merged into its weights: what llama.cpp runs.

use crate::adapted::AdaptedModel;
use crate::companions::ModelSource;
use crate::gguf::{self, GgufFile, ModelKeys, Precision, Written};
use crate::merged::describe_words;
use crate::tokenizer::{sentencepiece_bpe, special_tokens};
use crate::{chat, json, model_file, Error, Result, TextEncoder};
use serde_json::{Map, Value};
use std::path::Path;

/// The file of `model`, of the kind `kind` and made of the files of `source`, with its tokenizer and
/// its chat templates.
///
/// # Errors
/// The model does not write, is of a kind that no such files are written of, or has a tokenizer that
/// they do not tell; or a file of the source cannot be read.
pub fn make<'a>(
    model: &AdaptedModel,
    kind: &str,
    source: impl Into<ModelSource<'a>>,
    precision: Precision,
) -> Result<GgufFile> {
    let source = source.into();
    let mut config = config(source.model)?;
    describe_words(&mut config, model);
    let of_config = keys(&config, kind)?;
    let tokenizer = tokenizer_keys(model, source.tokenizer)?;
    let of_model = of_config.of_model().map_err(Error::Unbuilt)?;
    let keys = [of_model, tokenizer].concat();
    of_config.file(keys, model.merged_weights(), precision)
}

/// The config.json of the model in `source`.
pub(crate) fn config(source: &Path) -> Result<Map<String, Value>> {
    json::read_object(&source.join("config.json"), "a Hugging Face config.json")
}

/// The keys of a header of the model with this config.json, or of an adapter for it.
pub(crate) fn keys<'a>(config: &'a Map<String, Value>, kind: &str) -> Result<ModelKeys<'a>> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    ModelKeys::of(config, model_type.unwrap_or(kind)).map_err(Error::Unbuilt)
}

/// The keys of the tokenizer: those of a GGUF file as they are, those of a folder made of its files.
fn tokenizer_keys(model: &AdaptedModel, source: &Path) -> Result<Vec<(String, Written)>> {
    if model_file::is_gguf(source) {
        return model_file::with_header(source, |header| {
            let kept = |key: &str| key.starts_with("tokenizer.") || key == "general.license";
            let raw = header.raw.iter().filter(|(key, _)| kept(key));
            Ok(raw.map(|(key, raw)| (key.to_string(), Written::Raw(raw.to_vec()))).collect())
        });
    }
    let writer = model.writer()?;
    let rows = model.backbone().vocab_size() as usize;
    let path = source.join("tokenizer.json");
    let json: Option<Value> = match model_file::is_there(&path) {
        true => {
            let text = model_file::read_text(&path)?;
            let problem = |e: serde_json::Error| Error::Tokenizer {
                path: path.clone(),
                problem: e.to_string(),
            };
            Some(serde_json::from_str(&text).map_err(problem)?)
        }
        false => None,
    };
    let byte_level = json.as_ref().map(|json| gguf::byte_level(json, rows)).transpose();
    let pieces = source.join("tokenizer.model");
    let mut keys = match byte_level.map_err(Error::Unbuilt)?.flatten() {
        Some(keys) => keys,
        None if pieces.is_file() => {
            let model = sentencepiece_bpe::read_pieces(&pieces)?;
            gguf::sentencepiece(&model.pieces, model.prefix, json.as_ref(), rows)
                .map_err(Error::Unbuilt)?
        }
        None => {
            let found = json.as_ref().map(gguf::pieces_of_merges).transpose();
            let Some((pieces, prefix)) = found.map_err(Error::Unbuilt)?.flatten() else {
                let problem =
                    "its tokenizer is neither a byte-level BPE in a tokenizer.json nor one \
                               of SentencePiece's pieces, as LLaMA's and Gemma's: no GGUF file is \
                               written of another";
                return Err(Error::Unbuilt(problem.into()));
            };
            gguf::sentencepiece(&pieces, prefix, json.as_ref(), rows).map_err(Error::Unbuilt)?
        }
    };
    let encoder = TextEncoder::from_folder(source, 64)?;
    let named = special_tokens(source)?;
    let id = |name: &str| -> Result<Option<i64>> {
        let Some(token) = named.get(name) else { return Ok(None) };
        let ids = encoder.encode_plain(&[token])?.concat();
        Ok(ids.first().copied().filter(|_| ids.len() == 1))
    };
    let (bos, eos) = (id("bos_token")?, writer.tokens().eos.first().copied());
    let around = encoder.encode(&[("a", None)])?.remove(0).ids;
    let mut say = |key: &str, value: Written| keys.push((format!("tokenizer.{key}"), value));
    for (key, id) in [
        ("ggml.bos_token_id", bos),
        ("ggml.eos_token_id", eos),
        ("ggml.unknown_token_id", id("unk_token")?),
        ("ggml.padding_token_id", writer.tokens().pad),
    ] {
        if let Some(id) = id.and_then(|id| u32::try_from(id).ok()) {
            say(key, Written::U32(id));
        }
    }
    let is = |side: Option<&i64>, token: Option<i64>| side.is_some() && side.copied() == token;
    say("ggml.add_bos_token", Written::Flag(is(around.first(), bos)));
    say("ggml.add_eos_token", Written::Flag(is(around.last(), eos)));
    for (name, template) in chat::files::sources(source)? {
        let key = match name.as_str() {
            chat::DEFAULT => "chat_template".to_string(),
            name => format!("chat_template.{name}"),
        };
        say(&key, Written::Text(template));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use tch::{Device, Kind, Tensor};

    /// The two kinds of pieces: the folder with a tokenizer.model, a file of that architecture, and
    /// the number of the token before a text.
    const KINDS: [(&str, &str, u32); 2] =
        [("llama_bpe", "sentencepiece", 1), ("gguf/gemma_bpe", "gemma-bpe", 2)];

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
    }

    /// A file at `path` with the tokenizer of these keys, for so many rows.
    fn write(path: &Path, gguf: &str, tokenizer: Vec<(String, Written)>, bos: u32, rows: usize) {
        let ids = [("tokenizer.ggml.bos_token_id".to_string(), Written::U32(bos))];
        let config = config(&fixtures().join(format!("gguf/{gguf}.gguf"))).unwrap();
        let of_config = keys(&config, "llama").unwrap();
        let keys = [of_config.of_model().unwrap(), tokenizer, ids.to_vec()].concat();
        let table = Tensor::zeros([rows as i64, 4], (Kind::Float, Device::Cpu));
        let weights = BTreeMap::from([("model.embed_tokens.weight".to_string(), table)]);
        let file = of_config.file(keys, weights, Precision::F16).unwrap();
        file.write(&mut std::fs::File::create(path).unwrap()).unwrap();
    }

    fn encode(folder: &Path, text: &str) -> Vec<i64> {
        let encoder = TextEncoder::from_folder(folder, 64).unwrap();
        encoder.encode(&[(text, None)]).unwrap().remove(0).ids
    }

    const TEXTS: [&str; 3] = [
        "A film, twice 12 naïve ﬁlms.",
        "  two\n\n\n    <table> <s>",
        "the actors of\tthis one   were 3/4 good, \u{1f600} weren't they?",
    ];

    #[test]
    fn the_pieces_of_a_sentencepiece_model_are_written_as_its_tokenizer() {
        for (own, gguf, bos) in KINDS {
            let own = fixtures().join(own);
            let model = sentencepiece_bpe::read_pieces(&own.join("tokenizer.model")).unwrap();
            let (rows, count) = (model.pieces.len() + 3, model.pieces.len());
            let json = serde_json::json!({ "added_tokens": [
                { "id": bos, "content": model.pieces[bos as usize].piece, "special": true },
                { "id": count, "content": "<tool>", "special": false },
            ]});
            let pieces =
                gguf::sentencepiece(&model.pieces, model.prefix, Some(&json), rows).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model.gguf");
            write(&path, gguf, pieces, bos, rows);
            for text in TEXTS {
                assert_eq!(encode(&path, text), encode(&own, text), "{gguf}: {text:?}");
            }
            assert_eq!(encode(&path, "<tool>").last(), Some(&(count as i64)), "{gguf}");
        }
    }

    #[test]
    fn the_merges_of_a_tokenizer_json_are_written_as_scores_that_lead_back_to_them() {
        for (own, gguf, bos) in KINDS {
            let model = fixtures().join(own).join("tokenizer.model");
            let model = sentencepiece_bpe::read_pieces(&model).unwrap();
            let around = [Some(bos as usize), None];
            let made = sentencepiece_bpe::of_pieces(&model.pieces, model.unk, around, model.prefix);
            let text = made.unwrap().to_string(false).unwrap();
            let own = tempfile::tempdir().unwrap();
            std::fs::write(own.path().join("tokenizer.json"), &text).unwrap();
            let mut json: Value = serde_json::from_str(&text).unwrap();
            let (pieces, prefix) = gguf::pieces_of_merges(&json).unwrap().unwrap();
            assert_eq!(prefix, model.prefix, "{gguf}");
            let rows = pieces.len();
            let keys = gguf::sentencepiece(&pieces, prefix, Some(&json), rows).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model.gguf");
            write(&path, gguf, keys, bos, rows);
            for text in TEXTS {
                assert_eq!(encode(&path, text), encode(own.path(), text), "{gguf}: {text:?}");
            }
            // A piece that is no longer made of two of its parts.
            let merges = json["model"]["merges"].as_array_mut().unwrap();
            let twice = merges.windows(2).rposition(|two| {
                let whole = |pair: &Value| format!("{}{}", text_of(&pair[0]), text_of(&pair[1]));
                whole(&two[0]) == whole(&two[1])
            });
            drop(merges.remove(twice.unwrap()));
            let error = gguf::pieces_of_merges(&json).unwrap_err();
            assert!(error.contains("merges that follow of no scores"), "{gguf}: {error}");
        }
    }

    fn text_of(value: &Value) -> &str {
        value.as_str().unwrap()
    }
}
