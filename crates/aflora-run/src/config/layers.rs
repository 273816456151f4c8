//! Laying settings over defaults, one by one, so that each mistake is known by its place.

use super::problem::{Place, Problem};
use super::tree::Setting;
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::Value;

/// Lays `settings` over `defaults`, later ones winning; what is wrong goes to `problems`.
///
/// The known keys are those of the defaults. A setting is tried alone on top of the defaults,
/// so that a mistake is told where it stands and does not hide others.
pub fn lay<T>(defaults: &T, settings: &[Setting], problems: &mut Vec<Problem>) -> T
where
    T: Serialize + DeserializeOwned + Clone,
{
    let base = serde_json::to_value(defaults).unwrap_or_default();
    let mut merged = base.clone();
    for setting in settings {
        let mut alone = base.clone();
        let tried = put(&mut alone, &setting.path, &setting.value).and_then(|()| {
            serde_json::from_value::<T>(alone)
                .map(|_| ())
                .map_err(|e| format!("`{}`: {e}", setting.name()))
        });
        match tried {
            Ok(()) => {
                let _ = put(&mut merged, &setting.path, &setting.value);
            }
            Err(message) => problems.push(Problem { place: setting.place.clone(), message }),
        }
    }
    serde_json::from_value(merged).unwrap_or_else(|_| defaults.clone())
}

/// Replaces the value at `path`, which must exist.
fn put(root: &mut Value, path: &[String], value: &Value) -> Result<(), String> {
    let mut at = root;
    for (depth, key) in path.iter().enumerate() {
        let Value::Object(map) = at else {
            let parent = path[..depth].join(".");
            return Err(format!("`{parent}` has no keys of its own"));
        };
        if !map.contains_key(key) {
            let known: Vec<&str> = map.keys().map(String::as_str).collect();
            return Err(unknown("key", &path.join("."), key, &known));
        }
        at = &mut map[key];
    }
    if at.is_object() && !value.is_object() {
        return Err(format!("`{}` is a group of keys, not a value", path.join(".")));
    }
    if !(at.is_object() && value.is_object()) {
        *at = value.clone();
    }
    Ok(())
}

/// The sentence about a name that is not known, with the nearest one and all of them.
pub fn unknown(what: &str, full: &str, name: &str, known: &[&str]) -> String {
    let similar = |k: &&&str| (strsim::jaro_winkler(k, name) * 1e6) as i64;
    let nearest = known.iter().max_by_key(similar);
    let hint = nearest.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
    format!("there is no {what} `{full}`{hint} Known: {}", known.join(", "))
}

/// The place of the last setting of `key` (with dots), if any.
pub fn place_of(settings: &[Setting], key: &str) -> Place {
    settings.iter().rev().find(|s| s.name() == key).map_or(Place::Nowhere, |s| s.place.clone())
}
