//! An adapter folder as users of PEFT have it, with its base model: what a finished run would say of
//! its task is found in the two.

use crate::config::{self, ModelConfig, Resolved, RunSettings};
use crate::hub::{is_repo, name_and_revision, FoundAdapter, Hub, Repo, MAIN};
use crate::run::model::build_shapes;
use crate::run::model_files::{self, byte_progress, locator, ModelFiles};
use crate::task::{Kind, Label, TaskSpec};
use crate::ui::Progress;
use crate::{usage, UsageError};
use aflora_models::adapter_folder::{self, AdapterFolder, TaskType};
use aflora_models::model_file;
use aflora_record::names::METRICS;
use anyhow::{anyhow, Result};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// The task's name in messages.
const NAME: &str = "adapter";

/// Positions of which the usual length of a text would leave no half for the prompt.
const FEW: usize = 256;

/// The adapter that is [named](FoundAdapter::find) so, and what [`resolve`] finds for it on `model`, else on the one
/// that it names.
///
/// # Errors
/// There is none, or its model is nowhere.
pub(super) fn open(
    named: &Path,
    model: Option<&str>,
    data: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<(AdapterFolder, Resolved, ModelFiles)> {
    let found = FoundAdapter::find(named, &mut byte_progress(progress, "adapter"));
    let Some(FoundAdapter { folder, .. }) = found.map_err(UsageError)? else {
        usage!(
            "{} is no finished run: it holds no {METRICS}; `aflora ls` lists those that are. Nor is \
             it an adapter's folder: it holds no {}",
            named.display(),
            adapter_folder::CONFIG
        );
    };
    let adapter = AdapterFolder::open(&folder)?;
    let (resolved, files) = resolve(&adapter, model, data, progress)?;
    let files = files.with_tokenizer_of(&folder);
    Ok((adapter, resolved, files))
}

/// What a run of `adapter` on its base model would say, and where that model's files are. `named` is
/// the model that the user named in place of the one that the folder does, `data` a further place to
/// look for it in.
///
/// # Errors
/// The model is nowhere, or of a kind that is not built, or does not do what the adapter is for.
fn resolve(
    adapter: &AdapterFolder,
    named: Option<&str>,
    data: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<(Resolved, ModelFiles)> {
    let about = adapter.description();
    let base = about.base_model.as_ref();
    let Some(name) = named.or(base.map(|base| base.name.as_str()).filter(|name| !name.is_empty()))
    else {
        usage!("the adapter's folder names no base model: name it with --model");
    };
    let (name, revision) = match (named, base) {
        (None, Some(base)) => (name, base.revision.as_deref()),
        _ => match name_and_revision(name).filter(|_| !Path::new(name).exists()) {
            Some((repo, revision)) => (repo, revision),
            None => (name, None),
        },
    };
    let mut resolved = resolve_model(name, revision, data)?;
    resolved.method = about.method.clone();
    resolved.method_name = about.method.name().to_string();
    resolved.run = RunSettings {
        data: resolved.run.data.take(),
        project: resolved.run.project.take(),
        ..RunSettings::default()
    };
    let files = model_files::find(&resolved, &locator(&resolved), None, true, progress)?;
    let base = base_config(&files);
    let task_type = about.task_type.unwrap_or_else(|| TaskType::of_base(&base));
    resolved.task = Arc::new(task(task_type, &base, |task| {
        resolved.task = Arc::new(task);
        let shapes = build_shapes(&resolved, &files)?;
        let rows = shapes.about().class_rows.map(|module| format!("{module}.weight"));
        Ok(rows.and_then(|weight| adapter.saved_shape(&weight)?.first().copied()))
    })?);
    aflora_models::check_kind(&resolved.model.backbone, resolved.task.head())?;
    // No text is cut that the model can read.
    let positions = build_shapes(&resolved, &files)?.about().max_positions;
    let positions = usize::try_from(positions).unwrap_or(resolved.run.max_length);
    resolved.run.max_length = positions;
    if positions < FEW {
        // A prompt and what is written after it share them.
        let task = Arc::make_mut(&mut resolved.task);
        task.generation.max_new_tokens = Some(positions / 2);
    }
    Ok((resolved, files))
}

/// A configuration with the model of that name: of a block, in a folder or a GGUF file, or on the
/// hub.
fn resolve_model(name: &str, revision: Option<&str>, data: Option<&Path>) -> Result<Resolved> {
    let quoted = |text: &str| Value::from(text).to_string();
    let load = |name: &str| {
        let mut settings = vec!["task=reviews".to_string(), format!("model={}", quoted(name))];
        settings.extend(data.map(|data| format!("data={}", quoted(&data.to_string_lossy()))));
        config::load_all(None, &settings)
    };
    if !is_repo(name) || model_file::is_folder(Path::new(name)) {
        return Ok(load(name)?);
    }
    // A model that comes with the project goes by its name there, too.
    let last = name.rsplit('/').next().unwrap_or(name);
    let known = load(last)
        .ok()
        .filter(|known| !name.contains('/') || known.model.repo.as_deref() == Some(name));
    if let Some(mut known) = known {
        if let Some(revision) = revision.filter(|_| known.model.repo.as_deref() == Some(name)) {
            known.model.revision = Some(revision.into());
        }
        return Ok(known);
    }
    if !name.contains('/') {
        // In the words that a run would be refused with.
        return Ok(load(name)?);
    }
    let mut resolved = load("minilm")?;
    let repo = model(name, revision.unwrap_or(MAIN));
    let config = Hub::from_env().get(&repo, "config.json", &mut |_, _| {}).map_err(|error| {
        UsageError(format!(
            "the adapter's base model {name} is no folder, no model of the project, and not to be \
             had from the hub: {error}\nName a folder that holds it with --model."
        ))
    })?;
    let usual = aflora_models::kind_of(&config)?;
    resolved.model = ModelConfig {
        model: last.to_string(),
        backbone: usual.kind.to_string(),
        repo: Some(repo.repo),
        revision: Some(repo.revision),
        ..ModelConfig::default()
    };
    Ok(resolved)
}

fn model(repo: &str, revision: &str) -> Repo {
    Repo { repo: repo.into(), revision: revision.into(), dataset: false }
}

/// The base model's config.json; nothing where it is no file of its own.
fn base_config(files: &ModelFiles) -> Map<String, Value> {
    let text = aflora_files::read_text(&files.config).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// The task that an adapter of this type is for. `rows` tells, of a task with a head for classes, how
/// many the adapter's own has.
fn task(
    of: TaskType,
    base: &Map<String, Value>,
    rows: impl FnOnce(TaskSpec) -> Result<Option<i64>>,
) -> Result<TaskSpec> {
    let named = |kind: Kind| TaskSpec { task: NAME.into(), kind, ..TaskSpec::default() };
    let kind = match of {
        TaskType::CausalLm | TaskType::Seq2SeqLm => return with_metrics(named(Kind::Write)),
        TaskType::TokenClassification => Kind::Tokens,
        TaskType::SequenceClassification => {
            match base.get("problem_type").and_then(Value::as_str) {
                Some("multi_label_classification") => Kind::Multilabel,
                Some("regression") => Kind::Score,
                _ => Kind::Classify,
            }
        }
    };
    let of_base = names(base);
    let two = vec![Label::from("0"), Label::from("1")];
    let rows = rows(TaskSpec { labels: two, ..named(kind) })?;
    let count = match rows {
        Some(rows) => usize::try_from(rows).unwrap_or(0),
        None if of_base.is_empty() => 2,
        None => of_base.len(),
    };
    // One logit is a score, as transformers has it.
    let kind = if count == 1 && kind == Kind::Classify { Kind::Score } else { kind };
    let labels: Vec<String> = match of_base.len() == count {
        true => of_base,
        false => (0..count).map(|i| format!("LABEL_{i}")).collect(),
    };
    let labels = match kind {
        Kind::Score if count == 1 => Vec::new(),
        _ => labels.iter().map(|label| Label::from(label.as_str())).collect(),
    };
    with_metrics(TaskSpec { labels, ..named(kind) })
}

/// The task with what most of its kind are judged by.
fn with_metrics(task: TaskSpec) -> Result<TaskSpec> {
    let labels: Vec<String> = task.labels.iter().map(|label| label.as_str().to_string()).collect();
    let names = task.rules().usual(&labels).metrics;
    let metrics = serde_json::from_value(Value::from(names.to_vec()));
    let metrics = metrics.map_err(|error| anyhow!("the metrics of {:?}: {error}", task.kind))?;
    Ok(TaskSpec { metrics, ..task })
}

/// The names of the base model's classes, in the order of their numbers; none where they do not
/// number 0, 1, …
fn names(base: &Map<String, Value>) -> Vec<String> {
    let Some(names) = base.get("id2label").and_then(Value::as_object) else { return Vec::new() };
    let name = |i: usize| Some(names.get(&i.to_string())?.as_str()?.to_string());
    (0..names.len()).map(name).collect::<Option<_>>().unwrap_or_default()
}
