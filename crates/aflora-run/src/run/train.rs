//! The training loop: step after step (`aflora_core`'s `tuner/step.rs`), and evaluations between
//! them.
//!
//! Where a run stands is how many steps it has done and what it has found ([`LoopState`]): the order
//! of the rows, dropout and the learning rate follow from the seed and the step. So a run that
//! goes on from a checkpoint is the same loop, entered further down.

mod evaluating;
mod saving;
mod together;

use super::checkpoint::{self, Id};
use super::failure;
use super::folder::RunFolder;
use super::gradient_log::GradientLog;
use super::health;
use super::loop_state::{LoopState, LossTrend};
use super::memory;
use super::pace::Forecast;
use super::prepare::Prepared;
use super::seed;
use super::start::{self, Start};
use super::summary::{frozen, summary};
use super::test;
use super::update::{Step, Update};
use crate::config::{Every, Resolved};
use crate::device;
use crate::interrupt::{self, Interrupted};
use crate::ui::{thousands, Progress};
use aflora_core::flops::Flops;
use aflora_core::freeze::FreezeCheck;
use aflora_core::{StepGraphs, StepReport, Tuner};
use aflora_record::event::{self, Event, FreezeTest, MatrixScore};
use aflora_record::{freezes, Recorder, Summary};
use anyhow::{Context, Result};
use std::time::Instant;
use tch::Tensor;

/// Trains and evaluates, from the beginning or from the folder's last checkpoint, writes the
/// run's folder, and gives its summary. Of the processes that train together the first has the folder
/// and writes; the others do all else.
///
/// # Errors
/// Something fails, or a [signal](crate::interrupt) came: then a checkpoint is written first.
pub fn train(
    resolved: &Resolved,
    run: Prepared,
    mut tuner: Tuner,
    folder: Option<&RunFolder>,
    progress: &mut dyn Progress,
) -> Result<Summary> {
    // Before anything is frozen again.
    let flops_at_start = run.model.flops_per_token();
    let Start { mut recorder, loop_state, saved } =
        start::start(resolved, &run, &mut tuner, folder)?;
    tuner.check_equal()?;
    if let Some(remark) = tuner.remark() {
        match resolved.own_spans {
            true => tracing::warn!("{remark}"),
            false => tracing::info!("{remark}"),
        }
    }
    interrupt::listen().context("signals cannot be caught")?;
    if saved.is_none() {
        recorder.record(&Event::Begin {
            total_steps: run.total_steps(),
            steps_per_epoch: run.steps_per_epoch,
            selection: Some(run.objective.selection()),
            eval_every: (run.config.eval_every != Every::Epochs(1))
                .then(|| run.eval_points().every()),
        })?;
    }
    let gradients = match folder.filter(|_| run.config.record_gradients) {
        Some(folder) => Some(GradientLog::open(folder.path(), &run, &tuner)?),
        None => None,
    };
    let device = run.device;
    aflora_cuda::awake();
    let mut training = Loop {
        resolved,
        run: &run,
        folder,
        recorder: &mut recorder,
        gradients,
        // What is gathered on the way is decided on the host, pass by pass.
        graphs: match run.config.cuda_graphs && run.model.backbone().sharded().is_none() {
            true => StepGraphs::new(device),
            false => StepGraphs::off(device),
        },
        flops_at_start,
        loss_sum: Tensor::from(loop_state.loss_sum as f32).to_device(device),
        skipped: loop_state.skipped_before,
        told_failure: false,
        loop_state,
        saved,
        saved_at: Instant::now(),
        clock_at: None,
        forecast: Forecast::default(),
        tokens_per_step: run.objective.tokens() as f64 / run.steps_per_epoch as f64,
        lr: 0.0,
        memory: None,
        tuner,
    };
    let result = training.run(progress);
    progress.end();
    let trained = match result {
        Ok(()) => training.finish(),
        Err(error) => {
            if error.is::<Interrupted>() {
                training.checkpoint()?;
            }
            Err(error)
        }
    };
    let judged = trained.and_then(|summary| {
        let test = test::judge(run, folder, &summary.best, &mut recorder, progress)?;
        Ok(Summary { test, ..summary })
    });
    progress.end();
    let summary = judged.inspect_err(|error| {
        if !error.is::<Interrupted>() {
            // The error is the one to tell; this is a courtesy to readers of events.
            drop(recorder.record(&Event::Failed { error: format!("{error:#}") }));
        }
    })?;
    if let Some(folder) = folder {
        recorder.sync()?;
        summary.write(folder.path())?;
        checkpoint::discard(folder.path());
    }
    Ok(summary)
}

struct Loop<'a> {
    resolved: &'a Resolved,
    run: &'a Prepared,
    /// None where another process writes.
    folder: Option<&'a RunFolder>,
    recorder: &'a mut Recorder,
    /// Where gradients are recorded, if they are.
    gradients: Option<GradientLog>,
    tuner: Tuner,
    graphs: StepGraphs,
    /// Of the frozen weights and of the paths, a token.
    flops_at_start: (Flops, Flops),
    loop_state: LoopState,
    /// As `loop_state.loss_sum`: losses stay on the device until one is recorded.
    loss_sum: Tensor,
    /// Bad steps that were told.
    skipped: u64,
    /// Whether it was told that an operation failed.
    told_failure: bool,
    /// The last checkpoint, and when it was written.
    saved: Option<Id>,
    saved_at: Instant,
    /// Since when the time counts as training.
    clock_at: Option<Instant>,
    /// How long the rest will take, on a CPU.
    forecast: Forecast,
    /// Of the training rows, padding not counted; on average.
    tokens_per_step: f64,
    /// The rate of the last step.
    lr: f64,
    /// The memory in use when a step was last recorded, in bytes.
    memory: Option<u64>,
}

impl Loop<'_> {
    fn run(&mut self, progress: &mut dyn Progress) -> Result<()> {
        // A checkpoint may be of the moment before the evaluation that its step asks for.
        self.evaluate_if_due(progress)?;
        while !self.is_over() {
            self.epoch(progress)?;
        }
        Ok(())
    }

    /// Whether the steps are done, or evaluations have not become better for long enough.
    fn is_over(&self) -> bool {
        let is_out_of = |patience| self.loop_state.is_out_of(patience);
        let done = self.tuner.completed() >= self.run.total_steps();
        done || self.run.config.patience.is_some_and(is_out_of)
    }

    /// What is left of an epoch.
    fn epoch(&mut self, progress: &mut dyn Progress) -> Result<()> {
        let (config, length) = (&self.run.config, self.run.steps_per_epoch);
        let epoch = self.tuner.completed() / length;
        let (first, last) = (epoch * length, (epoch + 1) * length);
        let end = last.min(self.run.total_steps());
        let cut = (config.batch_size, config.accumulate);
        let objective = self.run.objective.as_ref();
        let updates = Update::epoch(objective, cut, config.seed, epoch, &self.run.world);
        while self.tuner.completed() < end && !self.is_over() {
            let completed = self.tuner.completed();
            let until = self.run.eval_points().after(completed).min(end);
            let range = (completed - first) as usize..(until - first) as usize;
            self.steps(&updates[range], (first, end - first), progress)?;
            self.evaluate_if_due(progress)?;
        }
        let every = config.checkpoint_every;
        if self.tuner.completed() == last
            && every.due_after_epoch(epoch + 1, self.saved_at.elapsed())
        {
            self.checkpoint_or_warn();
        }
        Ok(())
    }

    /// Steps one after the other, of an epoch that begins behind step `first` and has so many.
    fn steps(
        &mut self,
        updates: &[Update],
        (first, length): (u64, u64),
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let config = &self.run.config;
        let epochs = self.run.total_steps().div_ceil(self.run.steps_per_epoch);
        let what = format!("epoch {}/{epochs}", first / self.run.steps_per_epoch + 1);
        progress.begin_at(&what, self.tuner.completed() - first, length);
        self.clock_at = Some(Instant::now());
        for update in updates {
            self.leave_if_asked()?;
            let step = failure::guarded(|| self.step(update));
            let mut step = step.map_err(|e| memory::explain(e, self.resolved, self.run))?;
            self.after_step(&mut step)?;
            let completed = self.tuner.completed();
            progress.update(completed - first, &self.note());
            if config.checkpoint_every.due_after_step(completed, self.saved_at.elapsed()) {
                self.checkpoint_or_warn();
            }
        }
        progress.end();
        device::synchronize(self.run.device);
        self.stop_clock();
        self.leave_if_asked()
    }

    /// Counts the time since the clock was started as training.
    fn stop_clock(&mut self) {
        if let Some(since) = self.clock_at.take() {
            self.loop_state.training_seconds += since.elapsed().as_secs_f64();
        }
    }

    /// Makes an update.
    fn step<'r>(&mut self, update: &'r Update) -> Result<Step<'r>> {
        let started = Instant::now();
        let run = self.run;
        tch::manual_seed(seed::of_step(run.config.seed, self.tuner.completed(), run.world.rank()));
        let objective = run.objective.as_ref();
        let (tuner, graphs) = (&mut self.tuner, &mut self.graphs);
        tuner.ask_to_stop(interrupt::check().is_err());
        update.forward_backward(objective, &run.model, tuner, graphs)?;
        if let Some(reason) = self.graphs.remark() {
            tracing::warn!("steps run operation by operation, which is slower: {reason}");
        }
        if let Some(error) = aflora_cuda::ops::failure().filter(|_| !self.told_failure) {
            self.told_failure = true;
            tracing::warn!("an operation of our own failed, libtorch's stand in for it, which is slower: {error}");
        }
        if let Some(log) = &mut self.gradients {
            log.step(&self.tuner)?;
        }
        let report = self.tuner.update()?;
        let _ = self.loss_sum.g_add_(&report.loss.masked_fill(&report.skipped, 0.0));
        self.loop_state.steps_in_sum += 1;
        // Nothing to wait for on a CPU; on a GPU the step is only queued, and the queue's own
        // limits make these times right on average.
        let took = started.elapsed().as_secs_f64();
        self.loop_state.clock.add(took);
        if run.device == tch::Device::Cpu {
            let left = run.total_steps() - self.tuner.completed();
            if let Some(words) = self.forecast.step(took, left) {
                words.say();
            }
        }
        Ok(Step { update, report })
    }

    fn after_step(&mut self, step: &mut Step) -> Result<()> {
        let completed = self.tuner.completed();
        if let Some(check) = step.report.check.take() {
            let frozen: Vec<&str> = check.frozen().collect();
            if !frozen.is_empty() {
                tracing::debug!("step {}: {} freeze", check.step, frozen.join(", "));
            }
            self.recorder.record(&Event::Freeze(freeze_test(check)))?;
        }
        // Until one is good, nothing has moved: this waits for the device at the first step alone.
        if self.loop_state.start.is_none() {
            let loss = step.report.loss.double_value(&[]);
            self.loop_state.start = Some(loss).filter(|loss| loss.is_finite());
        }
        let config = &self.run.config;
        let record =
            completed.is_multiple_of(config.log_every) || completed == self.run.total_steps();
        // Looking makes a GPU wait.
        let looks = record || self.run.device == tch::Device::Cpu;
        if looks {
            self.skipped = health::check_finite(&self.tuner, self.run, step, self.skipped)?;
        }
        health::check_moved(&mut self.tuner)?;
        self.lr = step.report.lr;
        if record {
            self.record_step(&step.report)?;
        }
        self.stay_together(looks)
    }

    fn record_step(&mut self, report: &StepReport) -> Result<()> {
        let completed = self.tuner.completed();
        self.memory = device::peak_memory(self.run.device);
        device::give_back(self.run.device);
        let loop_state = &mut self.loop_state;
        let good = loop_state.steps_in_sum - (self.skipped - loop_state.skipped_before);
        let sum = self.loss_sum.double_value(&[]);
        loop_state.since_evaluation.add(sum, good);
        loop_state.last_loss = sum / good as f64;
        let _ = self.loss_sum.zero_();
        (loop_state.steps_in_sum, loop_state.skipped_before) = (0, self.skipped);
        let an_epoch = self.run.steps_per_epoch.div_ceil(self.run.config.log_every);
        if loop_state.curve.stands_still(loop_state.last_loss, LossTrend::STEPS.max(an_epoch)) {
            let bad = (self.skipped, completed);
            health::warn_of_flat_loss("loss", loop_state.last_loss, bad, &self.run.config);
        }
        let recorded = self.recorder.record(&Event::Step(event::Step {
            step: completed,
            loss: loop_state.last_loss,
            lr: report.lr,
            grad_norm: report.grad_norm.double_value(&[]),
            trainable: report.trainable,
            rank: self.tuner.rank_in_use(),
        }));
        Ok(recorded?)
    }

    /// The mean training loss since it was last told: of good steps, recorded or not.
    fn told_loss(&mut self) -> Result<Option<f64>> {
        let skipped = self.tuner.skipped()?.0 - self.loop_state.skipped_before;
        let good = self.loop_state.steps_in_sum - skipped;
        Ok(self.loop_state.since_evaluation.tell(self.loss_sum.double_value(&[]), good))
    }

    /// How it goes, for the line of progress: what a narrow one cuts off comes last.
    fn note(&self) -> String {
        let loss = match self.loop_state.last_loss.is_nan() {
            true => "–".to_string(), // none read from the device yet
            false => format!("{:.4}", self.loop_state.last_loss),
        };
        let tokens = thousands((self.tokens_per_step / self.loop_state.clock.mean()) as i64);
        let memory = self.memory.map_or(String::new(), |n| format!("  {:.1} GB", n as f64 / 1e9));
        let trainable = thousands(self.tuner.arena().trainable(false));
        let lr = self.lr;
        format!("loss {loss}  lr {lr:.2e}  {tokens} tokens/s{memory}  {trainable} trainable")
    }

    fn finish(mut self) -> Result<Summary> {
        if self.run.objective.test_split().is_some() {
            // Whatever happens while that is judged, what was trained is kept.
            self.checkpoint_or_warn();
        }
        if let Some(log) = &mut self.gradients {
            log.flush()?;
        }
        let bad = (self.tuner.skipped()?.0, self.tuner.completed());
        health::sum_up(&self.loop_state, bad, &self.run.config);
        let counts = self.tuner.accounting();
        if let Some(folder) = self.folder {
            freezes::write(folder.path(), &frozen(self.run, counts))?;
        }
        summary(self.resolved, self.run, &self.tuner, self.flops_at_start, self.loop_state)
    }
}

fn freeze_test(check: FreezeCheck) -> FreezeTest {
    let FreezeCheck { step, ratio, threshold, matrices, thawed } = check;
    let matrices = matrices.into_iter();
    let matrices = matrices.map(|m| MatrixScore { name: m.name, score: m.score, frozen: m.frozen });
    FreezeTest { step, ratio, threshold, matrices: matrices.collect(), thawed }
}
