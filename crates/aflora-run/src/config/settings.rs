//! The settings of the task and of the model; as for [those of the run](super::run_settings), a
//! field declares its key.

use super::layers::{core_problem, Group};
use super::schema::{self, MOST};
use crate::data::Task;
use crate::hub::{is_repo, is_revision};
use crate::metrics::TextMetric;
use aflora_core::adapter::MethodConfig;
use aflora_models::generate::GenerationSettings;
use aflora_models::{kinds, Pattern, Purpose, Targets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::LazyLock;

/// What the parts of a run's name must be: they name its folder.
pub(super) const NAME: &str = "a name: no `/`, no `\\`, no leading dot";

/// Whether `text` can be part of a run's name.
pub(super) fn is_name(text: &str) -> bool {
    let odd = |c: char| matches!(c, '/' | '\\') || c.is_control();
    !text.trim().is_empty() && !text.starts_with('.') && !text.contains(odd)
}

/// A task block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskConfig {
    /// Which of the built-in tasks.
    #[schemars(extend("takes" = "name"))]
    pub task: String,
    /// The model where none is named.
    #[schemars(extend("takes" = "name"))]
    pub model: Option<String>,
    /// The method where none is named; else aflora.
    #[schemars(extend("takes" = "name"))]
    pub method: Option<String>,
    /// What the model is given; {input} is the example's input.
    pub prompt: String,
    /// Whether a decoder learns the prompt, too.
    pub train_on_inputs: bool,
    /// Tokens to which what an encoder-decoder should write is cut.
    #[schemars(range(min = 2, max = MOST))]
    pub max_target_length: usize,
    /// Share of the target's probability that is spread over all tokens.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1.0))]
    pub label_smoothing: f64,
    /// What written texts are judged by; the first decides which epoch was best.
    pub metrics: Vec<TextMetric>,
    /// How texts are written; what is not said here is as the model's files have it.
    pub generation: GenerationSettings,
}

impl Default for TaskConfig {
    fn default() -> Self {
        TaskConfig {
            task: String::new(),
            model: None,
            method: None,
            prompt: INPUT.into(),
            train_on_inputs: false,
            max_target_length: 128,
            label_smoothing: 0.0,
            metrics: vec![TextMetric::ExactMatch],
            generation: GenerationSettings::default(),
        }
    }
}

/// What stands for an example's input in a prompt.
pub const INPUT: &str = "{input}";

impl TaskConfig {
    /// The keys that say something other than the default, for a task that they mean nothing to.
    fn text_settings(&self) -> Vec<&'static str> {
        let plain = TaskConfig::default();
        let as_value = |config| serde_json::to_value(config).unwrap_or_default();
        let (own, plain) = (as_value(self), as_value(&plain));
        let keys = [
            "prompt",
            "train_on_inputs",
            "max_target_length",
            "label_smoothing",
            "metrics",
            "generation",
        ];
        keys.into_iter().filter(|key| own[*key] != plain[*key]).collect()
    }
}

impl Group for TaskConfig {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        if self.task.is_empty() {
            problems.push(("task".into(), "the task block has no `task`".into()));
        } else {
            match self.task.parse::<Task>() {
                Err(unknown) => problems.push(("task".into(), unknown.to_string())),
                Ok(Task::Labels(spec)) => {
                    for key in self.text_settings() {
                        let words = format!(
                            "`{key}` has no say in the task `{}`, which asks for labels",
                            spec.name
                        );
                        problems.push((key.into(), words));
                    }
                }
                Ok(Task::Text(_)) => {}
            }
        }
        let mut need = |ok: bool, key: &str, value: &dyn Display, right: &str| {
            if !ok {
                problems.push((key.to_string(), schema::out_of_range_words(key, value, right)));
            }
        };
        let holds = self.prompt.contains(INPUT);
        let right = "a text with `{input}` in it, where the example's input comes";
        need(holds, "prompt", &format!("{:?}", self.prompt), right);
        need(!self.metrics.is_empty(), "metrics", &"empty", "a list with at least one metric");
        static KEYS: LazyLock<Vec<schema::Key>> = LazyLock::new(schema::of::<TaskConfig>);
        problems.extend(schema::out_of_range(&KEYS, self));
        if let Err(error) = self.generation.validate() {
            let (key, message) = core_problem(error);
            problems.push((format!("generation.{key}"), message));
        }
        problems
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

impl Group for ModelConfig {
    fn problems(&self) -> Vec<(String, String)> {
        let needed = [("model", &self.model), ("backbone", &self.backbone)];
        let missing = needed.iter().filter(|(_, value)| value.trim().is_empty());
        let choices = |key: &str| match key {
            "backbone" => {
                let kinds = [kinds(Purpose::Classify), kinds(Purpose::Write)].concat();
                format!("; write `backbone: kind`, one of: {}", kinds.join(", "))
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

impl Group for MethodConfig {
    fn problems(&self) -> Vec<(String, String)> {
        self.build().err().map(core_problem).into_iter().collect()
    }
}
