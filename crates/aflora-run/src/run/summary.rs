//! What a finished run is judged by: `metrics.json` and `freeze.csv`.

use super::course::Course;
use super::prepare::Prepared;
use super::recorder::Evaluation;
use crate::config::Resolved;
use crate::device;
use aflora_core::accounting::Accounting;
use aflora_core::adapter::Role;
use aflora_core::flops::Flops;
use aflora_core::Tuner;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The content of `metrics.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The task's name.
    pub task: String,
    /// The model's name.
    pub model: String,
    /// The method block's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// The metric that decides which epoch was best.
    pub selection: String,
    /// The best epoch's evaluation; `adapter/` holds its weights.
    pub best: Evaluation,
    /// The last epoch's evaluation.
    pub last: Evaluation,
    /// All evaluations.
    pub evaluations: Vec<Evaluation>,
    /// Adapter parameters that trained (the head is not counted).
    pub parameters: Parameters,
    /// Optimiser steps.
    pub steps: u64,
    /// Those of them that moved nothing, since loss or gradient was not finite.
    #[serde(default)]
    pub skipped_steps: u64,
    /// Matrix products a token in the adapted layers.
    pub flops_per_token: Operations,
    /// Where it ran.
    pub device: String,
    /// Seconds of wall time.
    pub seconds: Times,
    /// Tokens trained on a second of training, padding not counted.
    pub tokens_per_second: f64,
    /// The most memory in use, in bytes (see [`device::peak_memory`]).
    pub peak_memory: Option<u64>,
}

/// Parameter counts, as the paper takes them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parameters {
    /// Trainable at the first step.
    pub at_start: i64,
    /// Trainable at the last step.
    pub at_end: i64,
    /// Average over all steps.
    pub time_average: f64,
    /// Of the task head, on top of these.
    pub head: i64,
}

/// Floating-point operations a token (see [`aflora_core::flops`]).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operations {
    /// Of the frozen weights of the adapted layers.
    pub frozen_weights: Flops,
    /// Of the paths beside them, at the first step.
    pub paths_at_start: Flops,
    /// Of the paths at the last step.
    pub paths_at_end: Flops,
}

/// Where the time went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Times {
    /// Training steps.
    pub training: f64,
    /// Evaluations.
    pub evaluation: f64,
    /// Median of a training step; on a GPU, where steps are only queued, the mean.
    pub median_step: f64,
}

impl Summary {
    /// What the run of `tuner` came to.
    ///
    /// # Errors
    /// Nothing was evaluated.
    pub fn of(
        resolved: &Resolved,
        run: &Prepared,
        tuner: &Tuner,
        (frozen_weights, paths_at_start): (Flops, Flops),
        course: Course,
    ) -> Result<Summary> {
        let Course { evaluations, best, training_seconds, clock, .. } = course;
        let counts = tuner.accounting();
        let head = run.model.parameters();
        let head = head.iter().filter(|p| matches!(p.role, Role::Head | Role::HeadBias));
        let tokens = run.objective.tokens() * evaluations.len();
        let best = best.and_then(|best| evaluations.get(best));
        Ok(Summary {
            task: resolved.task.name().into(),
            model: resolved.model.model.clone(),
            method: resolved.method_name.clone(),
            seed: run.config.seed,
            selection: run.objective.selection(),
            best: best.context("no epoch was evaluated")?.clone(),
            last: evaluations.last().context("no epoch was evaluated")?.clone(),
            parameters: Parameters {
                at_start: counts.at_start,
                at_end: counts.at_end,
                time_average: counts.time_average(),
                head: head.map(|p| p.leaf.numel() as i64).sum(),
            },
            steps: tuner.completed(),
            skipped_steps: tuner.skipped()?.0,
            flops_per_token: Operations {
                frozen_weights,
                paths_at_start,
                paths_at_end: run.model.flops_per_token().1,
            },
            device: device::describe(run.device),
            seconds: Times {
                training: training_seconds,
                evaluation: evaluations.iter().map(|e| e.seconds).sum(),
                median_step: match run.device {
                    tch::Device::Cpu => clock.median(),
                    // Steps are only queued there: their own times say nothing.
                    _ => training_seconds / tuner.completed() as f64,
                },
            },
            tokens_per_second: tokens as f64 / training_seconds,
            peak_memory: device::peak_memory(run.device),
            evaluations,
        })
    }
}

/// `freeze.csv`: every projection matrix that trained at the start (or component of one, where a
/// method freezes by components), and the step at which it froze (empty if it never did).
pub fn freeze_table(run: &Prepared, counts: &Accounting) -> String {
    let mut table = "matrix,block,elements,frozen_at_step\n".to_string();
    let by_component = counts.frozen_at.iter().any(|(name, _)| name.contains(".component"));
    for adapter in run.model.adapters() {
        let site = adapter.site();
        let block = format!("{:?}", site.block).to_lowercase();
        let mut row = |name: &str, elements: usize, trains: bool| {
            let frozen = counts.frozen_at.iter().find(|(frozen, _)| frozen == name);
            // What neither trains now nor froze on the way never trained.
            if trains || frozen.is_some() {
                let step = frozen.map_or(String::new(), |(_, step)| step.to_string());
                table += &format!("{name},{block},{elements},{step}\n");
            }
        };
        if by_component {
            let elements = (site.in_features + site.out_features) as usize;
            for k in 0..adapter.rank() {
                row(&format!("{}.component{k}", site.name), elements, false);
            }
        } else {
            for t in adapter.tensors().iter().filter(|t| t.spec.role == Role::Projection) {
                row(&format!("{}.{}", site.name, t.spec.name), t.tensor.numel(), t.trainable);
            }
        }
    }
    table
}
