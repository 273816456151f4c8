//! The settings of a run itself: each key declared once, with its words, default and range.
//!
//! The first paragraph of a field's documentation is what `aflora keys` and the commented run
//! file say of it; [the schema](super::schema) reads all of it from the type.

use super::choice::{DeviceChoice, Precision};
use super::every::Every;
use super::layers::{core_problem, SettingsGroup};
use super::schema::{self, MOST};
use aflora_core::optim::LrSchedule;
use aflora_core::TunerConfig;
use aflora_models::tokenizer::SHORTEST;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::LazyLock;

/// The keys that every run knows, in the order of the commented run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RunSettings {
    /// Decides initial values, data order and dropout: one seed, one result, on one machine.
    #[schemars(extend("section" = "Repeating a run"))]
    pub seed: u64,

    /// A folder with data and models, looked at before all other places.
    #[schemars(extend("section" = "Where", "takes" = "folder"))]
    pub data: Option<PathBuf>,
    /// Where paths of models start, and where .assets lies; null: the run file's project.
    #[schemars(extend("takes" = "folder"))]
    pub project: Option<PathBuf>,
    /// Where the run is written, or goes on; null: a numbered folder of runs/.
    #[schemars(extend("takes" = "folder"))]
    pub run_dir: Option<PathBuf>,
    /// An adapter's folder, ours or PEFT's, or one of the hub (owner/name@revision), to go on training
    /// from: the method, the layers and the weights are its own; null: adapters start anew.
    #[schemars(extend("takes" = "folder, null"))]
    pub adapter: Option<PathBuf>,
    /// Tokens of large tasks are kept here for later runs, 16 GiB at most; null: nowhere.
    #[schemars(extend("takes" = "folder, null"))]
    pub token_cache: Option<PathBuf>,
    /// Where to compute; auto is the first GPU, or else the CPU.
    pub device: DeviceChoice,
    /// Of the frozen weights: bf16 is fastest, fp32 exact, tf32 between them on a GPU; auto is
    /// bf16 where it pays; nf4, nf4_nested and int8 take the least memory; fp8 as little as int8, for
    /// GPUs that multiply in it; int8_dynamic the same, for CPUs.
    pub precision: Precision,
    /// Of several processes each holds a part of the blocks' frozen weights, for models that one GPU does
    /// not hold: less memory, and messages in every pass.
    pub shard_base: bool,
    /// On a GPU: record a step of each shape, of training or writing, once and replay it.
    pub cuda_graphs: bool,
    /// On the CPU; null: as many as there are cores. Fewer leave room for others.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,

    /// Passes over the training rows: more learn more and cost as much more.
    #[schemars(range(min = 1, max = MOST), extend("section" = "How long"))]
    pub epochs: usize,
    /// Updates of the whole run, in place of epochs: rows come again as often as it takes; null: as
    /// many as the epochs have.
    #[schemars(range(min = 1, max = MOST))]
    pub max_steps: Option<u64>,
    /// How often the run is evaluated, beside at its end; never: there alone.
    #[schemars(extend("takes" = "200 steps, 1 epoch, never"))]
    pub eval_every: Every,
    /// Evaluations in a row without a better one after which the run ends early; null: it does not.
    ///
    /// Better as for the choice of the best: by the task's first metric, of equals by the loss.
    #[schemars(range(min = 1, max = MOST))]
    pub patience: Option<u64>,
    /// Training rows to use, drawn with the seed: fewer are quicker, and learn less.
    #[schemars(range(min = 1, max = MOST))]
    pub limit: Option<usize>,
    /// Rows of each evaluation split to use: fewer are quicker, and judge less exactly.
    #[schemars(range(min = 1, max = MOST))]
    pub eval_limit: Option<usize>,
    /// Share of the training rows to evaluate on in place of dev: to choose settings without a
    /// look at it.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub holdout: Option<f64>,
    /// Tokens to which a text or pair is cut: less is quicker, and cuts long texts.
    #[schemars(range(min = SHORTEST, max = MOST))]
    pub max_length: usize,
    /// α of the noise on the words' embeddings in training (NEFTune); 5 to 15 where instructions are
    /// learned; 0: none.
    #[schemars(range(min = 0))]
    pub neftune_noise_alpha: f64,

    /// Rows at once: more are quicker a row, need memory, and mean fewer updates; auto: as many of
    /// them as fit into a GPU, and accumulate for the rest.
    #[schemars(
        range(min = 1, max = MOST),
        extend("section" = "How much at once", "takes" = "number, auto")
    )]
    pub batch_size: usize,
    /// `batch_size: auto`: as many of them as fit into a GPU's memory. What was found is written
    /// down as numbers, so this is no key of its own.
    #[serde(skip)]
    pub fit_batch: bool,
    /// Passes to an update: that of batch_size × accumulate rows, without their memory.
    ///
    /// The update's loss is a mean over the rows or tokens of all of them.
    #[schemars(range(min = 1, max = MOST))]
    pub accumulate: usize,
    /// Rows of an evaluation pass: without gradients, so there is room for more; fewer where they
    /// do not fit.
    #[schemars(range(min = 1, max = MOST))]
    pub eval_batch_size: usize,

    /// Steps between two recorded losses; each makes a GPU wait.
    #[schemars(range(min = 1, max = MOST), extend("section" = "What is written"))]
    pub log_every: u64,
    /// Write the matrices' gradients of every step, for aflora replay.
    pub record_gradients: bool,

    /// How often the run is saved, to go on from there: what an interruption costs at most.
    #[schemars(extend("section" = "If it is interrupted"))]
    pub checkpoint_every: Every,
    /// Steps in a row without a finite loss and gradient, after which the run ends.
    #[schemars(range(min = 1, max = MOST))]
    pub max_bad_steps: u64,

    /// The update, as the core declares it: `lr`, `weight_decay` and so on.
    #[serde(flatten)]
    pub update: TunerConfig,
}

impl Default for RunSettings {
    fn default() -> Self {
        RunSettings {
            seed: 42,
            data: None,
            project: None,
            run_dir: None,
            adapter: None,
            token_cache: Some(".cache/tokens".into()),
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
            shard_base: false,
            cuda_graphs: true,
            threads: None,
            epochs: 20,
            max_steps: None,
            eval_every: Every::Epochs(1),
            patience: None,
            limit: None,
            eval_limit: None,
            holdout: None,
            max_length: 256,
            neftune_noise_alpha: 0.0,
            batch_size: 64,
            fit_batch: false,
            accumulate: 1,
            eval_batch_size: 64,
            log_every: 10,
            record_gradients: false,
            checkpoint_every: Every::Minutes(5.0),
            max_bad_steps: 10,
            update: TunerConfig::default(),
        }
    }
}

impl RunSettings {
    /// Updates of the whole run, of which an epoch has so many.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        self.max_steps.unwrap_or(steps_per_epoch * self.epochs as u64)
    }

    /// Settings that say something and have no say beside the others: the key, and why.
    pub(super) fn conflicts(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut idle = |is_idle: bool, key: &str, why: &str| {
            if is_idle {
                problems.push((key.to_string(), format!("`{key}` has no say: {why}")));
            }
        };
        let TunerConfig { lr_schedule: schedule, lr_power, min_lr_ratio, .. } = self.update;
        let name = schedule.name();
        let no_power = schedule != LrSchedule::Polynomial && lr_power != 1.0;
        idle(
            no_power,
            "lr_power",
            &format!("`lr_schedule` is {name}, and polynomial alone has it"),
        );
        let stays = schedule == LrSchedule::Constant && min_lr_ratio != 0.0;
        idle(stays, "min_lr_ratio", "`lr_schedule` is constant, and never falls");
        problems
    }
}

impl SettingsGroup for RunSettings {
    fn problems(&self) -> Vec<(String, String)> {
        static KEYS: LazyLock<Vec<schema::Key>> = LazyLock::new(schema::of::<RunSettings>);
        let mut problems = schema::out_of_range(&KEYS, self);
        if let Every::Minutes(_) = self.eval_every {
            let right =
                "`200 steps`, `1 epoch` or `never`: what a run finds must not depend on how \
                         fast a machine is";
            let words = schema::out_of_range_words("eval_every", &self.eval_every, right);
            problems.push(("eval_every".into(), words));
        }
        problems.extend(self.update.validate().err().map(core_problem));
        problems
    }
}
