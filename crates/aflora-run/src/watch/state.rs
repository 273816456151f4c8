//! What the events of a run say so far.
//!
//! A run that was resumed may write steps a second time. What was recorded of a step and after it
//! is forgotten when the step comes again, so curves never run backwards.

use crate::run::recorder::Evaluation;
use serde::Deserialize;

/// Values by step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Steps, ascending, with values.
    pub points: Vec<(u64, f64)>,
}

impl Curve {
    fn push(&mut self, step: u64, value: f64) {
        drop_from(&mut self.points, step, |(at, _)| *at);
        self.points.push((step, value));
    }

    /// The latest value.
    pub fn last(&self) -> Option<(u64, f64)> {
        self.points.last().copied()
    }
}

/// Forgets what is at `step` or behind it. Steps ascend, so that it lies at the end: looking
/// through all of a long run at each of its lines would take as long as their number squared.
fn drop_from<T>(items: &mut Vec<T>, step: u64, at: impl Fn(&T) -> u64) {
    while items.last().is_some_and(|item| at(item) >= step) {
        items.pop();
    }
}

/// The state of a run.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Optimiser steps of the whole run, where it said so.
    pub total_steps: Option<u64>,
    /// Of an epoch.
    pub steps_per_epoch: Option<u64>,
    /// The metric that decides.
    pub selection: Option<String>,
    /// Completed steps.
    pub step: u64,
    /// Training loss.
    pub loss: Curve,
    /// Adapter parameters that train.
    pub trainable: Curve,
    /// Learning rate and gradient norm of the last recorded step.
    pub rate: Option<(f64, Option<f64>)>,
    /// r(t) of the last test.
    pub ratio: Option<f64>,
    /// The threshold of the last test.
    pub threshold: Option<f64>,
    /// Matrices that are frozen by now, of all that can freeze.
    pub frozen: Option<(usize, usize)>,
    /// Evaluations.
    pub evaluations: Vec<Evaluation>,
    /// Why the run failed, if it did.
    pub failed: Option<String>,
}

/// The events of `events.jsonl`, as far as they are shown. Fields that a later version leaves out
/// or adds do no harm.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Begin { total_steps: u64, steps_per_epoch: u64, selection: Option<String> },
    Step { step: u64, loss: Option<f64>, lr: Option<f64>, grad_norm: Option<f64>, trainable: i64 },
    Freeze { step: u64, ratio: f64, threshold: Option<f64>, matrices: Vec<MatrixLine> },
    Evaluation(Evaluation),
    Failed { error: String },
}

#[derive(Deserialize)]
struct MatrixLine {
    frozen: bool,
}

impl State {
    /// Takes in a line; what it cannot read it passes over.
    pub fn read(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Line>(line) else { return };
        match line {
            Line::Begin { total_steps, steps_per_epoch, selection } => {
                self.total_steps = Some(total_steps);
                self.steps_per_epoch = Some(steps_per_epoch);
                self.selection = selection;
                self.failed = None;
            }
            Line::Step { step, loss, lr, grad_norm, trainable } => {
                self.failed = None;
                self.step = step;
                drop_from(&mut self.evaluations, step, |e| e.step);
                if let Some(loss) = loss.filter(|loss| loss.is_finite()) {
                    self.loss.push(step, loss);
                }
                self.trainable.push(step, trainable as f64);
                self.rate = lr.map(|lr| (lr, grad_norm));
            }
            Line::Freeze { step, ratio, threshold, matrices } => {
                self.step = self.step.max(step);
                self.ratio = Some(ratio);
                self.threshold = threshold;
                let left = matrices.iter().filter(|m| !m.frozen).count();
                let all = self.frozen.map_or(0, |(_, all)| all).max(matrices.len());
                self.frozen = Some((all - left, all));
            }
            Line::Evaluation(evaluation) => {
                self.step = evaluation.step;
                drop_from(&mut self.evaluations, evaluation.step, |e| e.step);
                self.evaluations.push(evaluation);
            }
            Line::Failed { error } => self.failed = Some(error),
        }
    }

    /// Epochs completed, as a fraction within one.
    pub fn epoch(&self) -> Option<f64> {
        match (self.steps_per_epoch, self.evaluations.last()) {
            (Some(steps), _) if steps > 0 => Some(self.step as f64 / steps as f64),
            (_, Some(last)) if last.step > 0 => {
                Some(self.step as f64 * last.epoch / last.step as f64)
            }
            _ => None,
        }
    }

    /// Whether an epoch's steps are done, and its evaluation is not there yet.
    pub fn awaits_evaluation(&self) -> bool {
        let ends = self.steps_per_epoch.is_some_and(|n| n > 0 && self.step.is_multiple_of(n));
        ends && self.step > 0 && self.evaluations.last().is_none_or(|e| e.step < self.step)
    }

    /// The share of the run that is done.
    pub fn share(&self) -> Option<f64> {
        let total = self.total_steps.filter(|total| *total > 0)?;
        Some((self.step as f64 / total as f64).min(1.0))
    }

    /// Which evaluation is best so far: by the metric that decides, of equals the lower loss.
    pub fn best(&self) -> Option<usize> {
        let selection = self.selection.as_ref()?;
        let value = |e: &Evaluation| {
            let value = e.metrics.get(selection).copied().flatten();
            (value.unwrap_or(f64::NEG_INFINITY), -e.loss)
        };
        let values = self.evaluations.iter().map(value).enumerate();
        values
            .fold(None, |best: Option<(usize, (f64, f64))>, (i, value)| match best {
                Some((_, highest)) if highest >= value => best,
                _ => Some((i, value)),
            })
            .map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(lines: &[&str]) -> State {
        let mut state = State::default();
        lines.iter().for_each(|line| state.read(line));
        state
    }

    const STEP: &str =
        r#"{"event":"step","step":STEP,"loss":0.5,"lr":0.01,"grad_norm":1.5,"trainable":100}"#;
    const EVALUATION: &str = r#"{"event":"evaluation","step":STEP,"epoch":1.0,
        "metrics":{"f1":F1},"loss":0.4,"seconds":1.0}"#;

    fn step(step: u64) -> String {
        STEP.replace("STEP", &step.to_string())
    }

    fn evaluation(step: u64, f1: &str) -> String {
        EVALUATION.replace("STEP", &step.to_string()).replace("F1", f1)
    }

    #[test]
    fn events_become_curves_and_counts() {
        let begin = r#"{"event":"begin","total_steps":80,"steps_per_epoch":40,"selection":"f1"}"#;
        let freeze = |step: u64, matrices: &str| {
            format!(
                r#"{{"event":"freeze","step":{step},"ratio":0.3,"threshold":1e-6,
                "matrices":[{matrices}]}}"#
            )
        };
        let on = r#"{"name":"a","score":1.0,"frozen":false}"#;
        let off = r#"{"name":"b","score":1.0,"frozen":true}"#;
        let lines = [
            begin.to_string(),
            step(10),
            freeze(10, &[on, off, on].join(",")),
            freeze(20, &[on, off].join(",")),
            step(20),
            "not json".into(),
            r#"{"event":"later_version","x":1}"#.into(),
            evaluation(40, "0.7"),
        ];
        let state = state(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(state.loss.points, [(10, 0.5), (20, 0.5)]);
        assert_eq!(state.frozen, Some((2, 3)));
        assert_eq!((state.step, state.share(), state.epoch()), (40, Some(0.5), Some(1.0)));
        assert_eq!(state.rate, Some((0.01, Some(1.5))));
    }

    #[test]
    fn a_resumed_run_does_not_run_backwards() {
        let lines = [step(10), step(20), evaluation(20, "0.5"), step(30), evaluation(40, "0.9")];
        let mut lines = lines.to_vec();
        lines.push(r#"{"event":"failed","error":"out of memory"}"#.into());
        let mut state = state(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(state.failed.as_deref(), Some("out of memory"));
        state.read(&step(30));
        assert_eq!(state.loss.points.iter().map(|p| p.0).collect::<Vec<_>>(), [10, 20, 30]);
        assert_eq!((state.step, state.failed.as_deref()), (30, None));
        assert_eq!(state.evaluations.len(), 1, "the one at step 40 will come again");
    }

    /// 200,000 lines took 20 s, and twice as many four times as long.
    #[test]
    fn a_long_run_is_read_as_fast_as_its_lines() {
        let mut state = State::default();
        let started = std::time::Instant::now();
        for at in 1..=200_000 {
            state.read(&step(at));
        }
        assert_eq!(state.loss.points.len(), 200_000);
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
        state.read(&step(150_000));
        assert_eq!((state.loss.points.len(), state.loss.last()), (150_000, Some((150_000, 0.5))));
    }

    #[test]
    fn the_best_evaluation_is_the_run_s_own_choice() {
        let mut state = state(&[
            r#"{"event":"begin","total_steps":80,"steps_per_epoch":20,"selection":"f1"}"#,
            &evaluation(20, "0.7"),
            &evaluation(40, "null"),
            &evaluation(60, "0.8"),
            &evaluation(80, "0.8"),
        ]);
        assert_eq!(state.best(), Some(2), "the first of equals");
        state.selection = None;
        assert_eq!(state.best(), None);
    }
}
