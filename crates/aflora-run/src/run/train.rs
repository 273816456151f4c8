//! The training loop: forward, loss, backward, score, freeze, update; evaluation each epoch.

use super::folder::{RunFolder, CONFIG, METRICS};
use super::prepare::Prepared;
use super::recorder::{Evaluation, Event, Recorder};
use super::summary::{freeze_table, Operations, Parameters, Summary, Times};
use crate::config::Resolved;
use crate::device;
use crate::provenance::Environment;
use crate::ui::{seconds, thousands, Progress};
use aflora_core::adapter::Role;
use aflora_core::flops::Flops;
use aflora_core::{RunLength, StepReport, Tuner};
use aflora_cuda::StepGraphs;
use aflora_models::adapter_folder::{self, Description, TaskType};
use anyhow::{bail, Context, Result};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::time::Instant;
use tch::{Kind, Tensor};

/// After so many steps, everything that trains must have moved.
const GUARD_STEP: u64 = 20;

/// A run this long on a CPU is announced as long.
const LONG: f64 = 900.0;

/// Trains and evaluates, writes the run's folder, and gives its summary.
pub fn train(
    resolved: &Resolved,
    run: &Prepared,
    tuner: Tuner,
    folder: &RunFolder,
    progress: &mut dyn Progress,
) -> Result<Summary> {
    folder.write(CONFIG, resolved.to_yaml()?.as_bytes())?;
    folder.write_json("provenance.json", &provenance(run))?;
    let mut recorder = Recorder::create(folder)?;
    let result = Loop::new(resolved, run, tuner, folder, &mut recorder).run(progress);
    progress.end();
    match result {
        Ok(summary) => {
            folder.write_json(METRICS, &summary)?;
            Ok(summary)
        }
        Err(error) => {
            // The first error is the one to tell; this one is a courtesy to readers of events.
            let _ = recorder.record(&Event::Failed { error: format!("{error:#}") });
            Err(error)
        }
    }
}

/// What libtorch's generators start from in a step, on every device. Dropout then depends on the
/// seed and the step alone, not on what was drawn before: a run that goes on from a checkpoint
/// draws what it would have drawn, and no generator's state has to be kept.
fn dropout_seed(seed: u64, step: u64) -> i64 {
    // Streams of low numbers order the rows of an epoch.
    const FIRST: u64 = 1 << 32;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(FIRST + step);
    random.next_u64() as i64
}

fn provenance(run: &Prepared) -> serde_json::Value {
    json!({
        "environment": Environment::current(),
        "device": device::describe(run.device),
        "data": run.sources,
        "weights": run.weights.iter().map(|(path, sha256)| json!({ "path": path, "sha256": sha256 }))
            .collect::<Vec<_>>(),
    })
}

struct Loop<'a> {
    resolved: &'a Resolved,
    run: &'a Prepared,
    folder: &'a RunFolder,
    recorder: &'a mut Recorder,
    tuner: Tuner,
    graphs: StepGraphs,
    /// Of the frozen weights and of the paths, a token.
    flops_at_start: (Flops, Flops),
    evaluations: Vec<Evaluation>,
    best: Option<usize>,
    step_seconds: Vec<f64>,
    training_seconds: f64,
    // Since the last recorded step: losses stay on the device until then.
    loss_sum: Tensor,
    losses: u64,
    last_loss: f64,
}

impl<'a> Loop<'a> {
    fn new(
        resolved: &'a Resolved,
        run: &'a Prepared,
        tuner: Tuner,
        folder: &'a RunFolder,
        recorder: &'a mut Recorder,
    ) -> Self {
        Loop {
            resolved,
            run,
            folder,
            recorder,
            tuner,
            graphs: match run.config.cuda_graphs {
                true => StepGraphs::new(run.device),
                false => StepGraphs::off(run.device),
            },
            flops_at_start: run.model.flops_per_token(),
            evaluations: Vec::new(),
            best: None,
            step_seconds: Vec::new(),
            training_seconds: 0.0,
            loss_sum: Tensor::zeros([], (Kind::Float, run.device)),
            losses: 0,
            last_loss: f64::NAN,
        }
    }

    fn run(mut self, progress: &mut dyn Progress) -> Result<Summary> {
        let config = &self.run.config;
        self.recorder.record(&Event::Begin {
            total_steps: self.run.total_steps(),
            steps_per_epoch: self.run.steps_per_epoch,
            selection: self.run.objective.selection(),
        })?;
        for epoch in 0..config.epochs as u64 {
            progress
                .begin(&format!("epoch {}/{}", epoch + 1, config.epochs), self.run.steps_per_epoch);
            let started = Instant::now();
            let batches =
                self.run.objective.training_batches(config.batch_size, config.seed, epoch);
            for (done, group) in (1..).zip(batches.chunks(config.accumulate)) {
                let report = self.step(group)?;
                self.after_step(report)?;
                progress.update(done, &self.note());
            }
            progress.end();
            device::synchronize(self.run.device);
            self.training_seconds += started.elapsed().as_secs_f64();
            self.evaluate(epoch + 1, progress)?;
        }
        self.finish()
    }

    /// One update from the batches in `group`.
    fn step(&mut self, group: &[Vec<usize>]) -> Result<StepReport> {
        let started = Instant::now();
        let run = self.run;
        tch::manual_seed(dropout_seed(run.config.seed, self.tuner.completed()));
        for rows in group {
            let batch = run.objective.batch(rows);
            let loss = |batch: &[Tensor]| -> Result<_> {
                let loss = run.objective.loss(&run.model, batch)?;
                Ok((loss, run.model.take_checkpoints()))
            };
            let loss = self.graphs.accumulate(&mut self.tuner, &batch, group.len(), loss)?;
            let _ = self.loss_sum.g_add_(&loss);
        }
        if let Some(reason) = self.graphs.remark() {
            tracing::warn!("steps run operation by operation, which is slower: {reason}");
        }
        self.losses += 1;
        let report = self.tuner.update()?;
        // Nothing to wait for on a CPU; on a GPU the step is only queued, and the queue's own
        // limits make these times right on average.
        self.step_seconds.push(started.elapsed().as_secs_f64());
        if self.tuner.completed() == 3 {
            self.estimate();
        }
        Ok(report)
    }

    fn after_step(&mut self, report: StepReport) -> Result<()> {
        let completed = report.step + 1;
        if let Some(check) = &report.check {
            self.recorder.record(&Event::Freeze(check))?;
            let frozen: Vec<&str> = check.frozen().collect();
            if !frozen.is_empty() {
                tracing::debug!("step {}: {} freeze", report.step, frozen.join(", "));
            }
        }
        if completed == GUARD_STEP {
            self.guard()?;
        }
        if completed.is_multiple_of(self.run.config.log_every)
            || completed == self.run.total_steps()
        {
            self.last_loss = self.loss_sum.double_value(&[]) / self.losses as f64;
            let _ = self.loss_sum.zero_();
            self.losses = 0;
            if !self.last_loss.is_finite() {
                bail!(
                    "the loss is {} at step {completed}; a smaller lr or head_lr, or a smaller \
                     max_grad_norm, may help",
                    self.last_loss
                );
            }
            self.recorder.record(&Event::Step {
                step: completed,
                loss: self.last_loss,
                lr: report.lr,
                grad_norm: report.grad_norm.double_value(&[]),
                trainable: report.trainable,
                rank: self.tuner.rank_in_use(),
            })?;
        }
        Ok(())
    }

    /// Names what should train and does not.
    fn guard(&mut self) -> Result<()> {
        let unmoved = self.tuner.unmoved()?;
        if let Some(first) = unmoved.first() {
            tracing::warn!(
                "{} trained tensors have had no gradient in {GUARD_STEP} steps, such as {first}: \
                 they do not take part in the model's output",
                unmoved.len()
            );
        }
        Ok(())
    }

    fn note(&self) -> String {
        let rate = self.step_seconds.len() as f64 * self.run.config.batch_size as f64
            / self.step_seconds.iter().sum::<f64>();
        let trainable = thousands(self.tuner.arena().trainable(false));
        let loss = match self.last_loss.is_nan() {
            true => "–".to_string(), // none read from the device yet
            false => format!("{:.4}", self.last_loss),
        };
        format!("loss {loss}  {rate:.0} rows/s  {trainable} trainable")
    }

    /// After three steps on a CPU: how long the rest will take.
    fn estimate(&self) {
        if self.run.device != tch::Device::Cpu {
            return;
        }
        let step = self.step_seconds.iter().sum::<f64>() / self.step_seconds.len() as f64;
        let left = step * (self.run.total_steps() - 3) as f64;
        let words = format!(
            "three steps took {:.1} s; {} more will take about {}, and evaluations on top",
            3.0 * step,
            self.run.total_steps() - 3,
            seconds(left)
        );
        if left > LONG {
            tracing::warn!("{words}. A GPU, or `limit=`, `epochs=` and `max_length=`, shorten it.");
        } else {
            tracing::info!("{words}");
        }
    }

    fn evaluate(&mut self, epoch: u64, progress: &mut dyn Progress) -> Result<()> {
        let step = self.tuner.completed();
        let started = Instant::now();
        let found = self.run.objective.evaluate(&self.run.model, progress)?;
        let seconds = started.elapsed().as_secs_f64();
        for (split, lines) in &found.predictions {
            self.folder.write(&format!("predictions-{split}-epoch{epoch}.jsonl"), lines)?;
        }
        let evaluation = Evaluation {
            step,
            epoch: epoch as f64,
            metrics: found.metrics,
            loss: found.loss,
            seconds,
        };
        self.recorder.record(&Event::Evaluation(&evaluation))?;
        let metrics: Vec<String> = evaluation
            .metrics
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name} {value:.4}"),
                None => format!("{name} undefined"),
            })
            .collect();
        let words = format!(
            "epoch {epoch}: loss {:.4}, dev loss {:.4}, {}",
            self.last_loss,
            evaluation.loss,
            metrics.join(", ")
        );
        self.evaluations.push(evaluation);
        let index = self.evaluations.len() - 1;
        let better = match self.best {
            None => true,
            Some(best) => self.selection(index) > self.selection(best),
        };
        if better {
            self.best = Some(index);
            self.save_adapter()?;
        }
        tracing::info!("{words}{}", if better { " (best so far)" } else { "" });
        Ok(())
    }

    /// The deciding metric, where undefined counts lowest; of equals, the lower loss.
    fn selection(&self, index: usize) -> (f64, f64) {
        let name = self.run.objective.selection();
        let evaluation = &self.evaluations[index];
        let value = evaluation.metrics.get(&name).copied().flatten();
        (value.unwrap_or(f64::NEG_INFINITY), -evaluation.loss)
    }

    fn save_adapter(&self) -> Result<()> {
        let description = Description {
            method: self.resolved.method.clone(),
            base_model: self
                .resolved
                .model
                .repo
                .clone()
                .or_else(|| Some(self.resolved.model.model.clone())),
            length: Some(RunLength {
                steps_per_epoch: self.run.steps_per_epoch,
                total_steps: self.run.total_steps(),
            }),
            modules_to_save: self.run.model.saved_modules(),
            task_type: TaskType::of(self.run.model.backbone()),
        };
        let folder = self.folder.path().join("adapter");
        adapter_folder::save(&self.run.model, &folder, &description)?;
        Ok(())
    }

    fn finish(self) -> Result<Summary> {
        let counts = self.tuner.accounting();
        self.folder.write("freeze.csv", freeze_table(self.run, counts).as_bytes())?;
        let best = self.best.context("no epoch was evaluated")?;
        let head = self.run.model.parameters();
        let head = head.iter().filter(|p| matches!(p.role, Role::Head | Role::HeadBias));
        let tokens = self.run.objective.tokens() * self.evaluations.len();
        let mut sorted = self.step_seconds.clone();
        sorted.sort_by(f64::total_cmp);
        Ok(Summary {
            task: self.resolved.task.name().into(),
            model: self.resolved.model.model.clone(),
            method: self.resolved.method_name.clone(),
            seed: self.run.config.seed,
            selection: self.run.objective.selection(),
            best: self.evaluations[best].clone(),
            last: self.evaluations[self.evaluations.len() - 1].clone(),
            parameters: Parameters {
                at_start: counts.at_start,
                at_end: counts.at_end,
                time_average: counts.time_average(),
                head: head.map(|p| p.leaf.numel() as i64).sum(),
            },
            steps: self.tuner.completed(),
            flops_per_token: Operations {
                frozen_weights: self.flops_at_start.0,
                paths_at_start: self.flops_at_start.1,
                paths_at_end: self.run.model.flops_per_token().1,
            },
            device: device::describe(self.run.device),
            seconds: Times {
                training: self.training_seconds,
                evaluation: self.evaluations.iter().map(|e| e.seconds).sum(),
                median_step: sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN),
            },
            tokens_per_second: tokens as f64 / self.training_seconds,
            peak_memory: device::peak_memory(self.run.device),
            evaluations: self.evaluations,
        })
    }
}
