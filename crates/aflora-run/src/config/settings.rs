//! What can be set, with the defaults; [`keys`](super::keys) has a line of help for each.

use super::every::Every;
use super::layers::Group;
use crate::data::Task;
use crate::hub::{is_repo, is_revision};
use crate::metrics::TextMetric;
use aflora_core::adapter::MethodConfig;
use aflora_core::optim::AdamWConfig;
use aflora_core::{Span, TunerConfig};
use aflora_models::generate::GenerationSettings;
use aflora_models::{kinds, Pattern, Targets};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::path::PathBuf;

/// The keys that every run knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Decides initial values, data order and dropout.
    pub seed: u64,
    /// A folder to look for data and models in, before all others.
    pub data: Option<PathBuf>,
    /// The folder that a model's relative path starts from, with what ships with the project; the
    /// one that the run file lies in if not given.
    pub project: Option<PathBuf>,
    /// Where the run is written; a numbered folder under `runs/` if not given.
    pub run_dir: Option<PathBuf>,
    /// Where tokens of large tasks are kept for later runs; nowhere if null.
    pub token_cache: Option<PathBuf>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// The frozen weights' precision: `fp32`, `bf16`, `tf32` (fp32, but products on a GPU take
    /// 10 bits of mantissa), or `auto`: bf16 where the machine multiplies it, which is on every
    /// GPU and on a CPU with AVX512-BF16 or AMX.
    pub precision: String,
    /// Whether training steps are recorded and replayed as CUDA graphs, on a GPU.
    pub cuda_graphs: bool,
    /// Threads of a run on the CPU; as many as there are cores if not given.
    pub threads: Option<usize>,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows of a forward and backward pass.
    pub batch_size: usize,
    /// `batch_size: auto`: as many of them as fit into a GPU's memory. What was found is written
    /// down as numbers, so this is no key of its own.
    #[serde(skip)]
    pub fit_batch: bool,
    /// Passes to an update, whose loss is a mean over the rows or tokens of all of them.
    pub accumulate: usize,
    /// Rows of an evaluation pass.
    pub eval_batch_size: usize,
    /// Tokens to which a text or pair is cut.
    pub max_length: usize,
    /// Share of the training rows to evaluate on in place of the task's own split: for choosing
    /// settings without a look at it.
    pub holdout: Option<f64>,
    /// Training rows to use, drawn with the seed; all if not given.
    pub limit: Option<usize>,
    /// Rows of each evaluation split to use; all if not given.
    pub eval_limit: Option<usize>,
    /// Peak learning rate of projection matrices and vectors.
    pub lr: f64,
    /// Peak learning rate of the vectors, where it should differ.
    pub vector_lr: Option<f64>,
    /// Peak learning rate of the task head.
    pub head_lr: f64,
    /// Weight decay of projection matrices and vectors.
    pub weight_decay: f64,
    /// Weight decay of the head's weights.
    pub head_weight_decay: f64,
    /// Joint gradient norm to clip to; `null` for none.
    pub max_grad_norm: Option<f64>,
    /// Linear warm-up: `6%`, `1 epoch`, `100 steps`.
    pub warmup: Span,
    /// AdamW's constants.
    pub adamw: AdamWConfig,
    /// Steps between two recorded losses.
    pub log_every: u64,
    /// Whether the matrices' gradients of every step are written, for `aflora replay`.
    pub record_gradients: bool,
    /// How often the run is saved so that it can go on from there.
    pub checkpoint_every: Every,
    /// Steps in a row whose loss or gradient is not finite after which the run ends.
    pub max_bad_steps: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        let tuner = TunerConfig::default();
        RunSettings {
            seed: 42,
            data: None,
            project: None,
            run_dir: None,
            token_cache: Some(".cache/tokens".into()),
            device: "auto".into(),
            precision: "auto".into(),
            cuda_graphs: true,
            threads: None,
            epochs: 20,
            batch_size: 64,
            fit_batch: false,
            accumulate: 1,
            eval_batch_size: 64,
            max_length: 256,
            holdout: None,
            limit: None,
            eval_limit: None,
            lr: tuner.lr,
            vector_lr: tuner.vector_lr,
            head_lr: tuner.head_lr,
            weight_decay: tuner.weight_decay,
            head_weight_decay: tuner.head_weight_decay,
            max_grad_norm: tuner.max_grad_norm,
            warmup: tuner.warmup,
            adamw: tuner.adamw,
            log_every: 10,
            record_gradients: false,
            checkpoint_every: Every::Minutes(5.0),
            max_bad_steps: 10,
        }
    }
}

impl RunSettings {
    /// The part that the core's [`Tuner`](aflora_core::Tuner) takes.
    pub fn tuner(&self) -> TunerConfig {
        TunerConfig {
            lr: self.lr,
            vector_lr: self.vector_lr,
            head_lr: self.head_lr,
            weight_decay: self.weight_decay,
            head_weight_decay: self.head_weight_decay,
            max_grad_norm: self.max_grad_norm,
            warmup: self.warmup,
            adamw: self.adamw,
        }
    }
}

/// What the parts of a run's name must be: they name its folder.
pub(super) const NAME: &str = "a name: no `/`, no `\\`, no leading dot";

/// Whether `text` can be part of a run's name.
pub(super) fn is_name(text: &str) -> bool {
    let odd = |c: char| matches!(c, '/' | '\\') || c.is_control();
    !text.trim().is_empty() && !text.starts_with('.') && !text.contains(odd)
}

/// The most of anything that is counted: keeps products of two counts far from overflow.
const MOST: usize = 1_000_000_000;

impl Group for RunSettings {
    fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut need = |ok: bool, key: &str, value: &dyn Display, right: &str| {
            if !ok {
                let message = format!("`{key}` is {value}, but must be {right}");
                problems.push((key.to_string(), message));
            }
        };
        let device = self.device.as_str();
        let numbered = device.strip_prefix("cuda:").is_some_and(|n| n.parse::<u32>().is_ok());
        let known = matches!(device, "auto" | "cpu" | "cuda") || numbered;
        need(known, "device", &device, "`auto`, `cpu`, `cuda` or `cuda:N`");
        let precise = matches!(self.precision.as_str(), "auto" | "fp32" | "tf32" | "bf16");
        need(precise, "precision", &self.precision, "`auto`, `fp32`, `tf32` or `bf16`");
        for (key, value, most) in [
            ("epochs", Some(self.epochs), MOST),
            ("batch_size", Some(self.batch_size), MOST),
            ("accumulate", Some(self.accumulate), MOST),
            ("eval_batch_size", Some(self.eval_batch_size), MOST),
            ("limit", self.limit, MOST),
            ("eval_limit", self.eval_limit, MOST),
            ("threads", self.threads, 1024),
            ("log_every", usize::try_from(self.log_every).ok(), MOST),
            ("max_bad_steps", usize::try_from(self.max_bad_steps).ok(), MOST),
        ] {
            let value = value.unwrap_or(1);
            need(value >= 1, key, &value, "at least 1");
            need(value <= most, key, &value, &format!("at most {most}"));
        }
        let shortest = aflora_models::tokenizer::SHORTEST;
        let length = self.max_length;
        need(length >= shortest, "max_length", &length, &format!("at least {shortest}"));
        need(length <= MOST, "max_length", &length, &format!("at most {MOST}"));
        let share = self.holdout.unwrap_or(0.5);
        need(share > 0.0 && share < 1.0, "holdout", &share, "above 0 and below 1, or null");
        problems.extend(self.tuner().validate().err().map(core_problem));
        problems
    }
}

/// The key and the words of a setting that the core refused.
fn core_problem(error: aflora_core::Error) -> (String, String) {
    let key = match &error {
        aflora_core::Error::Setting { field, .. } => field.to_string(),
        _ => String::new(),
    };
    (key, error.to_string())
}

/// A task block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskConfig {
    /// The task's name.
    pub task: String,
    /// The model that it is run on where none is named.
    pub model: Option<String>,
    /// The method where none is named; `aflora` if not given.
    pub method: Option<String>,
    /// What the model is given: the example's input stands for `{input}`.
    pub prompt: String,
    /// Whether a mere decoder also learns to write the prompt.
    pub train_on_inputs: bool,
    /// Tokens to which what an encoder-decoder should write is cut.
    pub max_target_length: usize,
    /// Share of the target's probability that is spread over all tokens.
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
                let message = format!("`{key}` is {value}, but must be {right}");
                problems.push((key.to_string(), message));
            }
        };
        let holds = self.prompt.contains(INPUT);
        let right = "a text with `{input}` in it, where the example's input comes";
        need(holds, "prompt", &format!("{:?}", self.prompt), right);
        let length = self.max_target_length;
        need((2..=MOST).contains(&length), "max_target_length", &length, "at least 2");
        let smoothing = self.label_smoothing;
        let small = (0.0..1.0).contains(&smoothing);
        need(small, "label_smoothing", &smoothing, "at least 0 and below 1");
        need(!self.metrics.is_empty(), "metrics", &"empty", "a list with at least one metric");
        if let Err(error) = self.generation.validate() {
            let (key, message) = core_problem(error);
            problems.push((format!("generation.{key}"), message));
        }
        problems
    }
}

/// What a model starts from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsFrom {
    /// Its checkpoint.
    #[default]
    Pretrained,
    /// Random numbers: to try things out where there is no checkpoint.
    Random,
}

/// A model block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The name in run names and reports.
    pub model: String,
    /// The code that runs it, such as `bert`.
    pub backbone: String,
    /// A folder with config.json, weights and tokenizer, relative to the project.
    pub path: Option<PathBuf>,
    /// `owner/name` on the hub.
    pub repo: Option<String>,
    /// The commit to take from the hub.
    pub revision: Option<String>,
    /// What the model starts from.
    pub weights: WeightsFrom,
    /// Linear layers that get an adapter.
    pub target_modules: Pattern,
    /// Targets that do not after all.
    pub exclude_modules: Pattern,
    /// Only layers with these numbers.
    pub layers: Option<Vec<i64>>,
    /// Modules that train in full beside the head.
    pub train_modules: Vec<String>,
    /// Keeps each block's input only, and runs blocks a second time for the gradient.
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

impl Group for MethodConfig {
    fn problems(&self) -> Vec<(String, String)> {
        self.build().err().map(core_problem).into_iter().collect()
    }
}
