//! A run that goes on from an adapter: its method and its layers are those of the adapter's folder.

use super::blocks::UserSettings;
use super::problem::{Problem, SourceSpan};
use super::settings::ModelConfig;
use crate::hub::FoundAdapter;
use aflora_core::adapter::MethodConfig;
use aflora_models::adapter_folder::{AdapterFolder, CONFIG};
use aflora_models::Pattern;
use aflora_record::names::ADAPTER;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Keys of a method that name it, or hold settings of other parts.
const NAMES: [&str; 3] = ["name", "method", "run"];

/// How the method trains what the folder holds: the user's where the user says it, the folder's otherwise.
const FREEZE: &str = "freeze";

/// Keys of a model that choose its layers.
const LAYERS: [&str; 3] = ["target_modules", "exclude_modules", "layers"];

/// Gives `model` the layers and `method`, with the name of its block, the settings of the adapter that
/// was `named` at `span`, and gives what [finds it again](FoundAdapter::lasting). What the `user` says
/// and the folder contradicts is told.
pub(super) fn take(
    (named, span): (&Path, Option<SourceSpan>),
    user: &UserSettings,
    model: &mut ModelConfig,
    method: (&mut String, &mut MethodConfig),
    problems: &mut Vec<Problem>,
) -> Option<PathBuf> {
    // A run's folder stands for the adapter of its best evaluation, as for every other command.
    let of_run = named.join(ADAPTER);
    let is_run = !named.join(CONFIG).is_file() && of_run.join(CONFIG).is_file();
    let named = if is_run { &of_run } else { named };
    match FoundAdapter::find(named, &mut |_, _| {}) {
        Ok(Some(found)) => {
            take_of_folder((&found.folder, span), user, model, method, problems);
            return Some(found.lasting);
        }
        Ok(None) => {
            let message = format!("{} is no adapter: it holds no {CONFIG}", named.display());
            let help =
                "name an adapter's folder, a run's, or owner/name@revision of one on the hub";
            problems.push(Problem::at(span, message).help(help));
        }
        Err(message) => problems.push(Problem::at(span, message)),
    }
    None
}

fn take_of_folder(
    (folder, span): (&Path, Option<SourceSpan>),
    user: &UserSettings,
    model: &mut ModelConfig,
    (name, method): (&mut String, &mut MethodConfig),
    problems: &mut Vec<Problem>,
) {
    let adapter = match AdapterFolder::open(folder) {
        Ok(adapter) => adapter,
        Err(error) => return problems.push(Problem::at(span, error.to_string())),
    };
    let theirs = &adapter.description().method;
    let of_method = || user.settings.iter().filter(|s| s.path[0] == "method");
    let help = "leave it out: what goes on from an adapter has the adapter's own";
    if user.names("method") && method.name() != theirs.name() {
        let message = format!(
            "the adapter in {} is of the method `{}`, not `{}`",
            folder.display(),
            theirs.name(),
            method.name()
        );
        let at = of_method().next_back().map(|s| s.span.clone()).or(span);
        return problems.push(Problem::at(at, message).help(help));
    }
    let value = |method: &MethodConfig, key: &str| -> Value {
        let settings = serde_json::to_value(method).unwrap_or_default();
        settings.get(key).cloned().unwrap_or_default()
    };
    for setting in of_method() {
        let is_compared = |key: &&String| key.as_str() != FREEZE && !NAMES.contains(&key.as_str());
        let Some(key) = setting.path.get(1).filter(is_compared) else {
            continue;
        };
        let (own, adapters) = (value(method, key), value(theirs, key));
        if own != adapters && !own.is_null() {
            let message =
                format!("`method.{key}` is {own}, but {adapters} in {}", folder.display());
            problems.push(Problem::at(setting.span.clone(), message).help(help));
        }
    }
    if !model.train_modules.is_empty() {
        let message = "`train_modules` is not for a run that goes on from an adapter";
        problems.push(Problem::at(span.clone(), message).help(help));
    }
    match adapter.layers() {
        Ok(layers) => {
            // A run's own file repeats the adapter's.
            let is_same = |key: &str, value: &Value| match key {
                "target_modules" => *value == Value::from(layers.clone()),
                _ => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
            };
            for setting in user.settings.iter().filter(|s| s.path[0] == "model") {
                let Some(key) = setting.path.get(1).filter(|k| LAYERS.contains(&k.as_str())) else {
                    continue;
                };
                if !is_same(key, &setting.value) {
                    let message = format!("`model.{key}` contradicts the adapter's layers");
                    problems.push(Problem::at(setting.span.clone(), message).help(help));
                }
            }
            model.target_modules = Pattern::Names(layers);
            model.exclude_modules = Pattern::default();
            model.layers = None;
        }
        Err(error) => problems.push(Problem::at(span.clone(), error.to_string())),
    }
    let freeze = value(method, FREEZE);
    *method = theirs.clone();
    if user.names("method") && !freeze.is_null() {
        match with(theirs, FREEZE, freeze) {
            Ok(trained) => *method = trained,
            Err(error) => {
                let message = format!("`method.{FREEZE}`: {error}");
                problems.push(Problem::at(span, message));
            }
        }
    }
    if !user.names("method") {
        *name = theirs.name().to_string();
    }
}

/// `method` with `value` for one of its settings.
fn with(method: &MethodConfig, key: &str, value: Value) -> serde_json::Result<MethodConfig> {
    let mut settings = serde_json::to_value(method)?;
    settings[key] = value;
    serde_json::from_value(settings)
}
