//! Whether two configurations mean the same run, and where they differ.

use super::Resolved;
use serde_json::Value;
use std::collections::BTreeMap;

/// Keys that say where things lie, and how a run is looked after: no number depends on them.
const ELSEWHERE: [&str; 6] =
    ["run_dir", "data", "project", "token_cache", "checkpoint_every", "max_bad_steps"];

impl Resolved {
    /// The settings that decide what comes out: all but places and how a run is looked after.
    pub fn settings(&self) -> Value {
        let mut settings = serde_json::to_value(self.file()).unwrap_or_default();
        if let Some(keys) = settings.as_object_mut() {
            keys.retain(|key, _| !ELSEWHERE.contains(&key.as_str()));
        }
        settings
    }

    /// The same, by their keys with dots.
    pub fn settings_by_key(&self) -> BTreeMap<String, Value> {
        settings(self)
    }

    /// The settings that another run does not share: `lr: 0.01 there, 0.02 here`, key by key.
    /// Places, and how often a run is saved, do not count.
    pub fn differences(&self, there: &Resolved) -> Vec<String> {
        let (here, there) = (settings(self), settings(there));
        let keys: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let say = |value: Option<&Value>| match value {
            None => "nothing".to_string(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let differs = |key: &&&String| here.get(**key) != there.get(**key);
        let line = |key: &String| {
            format!("{key}: {} there, {} here", say(there.get(key)), say(here.get(key)))
        };
        keys.iter().filter(differs).map(|key| line(key)).collect()
    }
}

/// All settings that decide the run, by their keys with dots.
fn settings(resolved: &Resolved) -> BTreeMap<String, Value> {
    fn walk(path: String, value: Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let prefix = if path.is_empty() { path } else { path + "." };
                map.into_iter().for_each(|(key, value)| walk(format!("{prefix}{key}"), value, out));
            }
            value => drop(out.insert(path, value)),
        }
    }
    let mut out = BTreeMap::new();
    walk(String::new(), resolved.settings(), &mut out);
    out
}
