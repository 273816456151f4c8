//! generation_config.json for users of a fine-tuned model: it writes there as it did here.

use super::file::GenerationFile;
use super::{EarlyStopping, GenerationSettings, ModelSettings, SpecialTokens, GENERATION_CONFIG};
use crate::{json, Error, Result};
use serde_json::{json, Map, Value};
use std::fs;
use std::path::Path;

/// Writes the file to the folder `target`: how a model of the folder `source` writes by `settings`,
/// and by its own files where they say nothing.
///
/// Settings that its files have and that are not built are left out, since the model did not write
/// by them.
///
/// # Errors
/// A file of the source cannot be read, or the file cannot be written.
pub(crate) fn write_config(
    source: &Path,
    settings: &GenerationSettings,
    tokens: &SpecialTokens,
    target: &Path,
) -> Result<()> {
    let config = source.join("config.json");
    let model = ModelSettings::read(&config, tokens.decoder_start.is_some())?;
    let settings = settings.over(&model.settings);
    let mut keys = Map::new();
    let mut said = |key: &str, value: Value, idle: Value| {
        if value != idle {
            keys.insert(key.into(), value);
        }
    };
    let ids = match &tokens.eos[..] {
        [id] => json!(id),
        ids => json!(ids),
    };
    said("bos_token_id", GenerationFile::beside(&config, None)?.key("bos_token_id"), Value::Null);
    said("eos_token_id", ids, json!([]));
    said("pad_token_id", json!(tokens.pad), Value::Null);
    said("decoder_start_token_id", json!(tokens.decoder_start), Value::Null);
    said("forced_bos_token_id", json!(tokens.forced_bos), Value::Null);
    said("forced_eos_token_id", json!(tokens.forced_eos), Value::Null);
    // Always, as the library's own default is a length of 20.
    said("max_new_tokens", json!(settings.max_new_tokens), Value::Null);
    said("min_new_tokens", json!(settings.min_new_tokens), json!(0));
    said("no_repeat_ngram_size", json!(settings.no_repeat_ngram_size), json!(0));
    said("repetition_penalty", json!(settings.repetition_penalty), json!(1.0));
    said("do_sample", json!(settings.do_sample), Value::Null);
    if settings.do_sample {
        said("temperature", json!(settings.temperature), Value::Null);
        said("top_k", json!(settings.top_k), Value::Null);
        said("top_p", json!(settings.top_p), Value::Null);
        said("min_p", json!(settings.min_p), json!(0.0));
    }
    said("num_beams", json!(settings.num_beams), Value::Null);
    if settings.num_beams > 1 {
        let early = match settings.early_stopping {
            EarlyStopping::Heuristic => json!(false),
            EarlyStopping::Full => json!(true),
            EarlyStopping::Never => json!("never"),
        };
        said("early_stopping", early, Value::Null);
        said("length_penalty", json!(settings.length_penalty), Value::Null);
    }
    let path = target.join(GENERATION_CONFIG);
    fs::write(&path, json::to_text(&keys) + "\n").map_err(Error::io(&path))
}
