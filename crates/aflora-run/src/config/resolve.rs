//! From a run file and overrides to a resolved configuration, or all that is wrong with them.

use super::block::ConfigBlock;
use super::blocks::{Finder, UserSettings, BLOCKS};
use super::from_adapter;
use super::keys::KEYS;
use super::layers::{overlay, span_of};
use super::own_data;
use super::own_files;
use super::problem::{instead, ConfigErrors, Problem, SourceSpan, COMMAND_LINE};
use super::run_settings::RunSettings;
use super::schema;
use super::settings::{is_name, ModelConfig, NAME};
use super::shipped;
use super::tree::{self, Setting};
use crate::task::{Kind, TaskSpec};
use aflora_core::adapter::MethodConfig;
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::Span;
use aflora_models::chat::SHIPPED;
use aflora_record::names::{CONFIG, PROVENANCE};
use aflora_record::settings::run_name;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration with every choice made.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The task.
    pub task: Arc<TaskSpec>,
    /// The model.
    pub model: ModelConfig,
    /// The method.
    pub method: MethodConfig,
    /// The name of the method's block, such as `aflora-text`.
    pub method_name: String,
    /// Everything else.
    pub run: RunSettings,
    /// Whether the user wrote spans of freezing that give way in a short run, instead of taking
    /// those of a shipped method.
    pub own_spans: bool,
    /// The folder that relative model paths start from, absolute.
    pub project: PathBuf,
}

/// Keys of every block that hold settings of the run.
const LAYERS: [&str; 2] = ["run", "run_for"];
/// Keys of a method block that are laid over the model's.
const TARGETS: [&str; 3] = ["target_modules", "exclude_modules", "layers"];

/// Loads a run file with overrides (`key=value`) on top.
///
/// # Errors
/// Everything that is wrong in the run file, in the blocks that it names and in the overrides.
pub fn load(run_file: &Path, overrides: &[String]) -> Result<Resolved, ConfigErrors> {
    load_all(Some(run_file), overrides)
}

/// As [`load`], without a run file where there is none: the overrides say it all then.
///
/// # Errors
/// As those of [`load`].
pub fn load_all(run_file: Option<&Path>, overrides: &[String]) -> Result<Resolved, ConfigErrors> {
    let mut problems = Vec::new();
    let user = UserSettings::read(run_file, overrides, &mut problems);
    let run_file = run_file.unwrap_or(Path::new(""));
    let folder = match run_file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let project = project_of(&folder);
    let mut folders = vec![folder];
    let shared = project.join("configs");
    if shared.canonicalize().ok() != folders[0].canonicalize().ok() {
        folders.push(shared);
    }
    // A run that was moved tells where its blocks are.
    let named =
        user.last("project").and_then(|s| s.value.as_str()).map(|p| Path::new(p).join("configs"));
    folders.extend(named.filter(|folder| folder.is_dir() && !folders.contains(folder)));
    let finder = Finder { folders, user: &user };
    let found = resolve(&finder, &mut problems);
    match found {
        Some((task, model, (method_name, method, spans), mut run)) if problems.is_empty() => {
            let own_spans = spans.iter().any(|span| is_own(span, run_file, &finder));
            let typed = |key: &str| {
                overrides.iter().any(|o| o.split('=').next().map(str::trim) == Some(key))
            };
            if !typed("run_dir") {
                run.run_dir = own_folder(run_file).or(run.run_dir);
            }
            // One that a run wrote down may be no more, or lie on another machine.
            let there = |named: &PathBuf| named.is_dir() || typed("project");
            let project = absolute(run.project.filter(there).unwrap_or(project));
            run.project = Some(project.clone());
            run.data = run.data.map(absolute);
            run.token_cache = run.token_cache.map(absolute);
            let task = Arc::new(task);
            Ok(Resolved { task, model, method, method_name, run, own_spans, project })
        }
        _ => Err(ConfigErrors::new(problems, run_file)),
    }
}

/// The nearest folder at or above `folder` that has configs/tasks; the working folder if none.
fn project_of(folder: &Path) -> PathBuf {
    let folder = folder.canonicalize().unwrap_or_default();
    let holds = |f: &&Path| f.join("configs").join("tasks").is_dir();
    folder.ancestors().find(holds).map(Path::to_path_buf).unwrap_or_default()
}

/// The folder of the run that `run_file` is the written configuration of, if it is one: it is that
/// run wherever the folder lies by now.
fn own_folder(run_file: &Path) -> Option<PathBuf> {
    let folder = run_file.parent()?;
    let own = run_file.file_name()? == CONFIG && folder.join(PROVENANCE).is_file();
    own.then(|| folder.to_path_buf())
}

/// The path from the root, so that it means the same wherever it is read again.
fn absolute(path: PathBuf) -> PathBuf {
    match path.as_os_str().is_empty() {
        true => std::env::current_dir().unwrap_or(path),
        false => std::path::absolute(&path).unwrap_or(path),
    }
}

/// Whether the user wrote what stands there for this very run: on the command line, in the run
/// file, in a method of his own. What a run wrote down of its settings does not say who did.
fn is_own(span: &SourceSpan, run_file: &Path, finder: &Finder<'_>) -> bool {
    if span.source.name == COMMAND_LINE {
        return true;
    }
    if shipped::is_source(&span.source.name) {
        return false;
    }
    let file = Path::new(&span.source.name).canonicalize().unwrap_or_default();
    // All but the run file's own folder, unless that is the project's.
    let shared = &finder.folders[finder.folders.len().min(2) - 1..];
    let mut shared = shared.iter().filter_map(|configs| configs.canonicalize().ok());
    let shipped = shared.any(|configs| file.starts_with(configs.join("methods")));
    !shipped && own_folder(run_file).is_none()
}

/// With the method come the places of its spans.
type Parts = (TaskSpec, ModelConfig, (String, MethodConfig, Vec<SourceSpan>), RunSettings);

fn resolve(finder: &Finder<'_>, problems: &mut Vec<Problem>) -> Option<Parts> {
    let mut task_block = finder.block("task", None, problems);
    if let Some(block) = &mut task_block {
        match own_data::is_in(&block.settings) {
            true => own_data::write_out(block, problems),
            false => fill_in(finder, block, problems),
        }
    }
    let task = task_block.as_ref().filter(|b| b.whole).map(|block| task_of(block, problems));
    let model_block = match &task {
        Some(task) => finder.block("model", task.model.as_deref(), problems),
        // A task that could not be read may have named a model: none is missed then.
        None if finder.user.names("model") => finder.block("model", None, problems),
        None => None,
    };
    let usual = task.as_ref().and_then(|task| task.method.as_deref()).unwrap_or("aflora");
    let method_block = finder.block("method", Some(usual), problems);

    let model = model_block.as_ref().filter(|b| b.whole).map(|block| {
        let mut settings = keys_of(block, &LAYERS[..1]);
        settings.extend(method_block.iter().flat_map(targets_of));
        overlay(&ModelConfig::default(), &settings, &LAYERS[..1], block.origin.as_ref(), problems)
    });
    let method = method_block.as_ref().and_then(|block| method_of(block, problems));

    // Layers of the run's own keys, in the order that the module's head gives.
    let blocks = [&model_block, &task_block, &method_block].map(|b| b.as_ref());
    blocks.into_iter().flatten().for_each(|block| check_layers(block, problems));
    let [model_run, task_run, method_run] =
        blocks.map(|block| block.map(|b| b.below("run")).unwrap_or_default());
    let name = model.as_ref().map_or("", |m| m.model.as_str());
    let run_for = task_block.as_ref().map(|b| b.below("run_for")).unwrap_or_default();
    check_run_for(finder, name, &run_for, problems);
    let run_for = run_for.iter().filter_map(|s| s.below(name));
    let own = finder.user.settings.iter().filter(|s| !BLOCKS.contains(&s.path[0].as_str()));
    let mut settings = [model_run, task_run].concat();
    settings.extend(run_for);
    settings.extend(method_run);
    settings.extend(own.cloned());
    let typed: Vec<String> = KEYS.iter().map(schema::Key::typed).collect();
    let also: Vec<&str> = BLOCKS.into_iter().chain(typed.iter().map(String::as_str)).collect();
    // `batch_size: auto` starts from the number that it stands over.
    let is_auto = |s: &Setting| s.path == ["batch_size"] && s.value == "auto";
    let last = settings.iter().rfind(|s| s.path == ["batch_size"]);
    let fit_batch = last.is_some_and(is_auto);
    settings.retain(|s| !is_auto(s));
    let run = overlay(&RunSettings::default(), &settings, &also, None, problems);
    let mut run = RunSettings { fit_batch, ..run };
    let conflicts = run.conflicts().into_iter();
    problems.extend(conflicts.map(|(key, words)| Problem::at(span_of(&settings, &key), words)));

    let (mut model, (mut method_name, mut method)) = (model?, method?);
    if let Some(named) = run.adapter.take() {
        let from = (named.as_path(), span_of(&settings, "adapter"));
        let method = (&mut method_name, &mut method);
        run.adapter = from_adapter::take(from, finder.user, &mut model, method, problems);
    }
    // Whom it names has been asked.
    let task = TaskSpec { model: None, method: None, ..task? };
    if let Some(message) = overlap(&method) {
        let span = method_block.as_ref().and_then(|b| span_of(&b.settings, "freeze.t_i"));
        let help = "shorten `method.freeze.t_i` or `method.freeze.t_f`";
        problems.push(Problem::at(span, message).help(help));
    }
    if run.record_gradients && method.build().is_ok_and(|method| method.freezes()) {
        let message = "`record_gradients` needs matrices that never freeze: what does has no \
                       gradients from then on";
        let span = span_of(&settings, "record_gradients");
        problems.push(Problem::at(span, message).help("write `method.freeze=never`"));
    }
    let settings = method_block.as_ref().map(|b| &b.settings[..]).unwrap_or_default();
    let spans = yielding(&method).into_iter().filter_map(|key| span_of(settings, key)).collect();
    Some((task, model, (method_name, method, spans), run))
}

/// The task of a block; named like its file where it does not name itself.
fn task_of(block: &ConfigBlock, problems: &mut Vec<Problem>) -> TaskSpec {
    let before = problems.len();
    let mut settings = keys_of(block, &LAYERS);
    settings.iter_mut().for_each(|setting| read_template(setting, problems));
    let says = |key: &str| settings.iter().any(|s| s.path == [key]);
    if !says("kind") {
        let message = format!("the task `{}` does not say of which kind it is", block.name);
        let help = format!("write `kind: name`, one of: {}", Kind::NAMES.join(", "));
        problems.push(Problem::at(block.origin.clone(), message).help(help));
    }
    let name = if says("task") { String::new() } else { block.name.clone() };
    let defaults = TaskSpec { task: name, ..TaskSpec::default() };
    let task = overlay(&defaults, &settings, &LAYERS, block.origin.as_ref(), problems);
    // What follows from another mistake is none.
    if problems.len() == before {
        let span = |key: &str| span_of(&settings, key).or(block.origin.clone());
        let conflicts = task.conflicts().into_iter();
        problems.extend(conflicts.map(|(key, message)| Problem::at(span(&key), message)));
    }
    task
}

/// Puts the template itself in the place of the file that a task names, so that a run keeps it.
fn read_template(setting: &mut Setting, problems: &mut Vec<Problem>) {
    let Some(named) = setting.value.as_str().filter(|_| setting.path == ["chat_template"]) else {
        return;
    };
    // A name, or a template as a run wrote it down.
    if SHIPPED.contains(&named) || named.contains("{{") || named.contains("{%") {
        return;
    }
    let read = own_files::path(named, setting).and_then(|path| {
        let most = 1 << 20;
        aflora_files::read_text_at_most(Path::new(&path), most)
            .map_err(|error| Problem::at(setting.span.clone(), format!("{path}: {error}")))
    });
    match read {
        Ok(text) if text.contains("{{") || text.contains("{%") => setting.value = text.into(),
        Ok(_) => {
            let message = format!("{named} holds no Jinja template");
            problems.push(Problem::at(setting.span.clone(), message));
        }
        Err(problem) => {
            let help = format!("`chat_template` names a file, or one of: {}", SHIPPED.join(", "));
            problems.push(problem.help(help));
        }
    }
}

/// Adds what a task is to a block that only names it, from the file of that name: runs of earlier
/// versions wrote no more down, and a file with settings for a task of the project need not say it.
/// Where there is no such file, or one of an earlier version, the one that this program was built
/// with stands in.
fn fill_in(finder: &Finder<'_>, block: &mut ConfigBlock, problems: &mut Vec<Problem>) {
    let last = |key: &str| block.settings.iter().rev().find(|s| s.path == [key]);
    let (None, Some(name)) = (last("kind"), last("task").and_then(|s| s.value.as_str())) else {
        return;
    };
    let mut missing = Vec::new();
    let mut settings = finder.read("task", name, &mut missing);
    let says_its_kind = |settings: &Vec<Setting>| settings.iter().any(|s| s.path == ["kind"]);
    if let (None, Some(text)) =
        (settings.as_ref().filter(|settings| says_its_kind(settings)), shipped::text("task", name))
    {
        missing.clear();
        settings = tree::read_text(shipped::source("task", name), text.to_string(), problems);
    }
    // That a file does not say its kind is told anyway.
    problems.extend(missing.into_iter().filter(|_| block.origin.is_none()));
    let shared = [&LAYERS[..], &["model", "method"]].concat();
    let of_task = |s: &Setting| !shared.contains(&s.path[0].as_str());
    let task: Vec<Setting> = settings.into_iter().flatten().filter(of_task).collect();
    block.settings.splice(0..0, task);
}

/// The block's own settings: not those below `others`.
fn keys_of(block: &ConfigBlock, others: &[&str]) -> Vec<Setting> {
    let own = |s: &&Setting| !others.contains(&s.path[0].as_str());
    block.settings.iter().filter(own).cloned().collect()
}

fn targets_of(block: &ConfigBlock) -> impl Iterator<Item = Setting> + '_ {
    block.settings.iter().filter(|s| TARGETS.contains(&s.path[0].as_str())).cloned()
}

/// The method and the name of its block.
fn method_of(block: &ConfigBlock, problems: &mut Vec<Problem>) -> Option<(String, MethodConfig)> {
    let mut settings = keys_of(block, &[&LAYERS[..1], &TARGETS[..]].concat());
    // `freeze: never` is short for `freeze: {mode: never}`.
    for setting in &mut settings {
        if setting.path == ["freeze"] && setting.value.is_string() {
            setting.path.push("mode".into());
            setting.keys.push(setting.span.clone());
        }
    }
    let last = |key: &str| settings.iter().rev().find(|s| s.path == [key]).cloned();
    let (kind, name) = (last("method"), last("name"));
    settings.retain(|s| s.path != ["method"] && s.path != ["name"]);
    let mut block_name = block.name.clone();
    if let Some(setting) = name {
        block_name = setting.value.as_str().unwrap_or_default().to_string();
        if !is_name(&block_name) {
            let message = format!("`name` is {}, but must be {NAME}", setting.value);
            problems.push(Problem::at(setting.span, message));
        }
    }
    let Some(kind) = kind else {
        if block.whole {
            let message = format!("the method `{}` does not say which it is", block.name);
            let help = format!("write `method: name`, one of: {}", MethodConfig::NAMES.join(", "));
            problems.push(Problem::at(block.origin.clone(), message).help(help));
        }
        return None;
    };
    let name = kind.value.as_str().unwrap_or_default();
    let Some(defaults) = MethodConfig::defaults(name) else {
        let problem = Problem::at(kind.span.clone(), format!("there is no method `{name}`"));
        problems.push(problem.help(instead(name, MethodConfig::NAMES)));
        return None;
    };
    let also = [&TARGETS[..], &["run", "name"]].concat();
    let config = overlay(&defaults, &settings, &also, block.origin.as_ref(), problems);
    Some((block_name, config))
}

/// `run` and `run_for` hold keys; as values they would say nothing.
fn check_layers(block: &ConfigBlock, problems: &mut Vec<Problem>) {
    let value =
        |s: &&Setting| !s.value.is_null() && !s.value.as_object().is_some_and(|o| o.is_empty());
    for setting in block.settings.iter().filter(value) {
        let depth = match setting.path[0].as_str() {
            "run" => 1,
            "run_for" => 2,
            _ => continue,
        };
        if setting.path.len() <= depth {
            let message = format!("`{}` is a group of keys", setting.name());
            let example = ["run: {epochs: 3}", "run_for: {minilm: {epochs: 3}}"][depth - 1];
            let help = format!("write for example `{example}`");
            problems.push(Problem::at(setting.span.clone(), message).help(help));
        }
    }
}

/// Names of models in `run_for`, and the settings for other models than the one that runs.
fn check_run_for(
    finder: &Finder<'_>,
    model: &str,
    run_for: &[Setting],
    problems: &mut Vec<Problem>,
) {
    let names = finder.names("model");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let others = run_for.iter().filter(|s| s.path[0] != model);
    for setting in others.clone() {
        let name = setting.path[0].as_str();
        if !names.is_empty() && !names.contains(&name) {
            let message = format!("`{name}` is no model");
            problems
                .push(Problem::at(setting.keys[0].clone(), message).help(instead(name, &names)));
        }
    }
    let settings: Vec<Setting> = others.filter_map(|s| s.below(&s.path[0])).collect();
    overlay(&RunSettings::default(), &settings, &[], None, problems);
}

/// The keys of the method's spans that are no shares of the run, and give way in a short one.
fn yielding(method: &MethodConfig) -> Vec<&'static str> {
    let Some(freeze) = method.settings().freezing() else { return Vec::new() };
    let spans = [("freeze.t_i", freeze.t_i), ("freeze.t_f", freeze.t_f)];
    let fixed = spans.into_iter().filter(|(_, span)| !matches!(span, Span::Share(_)));
    fixed.map(|(key, _)| key).collect()
}

/// What is wrong if the spans in which nothing and everything is frozen overlap in a run of any
/// length. Spans in epochs and steps give way in a short one.
fn overlap(method: &MethodConfig) -> Option<String> {
    let freeze = method.settings().freezing().filter(|f| f.mode == FreezeMode::Adaptive)?;
    let FreezeConfig { t_i: t_i @ Span::Share(first), t_f: t_f @ Span::Share(last), .. } = freeze
    else {
        return None;
    };
    (first + last > 1.0 + 1e-9).then(|| {
        format!("`freeze.t_i + freeze.t_f` is {t_i} + {t_f}, more than the whole of any run")
    })
}

impl Resolved {
    /// The run's name: `<task>-<model>-<method>-seed<seed>`.
    pub fn name(&self) -> String {
        let Resolved { task, model, method_name, run, .. } = self;
        run_name(task.name(), &model.model, method_name, run.seed)
    }

    /// As one YAML file that [`load`] takes again, from any working folder.
    ///
    /// # Errors
    /// A setting cannot be written as YAML.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        let mut placed = self.clone();
        placed.run.run_dir = placed.run.run_dir.map(absolute);
        serde_saphyr::to_string(&placed.file())
    }

    /// All settings in the form of a run file.
    pub(super) fn file(&self) -> File<'_> {
        let method = Method { name: &self.method_name, config: &self.method };
        File { task: &self.task, model: &self.model, method, run: &self.run }
    }
}

/// A resolved configuration as it is written.
#[derive(Serialize)]
pub(super) struct File<'a> {
    task: &'a TaskSpec,
    model: &'a ModelConfig,
    method: Method<'a>,
    #[serde(flatten)]
    run: &'a RunSettings,
}

#[derive(Serialize)]
struct Method<'a> {
    name: &'a str,
    #[serde(flatten)]
    config: &'a MethodConfig,
}
