//! The settings of the task and of the model; as for [those of the run](super::run_settings), a
//! field declares its key.

use super::layers::{core_problem, SettingsGroup};
use super::schema;
use crate::feed::Source;
use crate::hub::{is_repo, is_revision};
use crate::task::TaskSpec;
use aflora_core::adapter::MethodConfig;
use aflora_models::{kinds, Pattern, Targets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::LazyLock;

/// What the parts of a run's name must be: they name its folder.
pub(super) const NAME: &str = "a name: no `/`, no `\\`, no leading dot";

/// Whether `text` can be part of a run's name.
pub(super) fn is_name(text: &str) -> bool {
    let odd = |c: char| matches!(c, '/' | '\\') || c.is_control();
    !text.trim().is_empty() && !text.starts_with('.') && !text.contains(odd)
}

impl SettingsGroup for TaskSpec {
    fn problems(&self) -> Vec<(String, String)> {
        static KEYS: LazyLock<Vec<schema::Key>> = LazyLock::new(schema::of::<TaskSpec>);
        let mut problems = TaskSpec::problems(self);
        problems.extend(schema::out_of_range(&KEYS, self));
        // It becomes a part of the run's name.
        if !self.task.is_empty() && !is_name(&self.task) {
            let message = format!("`task` is {:?}, but must be {NAME}", self.task);
            problems.push(("task".into(), message));
        }
        problems
    }

    fn chosen_names(path: &[String]) -> Option<Value> {
        let as_value = |source: Source| serde_json::to_value(source).unwrap_or_default();
        match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["dataset", "sources"] => Some(as_value(Source::default())),
            ["dataset", "sources", _, "files" | "columns" | "skip"] => Some(Value::Null),
            _ => None,
        }
    }
}

/// What a model starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightsFrom {
    /// Its checkpoint.
    #[default]
    Pretrained,
    /// Random numbers: to try things out where there is no checkpoint.
    Random,
}

/// A model block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The model's name in runs and reports.
    #[schemars(extend("takes" = "name"))]
    pub model: String,
    /// The code that runs it, such as bert.
    #[schemars(extend("takes" = "name"))]
    pub backbone: String,
    /// A folder with config.json, weights and tokenizer, relative to the project.
    #[schemars(extend("takes" = "folder, null"))]
    pub path: Option<PathBuf>,
    /// Where it lies on the hub.
    #[schemars(extend("takes" = "owner/name, null"))]
    pub repo: Option<String>,
    /// What to take from the hub.
    #[schemars(extend("takes" = "commit, null"))]
    pub revision: Option<String>,
    /// What it starts from; random to try things out.
    pub weights: WeightsFrom,
    /// Linear layers that get an adapter.
    pub target_modules: Pattern,
    /// Targets that get none after all.
    pub exclude_modules: Pattern,
    /// Only layers with these numbers.
    pub layers: Option<Vec<i64>>,
    /// Modules that train in full beside the head.
    pub train_modules: Vec<String>,
    /// Less memory for one more forward pass: keeps each block's input only, and runs blocks a
    /// second time for the gradient.
    pub gradient_checkpointing: bool,
}

impl ModelConfig {
    /// Which layers get an adapter.
    pub fn targets(&self) -> Targets {
        Targets {
            target_modules: self.target_modules.clone(),
            exclude_modules: self.exclude_modules.clone(),
            layers: self.layers.clone(),
        }
    }
}

impl SettingsGroup for ModelConfig {
    fn problems(&self) -> Vec<(String, String)> {
        let needed = [("model", &self.model), ("backbone", &self.backbone)];
        let missing = needed.iter().filter(|(_, value)| value.trim().is_empty());
        let choices = |key: &str| match key {
            "backbone" => {
                format!("; write `backbone: kind`, one of: {}", kinds().join(", "))
            }
            _ => String::new(),
        };
        let message = |key: &str| format!("the model has no `{key}`{}", choices(key));
        let mut problems: Vec<_> =
            missing.map(|(key, _)| (key.to_string(), message(key))).collect();
        if problems.is_empty() && !is_name(&self.model) {
            let message = format!("`model` is {:?}, but must be {NAME}", self.model);
            problems.push(("model".into(), message));
        }
        // They become parts of paths and addresses.
        for (key, value, right, is_right) in [
            ("repo", &self.repo, "`owner/name` on the hub", is_repo as fn(&str) -> bool),
            ("revision", &self.revision, "a commit of the hub's", is_revision),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !is_right(value)) {
                let message = format!("`{key}` is {value:?}, but must be {right}");
                problems.push((key.into(), message));
            }
        }
        problems
    }
}

impl SettingsGroup for MethodConfig {
    fn problems(&self) -> Vec<(String, String)> {
        self.build().err().map(core_problem).into_iter().collect()
    }
}
