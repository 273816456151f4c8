//! Settings overlaid on defaults, and one by one where something is wrong, so that each mistake is told
//! where it stands.

use super::problem::{instead, Problem, SourceSpan};
use super::tree::Setting;
use super::words::explain;
use serde::de::DeserializeOwned;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// A group of settings: the keys that its defaults have, their types and ranges.
pub trait SettingsGroup: Serialize + DeserializeOwned + Clone {
    /// Every value out of range: the key with dots, and what is wrong.
    fn problems(&self) -> Vec<(String, String)>;

    /// What stands below a key of any name in the group at `path`; `None` for a group whose keys
    /// are those of the defaults.
    fn chosen_names(_path: &[String]) -> Option<Value> {
        None
    }
}

/// The key and the words of a setting that the core refused.
pub(super) fn core_problem(error: aflora_core::Error) -> (String, String) {
    let key = match &error {
        aflora_core::Error::Setting { field, .. } => field.to_string(),
        _ => String::new(),
    };
    (key, error.to_string())
}

/// Overlays `settings` on `defaults`, later ones winning; what is wrong goes to `problems`.
///
/// What is wrong with them together is looked for by trying each alone on top of the defaults, so that
/// a mistake is told where it stands and hides no other. `also` are keys that stand elsewhere: beside
/// these ones, or with dots below other groups. What is wrong with no setting of its own, such as a
/// missing one, is told at `origin`.
pub fn overlay<T: SettingsGroup>(
    defaults: &T,
    settings: &[Setting],
    also: &[&str],
    origin: Option<&SourceSpan>,
    problems: &mut Vec<Problem>,
) -> T {
    let base = serde_json::to_value(defaults).unwrap_or_default();
    if let Some(laid) = together(&base, settings, also) {
        return laid;
    }
    let mut merged = base.clone();
    let (mut told, mut doubtful) = (BTreeSet::new(), Vec::new());
    for (i, setting) in settings.iter().enumerate() {
        match alone::<T>(&base, setting, also) {
            Ok(Some((value, None))) => put::<T>(&mut merged, &setting.path, value),
            Ok(Some((value, Some(problem)))) => doubtful.push((i, value, problem)),
            Ok(None) => {}
            Err(problem) => {
                told.insert(setting.name());
                problems.push(problem);
            }
        }
    }
    // What the defaults do not let have that value, other settings may.
    for (i, value, problem) in doubtful {
        let (setting, mut among) = (&settings[i], merged.clone());
        put::<T>(&mut among, &setting.path, value);
        let is_told = |laid: T| laid.problems().iter().any(|(key, _)| *key == setting.name());
        if serde_json::from_value(among.clone()).map_or(true, is_told) {
            told.insert(setting.name());
            problems.push(problem);
        } else if settings[i + 1..].iter().all(|later| later.path != setting.path) {
            merged = among;
        }
    }
    let laid: T = match serde_json::from_value(merged) {
        Ok(laid) => laid,
        Err(error) => {
            let message = format!("these settings do not go together: {error}");
            problems.push(Problem::at(origin.cloned(), message));
            return defaults.clone();
        }
    };
    for (key, message) in laid.problems() {
        if !told.contains(&key) {
            let span = span_of(settings, &key).or(origin.cloned());
            problems.push(Problem::at(span, message));
        }
    }
    laid
}

/// All settings at once, which is one try in place of one for each; `None` where that would hide what is
/// wrong with one.
fn together<T: SettingsGroup>(base: &Value, settings: &[Setting], also: &[&str]) -> Option<T> {
    let last: BTreeMap<_, _> = settings.iter().enumerate().map(|(i, s)| (&s.path, i)).collect();
    let mut merged = base.clone();
    for (i, setting) in settings.iter().enumerate() {
        let Setting { path, value, .. } = setting;
        if last[path] != i {
            // What is replaced has to be right, too.
            alone::<T>(base, setting, also)
                .ok()
                .filter(|right| !matches!(right, Some((_, Some(_)))))?;
        } else if value.is_object() || known::<T>(base, setting, also).ok()?.is_object() {
            return None;
        } else {
            put::<T>(&mut merged, path, value.clone());
        }
    }
    let laid: T = serde_json::from_value(merged).ok()?;
    laid.problems().is_empty().then_some(laid)
}

/// The value to set, if any, after trying it alone on top of the defaults, and what is wrong with it there.
fn alone<T: SettingsGroup>(
    base: &Value,
    setting: &Setting,
    also: &[&str],
) -> Result<Option<(Value, Option<Problem>)>, Problem> {
    let name = setting.name();
    let Setting { value, span, .. } = setting;
    if let Value::Object(group) = &*known::<T>(base, setting, also)? {
        let keys: Vec<&str> = group.keys().map(String::as_str).collect();
        let help = match keys.is_empty() {
            true => format!("write `{name}: {{name: value}}`"),
            false => format!("set one of them: {}", keys.join(", ")),
        };
        return match value {
            Value::Null => Ok(None),
            Value::Object(empty) if empty.is_empty() => Ok(None),
            _ => Err(Problem::at(span.clone(), format!("`{name}` is a group of keys")).help(help)),
        };
    }
    let attempt = |value: &Value| -> Result<T, serde_json::Error> {
        let mut root = base.clone();
        put::<T>(&mut root, &setting.path, value.clone());
        serde_json::from_value(root)
    };
    let mut value = value.clone();
    let mut outcome = attempt(&value);
    if outcome.is_err() && (value.is_number() || value.is_boolean()) {
        // `run_dir: 2024` is a text that looks like a number, and `warmup: 7` a mistake that is
        // better explained as a text.
        let as_text = Value::String(span.text().to_string());
        let second = attempt(&as_text);
        if second.as_ref().map_or_else(|e| !e.to_string().starts_with("invalid type"), |_| true) {
            (value, outcome) = (as_text, second);
        }
    }
    let tried =
        outcome.map_err(|e| explain(&name, &e.to_string(), value.is_array(), span.clone()))?;
    let wrong = tried.problems().into_iter().find(|(key, _)| *key == name);
    Ok(Some((value, wrong.map(|(_, message)| Problem::at(span.clone(), message)))))
}

/// The default of a setting, which must exist.
fn known<'a, T: SettingsGroup>(
    base: &'a Value,
    setting: &Setting,
    also: &[&str],
) -> Result<Cow<'a, Value>, Problem> {
    let mut at = Cow::Borrowed(base);
    for (depth, key) in setting.path.iter().enumerate() {
        let Value::Object(map) = &*at else {
            let parent = setting.path[..depth].join(".");
            let span = setting.keys[depth].clone();
            let problem = Problem::at(span, format!("`{parent}` has no keys below"));
            return Err(problem.help(format!("write `{parent}: value`")));
        };
        let chosen = || T::chosen_names(&setting.path[..depth]);
        let below = match &at {
            Cow::Borrowed(Value::Object(map)) => map.get(key).map(Cow::Borrowed),
            _ => map.get(key).cloned().map(Cow::Owned),
        };
        at = match below.or_else(|| chosen().map(Cow::Owned)) {
            Some(value) => value,
            None => {
                let mut keys: Vec<&str> = map.keys().map(String::as_str).collect();
                if depth == 0 {
                    keys.extend(also.iter().filter(|key| !key.contains('.')));
                }
                // `rank` alone is a key of another group: `method.rank`.
                let ending = format!(".{}", setting.name());
                let help = match also.iter().find(|key| key.ends_with(&ending)) {
                    Some(full) => format!("did you mean `{full}`?"),
                    None => instead(key, &keys),
                };
                let name = setting.path[..=depth].join(".");
                let message = format!("there is no key `{name}`");
                return Err(Problem::at(setting.keys[depth].clone(), message).help(help));
            }
        };
    }
    Ok(at)
}

/// Replaces the value at a path that is known to exist, or adds one under a chosen name.
fn put<T: SettingsGroup>(root: &mut Value, path: &[String], value: Value) {
    let mut at = root;
    for (depth, key) in path.iter().enumerate() {
        let Value::Object(map) = at else { return };
        let chosen = || T::chosen_names(&path[..depth]).unwrap_or_default();
        at = map.entry(key.clone()).or_insert_with(chosen);
    }
    *at = value;
}

/// The place of the last setting of `key` (with dots), or else of the first below it, if any.
pub fn span_of(settings: &[Setting], key: &str) -> Option<SourceSpan> {
    let below = format!("{key}.");
    let own = settings.iter().rev().find(|s| s.name() == key);
    own.or_else(|| settings.iter().find(|s| s.name().starts_with(&below))).map(|s| s.span.clone())
}
