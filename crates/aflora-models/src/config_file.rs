//! A model's config.json.

use crate::{json, said, Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A model's config.json: its keys, each checked as it is read.
pub(crate) struct ConfigFile {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl ConfigFile {
    /// Reads any model's config.json.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let keys = json::read_tidy(path, "a Hugging Face config.json")?;
        Ok(ConfigFile { path: path.to_path_buf(), keys })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The `model_type`, if the file names one.
    pub(crate) fn model_type(&self) -> Option<&str> {
        self.keys.get("model_type").and_then(Value::as_str)
    }

    /// Lets the keys that transformers reads as another (`hidden_size` as `n_embd`) stand in its
    /// place. As there, they win where a file has both; where the two differ, that is said.
    pub(crate) fn rename(mut self, aliases: &[(&str, &str)]) -> Self {
        for (alias, key) in aliases {
            let Some(value) = self.keys.remove(*alias).filter(|value| !value.is_null()) else {
                continue;
            };
            if let Some(old) = self.keys.get(*key).filter(|old| !old.is_null() && **old != value) {
                self.warn(&format!(
                    "`{alias}` is {value}, but `{key}`, which means the same, is {old}: \
                     `{alias}` counts, as in transformers"
                ));
            }
            self.set(key, value);
        }
        self
    }

    /// Lets these numbers stand where the file has none.
    pub(crate) fn with_defaults(mut self, defaults: &[(&str, i64)]) -> Self {
        for (key, value) in defaults {
            if self.keys.get(*key).is_none_or(Value::is_null) {
                self.set(key, (*value).into());
            }
        }
        self
    }

    /// Tells of something odd that is no error, once however often the file is read.
    pub(crate) fn warn(&self, words: &str) {
        said::warn(&self.path, words);
    }

    pub(crate) fn problem(&self, problem: String) -> Error {
        Error::Config { path: self.path.clone(), problem }
    }

    pub(crate) fn size(&self, key: &str) -> Result<i64> {
        let value = self.keys.get(key).and_then(Value::as_i64);
        value
            .filter(|n| *n > 0)
            .ok_or_else(|| self.problem(format!("`{key}` must be a positive whole number")))
    }

    /// A width, and the heads that it is divided among.
    pub(crate) fn divided(&self, width: &str, heads: &str) -> Result<(i64, i64)> {
        let (whole, parts) = (self.size(width)?, self.size(heads)?);
        match whole % parts {
            0 => Ok((whole, parts)),
            _ => Err(self.problem(format!("{width} {whole} is no multiple of {heads} {parts}"))),
        }
    }

    pub(crate) fn integer(&self, key: &str, default: i64) -> Result<i64> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| self.problem(format!("`{key}` is {value}, not a whole number"))),
        }
    }

    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .ok_or_else(|| self.problem(format!("`{key}` is {value}, not a number"))),
        }
    }

    /// The share of numbers that a dropout leaves out.
    pub(crate) fn dropout(&self, key: &str, default: f64) -> Result<f64> {
        match self.number(key, default)? {
            share if (0.0..1.0).contains(&share) => Ok(share),
            other => {
                Err(self.problem(format!("`{key}` is {other}; it must be at least 0 and below 1")))
            }
        }
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.problem(format!("`{key}` is {value}, not true or false"))),
        }
    }

    /// Refuses a file with `key`, other than null: what it asks for is not built.
    pub(crate) fn refuse_unless_null(&self, key: &str) -> Result<()> {
        match self.keys.get(key).filter(|value| !value.is_null()) {
            None => Ok(()),
            Some(value) => Err(self.problem(format!("`{key}` is {value}, which is not built"))),
        }
    }

    /// The object below `key`, if there is one.
    pub(crate) fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.keys.get(key).and_then(Value::as_object)
    }

    /// One key as a type of its own.
    pub(crate) fn parse_or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|e| self.problem(format!("`{key}` is {value}: {e}"))),
        }
    }

    /// All keys.
    pub(crate) fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    fn set(&mut self, key: &str, value: Value) {
        self.keys.insert(key.into(), value);
    }

    pub(crate) fn parse<C: DeserializeOwned>(&self) -> Result<C> {
        serde_json::from_value(self.keys.clone().into()).map_err(|e| self.problem(e.to_string()))
    }
}
