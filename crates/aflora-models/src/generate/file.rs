//! What a model's files say of how it writes: its generation_config.json, or its config.json where
//! there is none, as transformers has it.

use super::settings::FOR_SAMPLING;
use super::{EarlyStopping, GenerationSettings, SpecialTokens, GENERATION_CONFIG};
use crate::{json, model_file, said, Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Settings that change what is written and are not built, each with the number that changes
/// nothing; null, false and an empty list never do.
const NOT_BUILT: [(&str, Option<f64>); 20] = [
    ("do_sample", None),
    ("typical_p", Some(1.0)),
    ("top_h", None),
    ("epsilon_cutoff", Some(0.0)),
    ("eta_cutoff", Some(0.0)),
    ("encoder_repetition_penalty", Some(1.0)),
    ("encoder_no_repeat_ngram_size", Some(0.0)),
    ("num_beam_groups", Some(1.0)),
    ("diversity_penalty", Some(0.0)),
    ("penalty_alpha", Some(0.0)),
    ("guidance_scale", Some(1.0)),
    ("bad_words_ids", None),
    ("force_words_ids", None),
    ("constraints", None),
    ("suppress_tokens", None),
    ("begin_suppress_tokens", None),
    ("sequence_bias", None),
    ("exponential_decay_length_penalty", None),
    ("stop_strings", None),
    ("watermarking_config", None),
];

/// What a model's files say of how it writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelSettings {
    /// The settings that count where a task sets none.
    pub settings: GenerationSettings,
    /// What else the file asks for, a sentence each: it is not built. Each was logged as a
    /// warning, too.
    pub not_built: Vec<String>,
}

impl ModelSettings {
    /// Of the model whose config.json this is.
    ///
    /// # Errors
    /// A file cannot be read, or a setting in it has a value that it cannot have.
    pub fn read(config: &Path, encoder_decoder: bool) -> Result<Self> {
        let source = GenerationFile::beside(config, None)?;
        let mut settings = GenerationSettings {
            max_new_tokens: source.get("max_new_tokens")?,
            min_new_tokens: source.get("min_new_tokens")?,
            num_beams: source.get("num_beams")?,
            length_penalty: source.get("length_penalty")?,
            early_stopping: match source.keys.get("early_stopping") {
                None | Some(Value::Null) => None,
                Some(Value::Bool(true)) => Some(EarlyStopping::Full),
                Some(Value::Bool(false)) => Some(EarlyStopping::Heuristic),
                Some(Value::String(word)) if word == "never" => Some(EarlyStopping::Never),
                Some(other) => {
                    let words =
                        format!("`early_stopping` is {other}, not true, false or \"never\"");
                    return Err(source.problem(words));
                }
            },
            no_repeat_ngram_size: source.get("no_repeat_ngram_size")?,
            repetition_penalty: source.get("repetition_penalty")?,
            ..GenerationSettings::default()
        };
        let mut not_built = source.not_built();
        source.sampling(&mut settings, &mut not_built);
        // They count what stands before the new tokens, too: one token in an encoder-decoder, the
        // prompt of a mere decoder, where they say nothing of the new tokens' number.
        for (name, new) in [
            ("max_length", &mut settings.max_new_tokens),
            ("min_length", &mut settings.min_new_tokens),
        ] {
            let Some(whole) = source.get::<usize>(name)?.filter(|&n| n > 0) else { continue };
            if new.is_some() {
                continue;
            }
            match encoder_decoder {
                true => *new = Some(whole.saturating_sub(1)),
                false => not_built.push(format!(
                    "`{name}` is {whole}, which counts the prompt as well: it is left alone, and \
                     task.generation.{}_new_tokens counts",
                    &name[..3]
                )),
            }
        }
        settings.validate().map_err(|error| source.problem(error.to_string()))?;
        not_built.iter().for_each(|words| said::warn(&source.path, words));
        Ok(ModelSettings { settings, not_built })
    }
}

/// The file that says how a model generates text, and its keys: generation_config.json, or
/// config.json in models that are older than it.
pub(super) struct GenerationFile {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl GenerationFile {
    /// generation_config.json beside `config`; where there is none, `config` itself, whose keys
    /// these are if they are known.
    pub(super) fn beside(config: &Path, keys: Option<&Map<String, Value>>) -> Result<Self> {
        let path = config.with_file_name(GENERATION_CONFIG);
        match (model_file::is_there(&path), keys) {
            (true, _) => GenerationFile::open(path),
            (false, Some(keys)) => Ok(GenerationFile::of(config, keys)),
            (false, None) => GenerationFile::open(config.to_path_buf()),
        }
    }

    /// The keys of this file.
    pub(super) fn of(path: &Path, keys: &Map<String, Value>) -> Self {
        GenerationFile { path: path.to_path_buf(), keys: keys.clone() }
    }

    fn open(path: PathBuf) -> Result<Self> {
        let mut keys = json::read_object(&path, "a JSON object")?;
        keys.values_mut().for_each(json::tidy);
        Ok(GenerationFile { path, keys })
    }

    /// The value of a key, null without it.
    pub(super) fn key(&self, key: &str) -> Value {
        self.keys.get(key).cloned().unwrap_or_default()
    }

    pub(super) fn problem(&self, problem: String) -> Error {
        Error::Config { path: self.path.clone(), problem }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|e| self.problem(format!("`{key}` is {value}: {e}"))),
        }
    }

    /// What counts where tokens are drawn. A file often has what it does not mean (a temperature of
    /// 0 for none at all): such a value is left out and told.
    fn sampling(&self, settings: &mut GenerationSettings, not_built: &mut Vec<String>) {
        for key in FOR_SAMPLING {
            let Some(value) = self.keys.get(key).filter(|value| !value.is_null()) else { continue };
            let alone = Map::from_iter([(key.to_string(), value.clone())]);
            let alone = serde_json::from_value::<GenerationSettings>(alone.into());
            let Some(alone) = alone.ok().filter(|alone| alone.validate().is_ok()) else {
                let value = shortened(&value.to_string());
                not_built.push(format!("`{key}` is {value}, which cannot be: it is left out"));
                continue;
            };
            settings.temperature = settings.temperature.or(alone.temperature);
            settings.top_k = settings.top_k.or(alone.top_k);
            settings.top_p = settings.top_p.or(alone.top_p);
            settings.min_p = settings.min_p.or(alone.min_p);
        }
    }

    /// Token ids: a list, or one alone. A negative one says that there is none.
    fn ids(&self, key: &str) -> Result<Vec<i64>> {
        let Some(value) = self.keys.get(key).filter(|value| !value.is_null()) else {
            return Ok(Vec::new());
        };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let ids: Option<Vec<i64>> = list.iter().map(Value::as_i64).collect();
        let ids = ids.ok_or_else(|| {
            self.problem(format!("`{key}` is {value}, but must be a token id, or a list of them"))
        })?;
        Ok(ids.into_iter().filter(|&id| id >= 0).collect())
    }

    /// Ids of a model with so many tokens that are only waited for, or stand where nobody looks.
    /// One beyond its vocabulary never comes: it is left out with a warning, as in transformers,
    /// whose own configs of smaller vocabularies keep the end token of the released model.
    fn awaited(&self, key: &str, vocabulary: i64) -> Result<Vec<i64>> {
        let (known, beyond): (Vec<i64>, _) =
            self.ids(key)?.into_iter().partition(|&id| id < vocabulary);
        if let Some(id) = beyond.first() {
            let words = format!(
                "`{key}` is {id}, which is not among the model's {vocabulary} tokens: it is left out"
            );
            said::warn(&self.path, &words);
        }
        Ok(known)
    }

    /// The first of ids that are fed to a model with so many tokens, or looked up in its scores.
    fn fed(&self, key: &str, vocabulary: i64) -> Result<Option<i64>> {
        let ids = self.ids(key)?;
        match ids.iter().max() {
            Some(largest) if *largest >= vocabulary => Err(self.problem(format!(
                "`{key}` is {largest}, which is not among the model's {vocabulary} tokens"
            ))),
            _ => Ok(ids.first().copied()),
        }
    }

    /// What the file asks for and is not built, a sentence each.
    fn not_built(&self) -> Vec<String> {
        let idle = |value: &Value, neutral: Option<f64>| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(keys) => keys.is_empty(),
            value => neutral.is_some() && value.as_f64() == neutral,
        };
        let asked = NOT_BUILT.iter().filter_map(|(name, neutral)| {
            self.keys.get(*name).filter(|value| !idle(value, *neutral)).map(|value| (name, value))
        });
        asked
            .map(|(name, value)| {
                let instead = match *name {
                    "do_sample" => {
                        "tokens are only drawn where task.generation.do_sample says so, too"
                    }
                    _ => "this is not built, and left out",
                };
                format!("`{name}` is {}; {instead}", shortened(&value.to_string()))
            })
            .collect()
    }
}

fn shortened(value: &str) -> String {
    const MOST: usize = 60;
    match value.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_string(),
    }
}

impl SpecialTokens {
    /// From the files of a model whose config.json this is, with these keys in it.
    ///
    /// As in transformers, generation_config.json counts alone where there is one; only the end
    /// token and the decoder's first, without which nothing can be learned or written, come from
    /// config.json where it has none.
    ///
    /// # Errors
    /// An id is no whole number, or one that is fed to the model is none of its `vocabulary`
    /// tokens.
    pub(crate) fn read(
        config: &Path,
        keys: &Map<String, Value>,
        vocabulary: i64,
        encoder_decoder: bool,
    ) -> Result<Self> {
        let source = GenerationFile::beside(config, Some(keys))?;
        let own = GenerationFile::of(config, keys);
        let eos = match source.awaited("eos_token_id", vocabulary)? {
            none if none.is_empty() && source.path != own.path => {
                own.awaited("eos_token_id", vocabulary)?
            }
            some => some,
        };
        let start = |from: &GenerationFile| from.fed("decoder_start_token_id", vocabulary);
        let decoder_start = match encoder_decoder {
            true => match start(&source)? {
                None => start(&own)?,
                some => some,
            },
            false => None,
        };
        Ok(SpecialTokens {
            eos,
            pad: source.awaited("pad_token_id", vocabulary)?.first().copied(),
            decoder_start,
            forced_bos: source.fed("forced_bos_token_id", vocabulary)?,
            forced_eos: source.fed("forced_eos_token_id", vocabulary)?,
        })
    }
}
