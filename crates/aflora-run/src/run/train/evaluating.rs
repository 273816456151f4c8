//! Evaluations between steps: what they find, the best one's adapter, and the end that comes early.

use super::Loop;
use crate::run::failure;
use crate::run::health;
use crate::run::loop_state::LossTrend;
use crate::ui::{counted, Progress};
use aflora_core::RunLength;
use aflora_models::adapter_folder::{self, Description, TaskType};
use aflora_record::event::Event;
use aflora_record::names::{self, ADAPTER};
use aflora_record::Evaluation;
use anyhow::Result;
use std::time::Instant;

impl Loop<'_> {
    /// Evaluates where the run stands, if that is due and not done.
    pub(super) fn evaluate_if_due(&mut self, progress: &mut dyn Progress) -> Result<()> {
        let step = self.tuner.completed();
        let done = self.loop_state.evaluations.last().is_some_and(|last| last.step == step);
        match self.run.eval_points().contains(step) && !done {
            true => self.evaluate(step, progress),
            false => Ok(()),
        }
    }

    fn evaluate(&mut self, step: u64, progress: &mut dyn Progress) -> Result<()> {
        let started = Instant::now();
        let found = failure::guarded(|| self.run.objective.evaluate(&self.run.model, progress))?;
        let seconds = started.elapsed().as_secs_f64();
        let evaluation = Evaluation {
            step,
            epoch: step as f64 / self.run.steps_per_epoch as f64,
            metrics: found.metrics,
            loss: found.loss,
            seconds,
        };
        if let Some(folder) = self.folder {
            for (split, lines) in &found.predictions {
                folder.write(&names::predictions(split, &evaluation), lines)?;
            }
        }
        self.recorder.record(&Event::Evaluation(evaluation.clone()))?;
        // The device was waited for already.
        let loss = match self.told_loss()? {
            None => String::new(), // no step was good
            Some(loss) => format!("loss {loss:.4}, "),
        };
        let (when, dev) = (evaluation.when(), evaluation.loss);
        let words = format!("{when}: {loss}dev loss {dev:.4}, {}", evaluation.in_words());
        if self.loop_state.eval_curve.stands_still(evaluation.loss, LossTrend::EVALUATIONS) {
            let bad = (self.skipped, step);
            health::warn_of_flat_loss("dev loss", evaluation.loss, bad, &self.run.config);
        }
        self.loop_state.evaluations.push(evaluation);
        let index = self.loop_state.evaluations.len() - 1;
        let (all, selection) = (&self.loop_state.evaluations, self.run.objective.selection());
        let better = self
            .loop_state
            .best
            .is_none_or(|best| all[index].is_better_than(&all[best], &selection));
        if better {
            self.save_adapter()?;
            self.loop_state.best = Some(index);
            self.loop_state.by_class = found.by_class;
            self.loop_state.doubts = found.doubts;
        }
        tracing::info!("{words}{}", if better { " (best so far)" } else { "" });
        let total = self.run.total_steps();
        let patience = self.run.config.patience.filter(|_| step < total);
        if let Some(patience) = patience.filter(|patience| self.loop_state.is_out_of(*patience)) {
            self.recorder.record(&Event::EarlyStop { step, patience })?;
            tracing::info!(
                "{} no better than the best: the run ends early, behind step {step} of {total}",
                counted(patience as usize, "evaluation"),
            );
        }
        Ok(())
    }

    fn save_adapter(&self) -> Result<()> {
        let Some(folder) = self.folder else { return Ok(()) };
        let description = Description {
            method: self.resolved.method.clone(),
            base_model: Some(self.run.base_model.clone()),
            length: Some(RunLength {
                steps_per_epoch: self.run.steps_per_epoch,
                total_steps: self.run.total_steps(),
            }),
            modules_to_save: self.run.model.saved_modules(),
            task_type: Some(TaskType::of(self.run.model.backbone())),
        };
        let folder = folder.path().join(ADAPTER);
        let model = &self.run.model;
        match &self.run.tokenizer {
            None => adapter_folder::save(model, &folder, &description)?,
            Some(own) => {
                adapter_folder::save_with_tokenizer(model, &folder, &description, own)?;
            }
        }
        Ok(())
    }
}
