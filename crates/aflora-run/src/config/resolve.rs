//! From a run file and overrides to a resolved configuration, or all that is wrong with them.

use super::layers::{lay, place_of, unknown};
use super::problem::{ConfigErrors, Place, Problem};
use super::settings::{core_problem, MethodConfig, ModelConfig, RunSettings, TaskConfig};
use super::tree::{self, Setting};
use crate::data::Task;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A configuration with every choice made.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The task.
    pub task: Task,
    /// The model.
    pub model: ModelConfig,
    /// The method.
    pub method: MethodConfig,
    /// The name of the method's block, such as `aflora-text`.
    pub method_name: String,
    /// Everything else.
    pub run: RunSettings,
    /// The folder that relative model paths start from.
    pub project: PathBuf,
}

/// The blocks that a run file names.
const BLOCKS: [&str; 3] = ["task", "model", "method"];

/// Loads a run file with overrides on top.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(run_file: &Path, overrides: &[String]) -> Result<Resolved, ConfigErrors> {
    let mut problems = Vec::new();
    let mut own = tree::read(run_file).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    for typed in overrides {
        match tree::parse_override(typed) {
            Ok(setting) => {
                // Naming a block anew drops what the file said about the old one.
                if let [key] = &setting.path[..] {
                    if BLOCKS.contains(&key.as_str()) {
                        own.retain(|s| s.path[0] != *key);
                    }
                }
                own.push(setting);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() && own.is_empty() {
        return Err(ConfigErrors(problems));
    }
    Loader { folder: folder_of(run_file), own, problems }.resolve()
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

struct Loader {
    folder: PathBuf,
    /// Settings of the run file and the command line.
    own: Vec<Setting>,
    problems: Vec<Problem>,
}

impl Loader {
    fn resolve(mut self) -> Result<Resolved, ConfigErrors> {
        let (_, task_block) = self.block("task", None);
        let fixed = |s: &&Setting| s.path[0] != "run" && s.path[0] != "run_for";
        let only = |block: &[Setting]| block.iter().filter(fixed).cloned().collect::<Vec<_>>();
        let task_config = lay(&TaskConfig::blank(), &only(&task_block), &mut self.problems);
        let task = self.task(&task_config, &task_block);

        let (_, model_block) =
            self.block("model", task_config.model.as_deref().filter(|m| !m.is_empty()));
        let model = lay(&ModelConfig::default(), &only(&model_block), &mut self.problems);
        self.require(&model.model, "model", "model");
        self.require(&model.backbone, "backbone", "model");

        let (method_name, method_block) = self.block("method", Some("aflora"));
        let method = self.method(only(&method_block));

        // Layers of the run's own keys, in the order that the module's head gives.
        let under = |block: &[Setting], key: &str| -> Vec<Setting> {
            block.iter().filter_map(|s| s.below(key)).collect()
        };
        let mut layers = under(&model_block, "run");
        layers.extend(under(&task_block, "run"));
        layers.extend(under(&under(&task_block, "run_for"), &model.model));
        layers.extend(under(&method_block, "run"));
        let own = self.own.iter().filter(|s| !BLOCKS.contains(&s.path[0].as_str()));
        layers.extend(own.cloned());
        // Keys under `run_for` of other models are checked as well.
        let mut others = under(&task_block, "run_for");
        others.retain(|s| s.path[0] != model.model);
        for setting in &mut others {
            setting.path.remove(0);
        }
        others.retain(|s| !s.path.is_empty());
        lay(&RunSettings::default(), &others, &mut self.problems);

        let run = lay(&RunSettings::default(), &layers, &mut self.problems);
        for (key, message) in run.problems() {
            self.problems.push(Problem { place: place_of(&layers, &key), message });
        }
        match task {
            Some(task) if self.problems.is_empty() => {
                let project = project_of(&self.folder);
                Ok(Resolved { task, model, method, method_name, run, project })
            }
            _ => Err(ConfigErrors(self.problems)),
        }
    }

    /// The name and the settings of a block: of its file where it is named, then what the run
    /// file and the command line say about it.
    fn block(&mut self, kind: &str, default: Option<&str>) -> (String, Vec<Setting>) {
        let inline: Vec<Setting> = self.own.iter().filter_map(|s| s.below(kind)).collect();
        let named = self.own.iter().rev().find(|s| s.path.len() == 1 && s.path[0] == kind).cloned();
        let (name, place) = match &named {
            Some(Setting { value: Value::String(name), place, .. }) => {
                (name.clone(), place.clone())
            }
            Some(other) => {
                let message = format!("`{kind}` must be the name of a {kind}, or its settings");
                self.problems.push(Problem { place: other.place.clone(), message });
                return (String::new(), inline);
            }
            // The settings stand in the run file itself.
            None if inline.iter().any(|s| s.path == [kind]) => {
                let own = inline.iter().find(|s| s.path == [kind]);
                let name = own.and_then(|s| s.value.as_str()).unwrap_or_default();
                return (name.to_string(), inline);
            }
            None => match default {
                Some(name) => (name.to_string(), Place::Nowhere),
                None => {
                    let message = format!("there is no `{kind}`; name one with `{kind}: …`");
                    self.problems.push(Problem { place: Place::Nowhere, message });
                    return (String::new(), inline);
                }
            },
        };
        let mut settings = match self.find(kind, &name) {
            Ok(path) => tree::read(&path).unwrap_or_else(|problem| {
                self.problems.push(problem);
                Vec::new()
            }),
            Err(message) => {
                self.problems.push(Problem { place, message });
                Vec::new()
            }
        };
        settings.extend(inline);
        let stem = Path::new(&name).file_stem().and_then(|s| s.to_str()).unwrap_or(&name);
        (stem.to_string(), settings)
    }

    fn find(&self, kind: &str, name: &str) -> Result<PathBuf, String> {
        if name.ends_with(".yaml") || name.ends_with(".yml") {
            let path = PathBuf::from(name);
            return if path.is_file() { Ok(path) } else { Err(format!("{name}: no such file")) };
        }
        let folder = self.folder.join(format!("{kind}s"));
        let path = folder.join(format!("{name}.yaml"));
        // A name is a name: nothing outside the folder is opened by it.
        if !name.contains(['/', '\\']) && path.is_file() {
            return Ok(path);
        }
        let files = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut names: Vec<String> = files
            .flatten()
            .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".yaml")?.to_string()))
            .collect();
        names.sort();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        Err(unknown(kind, name, name, &known))
    }

    fn task(&mut self, config: &TaskConfig, block: &[Setting]) -> Option<Task> {
        if block.is_empty() {
            return None;
        }
        match config.task.parse::<Task>() {
            Ok(task) => Some(task),
            Err(error) => {
                let place = place_of(block, "task");
                self.problems.push(Problem { place, message: error.to_string() });
                None
            }
        }
    }

    fn method(&mut self, mut block: Vec<Setting>) -> MethodConfig {
        // `freeze: never` is short for `freeze: {mode: never}`.
        for setting in &mut block {
            if setting.path == ["freeze"] && setting.value.is_string() {
                setting.path.push("mode".into());
            }
        }
        let name = block.iter().rev().find(|s| s.path == ["method"]);
        let known = name.and_then(|s| MethodConfig::defaults(s.value.as_str()?));
        let Some(defaults) = known else {
            if !block.is_empty() {
                let given = name.map_or(String::new(), |s| s.value.to_string().replace('"', ""));
                let message = unknown("method", &given, &given, &MethodConfig::NAMES);
                self.problems.push(Problem { place: place_of(&block, "method"), message });
            }
            return MethodConfig::Head {};
        };
        block.retain(|s| s.path != ["method"]);
        let method = lay(&defaults, &block, &mut self.problems);
        if let Err(error) = method.build() {
            let (key, message) = core_problem(error);
            self.problems.push(Problem { place: place_of(&block, &key), message });
        }
        method
    }

    fn require(&mut self, value: &str, key: &str, block: &str) {
        if value.is_empty() && !self.problems.iter().any(|p| p.message.contains(block)) {
            let message = format!("the {block} has no `{key}`");
            self.problems.push(Problem { place: Place::Nowhere, message });
        }
    }
}

impl TaskConfig {
    /// The defaults with every key present, so that all are known.
    fn blank() -> Self {
        TaskConfig { task: String::new(), model: Some(String::new()) }
    }
}

/// Relative model paths start from the folder that holds the folder of the configurations.
fn project_of(folder: &Path) -> PathBuf {
    folder.canonicalize().ok().and_then(|f| f.parent().map(PathBuf::from)).unwrap_or_default()
}

impl Resolved {
    /// The run's name: `<task>-<model>-<method>-seed<seed>`.
    pub fn name(&self) -> String {
        let Resolved { task, model, method_name, run, .. } = self;
        format!("{}-{}-{method_name}-seed{}", task.name(), model.model, run.seed)
    }

    /// As one YAML file that [`load`] takes again.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        #[derive(Serialize)]
        struct File<'a> {
            task: TaskConfig,
            model: ModelConfig,
            method: &'a MethodConfig,
            #[serde(flatten)]
            run: &'a RunSettings,
        }
        // The file will lie elsewhere: relative paths would not be found from there.
        let mut model = self.model.clone();
        model.path = model.path.map(|p| self.project.join(p));
        let task = TaskConfig { task: self.task.name().into(), model: None };
        serde_saphyr::to_string(&File { task, model, method: &self.method, run: &self.run })
    }
}
