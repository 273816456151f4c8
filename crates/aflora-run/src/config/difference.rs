//! Whether two configurations mean the same run, and where they differ.

use super::Resolved;
use aflora_record::settings::{by_key, deciding};
use serde_json::Value;
use std::collections::BTreeSet;

impl Resolved {
    /// The settings that decide what comes out: all but places and how a run is looked after.
    pub fn settings(&self) -> Value {
        deciding(serde_json::to_value(self.file()).unwrap_or_default())
    }

    /// The settings that another run does not share: `lr: 0.01 there, 0.02 here`, key by key.
    /// Places, and how often a run is saved, do not count.
    pub fn differences(&self, there: &Resolved) -> Vec<String> {
        let (here, there) = (by_key(&self.settings()), by_key(&there.settings()));
        let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
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
