//! A run's resolved configuration as plain data: what was run, and which settings decide what comes
//! out. What a key means is known to `aflora run` alone.

use crate::error::{Error, Result};
use crate::names::CONFIG;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;
use std::collections::BTreeMap;
use std::path::Path;

/// The most bytes of the file: a hundred times the longest here.
const MOST: u64 = 1 << 20;

/// Keys that say where things lie, and how a run is looked after: no number depends on them.
pub const PLACES: [&str; 7] = [
    "run_dir",
    "data",
    "project",
    "token_cache",
    "shard_base",
    "checkpoint_every",
    "max_bad_steps",
];

/// A run's resolved configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings(Value);

/// What a run is called after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The task's name.
    pub task: String,
    /// The model's name.
    pub model: String,
    /// The method block's name.
    pub method: String,
}

impl Subject {
    /// The name of a run: `<task>-<model>-<method>-seed<seed>`.
    pub fn run_name(&self, seed: u64) -> String {
        run_name(&self.task, &self.model, &self.method, seed)
    }
}

/// The name of a run: `<task>-<model>-<method>-seed<seed>`.
pub fn run_name(task: &str, model: &str, method: &str, seed: u64) -> String {
    format!("{task}-{model}-{method}-seed{seed}")
}

impl Settings {
    /// Reads the settings of the run in `folder`.
    ///
    /// # Errors
    /// They cannot be read, or are none.
    pub fn read(folder: &Path) -> Result<Settings> {
        let path = folder.join(CONFIG);
        let text = aflora_files::read_text_at_most(&path, MOST).map_err(Error::read(&path))?;
        Self::parse(&text).map_err(Error::content(&path, "configuration"))
    }

    /// Reads settings from a configuration's text.
    ///
    /// # Errors
    /// It is no YAML, or deeper or larger than any configuration.
    pub fn parse(text: &str) -> std::result::Result<Settings, serde_saphyr::Error> {
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::Error,
            strict_booleans: true,
            with_snippet: false,
            // As configurations are read by `aflora run`.
            budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 100_000 },
        };
        Ok(Settings(serde_saphyr::from_str_with_options(text, options)?))
    }

    /// What was run on what; none where that is not said.
    pub fn subject(&self) -> Option<Subject> {
        let text = |pointer| Some(self.0.pointer(pointer)?.as_str()?.to_string());
        Some(Subject {
            task: text("/task/task")?,
            model: text("/model/model")?,
            method: text("/method/name")?,
        })
    }

    /// The seed of the run.
    pub fn seed(&self) -> Option<u64> {
        self.0.get("seed")?.as_u64()
    }

    /// Those that decide what comes out: all but [`PLACES`].
    pub fn deciding(self) -> Value {
        deciding(self.0)
    }
}

/// Those of `settings` that decide what comes out: all but [`PLACES`].
pub fn deciding(mut settings: Value) -> Value {
    if let Some(keys) = settings.as_object_mut() {
        keys.retain(|key, _| !PLACES.contains(&key.as_str()));
    }
    settings
}

/// Settings by their keys with dots.
pub fn by_key(settings: &Value) -> BTreeMap<String, Value> {
    fn walk(path: String, value: &Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let prefix = if path.is_empty() { path } else { path + "." };
                map.iter().for_each(|(key, value)| walk(format!("{prefix}{key}"), value, out));
            }
            value => drop(out.insert(path, value.clone())),
        }
    }
    let mut out = BTreeMap::new();
    walk(String::new(), settings, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "task: {task: mrpc}\nmodel: {model: minilm, layers: [0]}\n\
        method: {name: aflora-text, method: aflora, freeze: {beta1: 0.85}}\n\
        seed: 7\nlr: 1e-2\ndata: /home/me\n";

    #[test]
    fn settings_tell_what_was_run_and_leave_places_out() {
        let settings = Settings::parse(WHOLE).unwrap();
        let subject = settings.subject().unwrap();
        assert_eq!(subject.run_name(settings.seed().unwrap()), "mrpc-minilm-aflora-text-seed7");
        let keys = by_key(&settings.deciding());
        assert_eq!(keys["method.freeze.beta1"], 0.85);
        assert_eq!((&keys["lr"], &keys["model.layers"]), (&0.01.into(), &vec![0].into()));
        assert!(!keys.contains_key("data"));
    }

    #[test]
    fn what_is_no_configuration_is_refused_or_names_no_run() {
        for text in ["", "a", "[1, 2]", "task: mrpc\n", "task: {task: [1]}"] {
            let found = Settings::parse(text);
            assert!(found.map_or(true, |settings| settings.subject().is_none()), "{text}");
        }
        let deep = "[".repeat(10_000);
        assert!(Settings::parse(&deep).is_err());
        // One list that holds another nine times, that another nine times, and so on.
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_string();
        for (key, last) in ('b'..='j').zip('a'..) {
            bomb += &format!("{key}: &{key} [*{last},*{last},*{last},*{last},*{last},*{last}]\n");
        }
        assert!(Settings::parse(&bomb).is_err());
    }
}
