//! What the events of a run say so far: the one reader of `events.jsonl`.
//!
//! A run that was resumed may write steps a second time. What was recorded of a step and after it
//! is forgotten when the step comes again, so curves never run backwards.

use crate::error::{Error, Result};
use crate::evaluation::{self, Evaluation, Selection};
use crate::event::{Event, FreezeTest, Step};
use crate::names::EVENTS;
use aflora_files::lines::whole_lines;
use serde::{Deserialize, Serialize};
use std::io::BufReader;
use std::path::Path;

/// A recorded step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepPoint {
    /// Completed steps.
    pub step: u64,
    /// Mean training loss since the last one.
    pub loss: f64,
    /// Adapter parameters that trained.
    pub trainable: i64,
}

/// A test of which matrices freeze, without their names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FreezePoint {
    /// Completed steps before it.
    pub step: u64,
    /// The share r(t) of the elements or matrices that should be frozen.
    pub ratio: f64,
    /// The score that decided.
    pub threshold: Option<f64>,
    /// Matrices that trained up to now.
    pub trained: usize,
    /// How many of them froze now.
    pub frozen: usize,
    /// How many others, which were frozen, train again from now on.
    #[serde(default, skip_serializing_if = "none")]
    pub thawed: usize,
    /// The lowest, the median and the highest of their mean scores.
    pub scores: [f64; 3],
}

fn none(count: &usize) -> bool {
    *count == 0
}

impl FreezePoint {
    /// Matrices that train from now on.
    pub fn left(&self) -> usize {
        self.trained.saturating_sub(self.frozen).saturating_add(self.thawed)
    }

    /// Whether it has a place in a picture.
    pub fn is_finite(&self) -> bool {
        self.ratio.is_finite() && self.scores.iter().all(|score| score.is_finite())
    }
}

impl From<&FreezeTest> for FreezePoint {
    fn from(test: &FreezeTest) -> Self {
        let finite = |score: &f64| score.is_finite();
        let mut scores: Vec<f64> = test.matrices.iter().map(|m| m.score).filter(finite).collect();
        scores.sort_by(f64::total_cmp);
        let at = |i: usize| scores.get(i).copied().unwrap_or(f64::NAN);
        FreezePoint {
            step: test.step,
            ratio: test.ratio,
            threshold: test.threshold,
            trained: test.matrices.len(),
            frozen: test.matrices.iter().filter(|m| m.frozen).count(),
            thawed: test.thawed.len(),
            scores: [at(0), at(scores.len() / 2), at(scores.len().saturating_sub(1))],
        }
    }
}

/// Forgets what is at `step` or behind it. Steps ascend, so that it lies at the end: looking
/// through all of a long run at each of its lines would take as long as their number squared.
fn drop_from<T>(items: &mut Vec<T>, step: u64, at: impl Fn(&T) -> u64) {
    while items.last().is_some_and(|item| at(item) >= step) {
        items.pop();
    }
}

/// What a run did up to now.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Optimiser steps of the whole run, where it said so.
    pub total_steps: Option<u64>,
    /// Optimiser steps of an epoch.
    pub steps_per_epoch: Option<u64>,
    /// What decides.
    pub selection: Option<Selection>,
    /// Optimiser steps from one evaluation to the next, where it is not an epoch.
    pub eval_every: Option<u64>,
    /// Steps completed by now.
    pub step: u64,
    /// Recorded steps, ascending.
    pub points: Vec<StepPoint>,
    /// Learning rate and gradient norm of the last recorded step.
    pub rate: Option<(f64, Option<f64>)>,
    /// Tests of which matrices freeze, ascending.
    pub checks: Vec<FreezePoint>,
    /// Evaluations, ascending.
    pub evaluations: Vec<Evaluation>,
    /// The step behind which the run ended early, and how many evaluations had been no better.
    pub early_stop: Option<(u64, u64)>,
    /// What the best adapter came to on the split that is judged at the end.
    pub test: Option<Evaluation>,
    /// Why the run failed, if it did.
    pub failed: Option<String>,
}

impl History {
    /// Reads the events of the run in `folder`. A half-written last line is passed over.
    ///
    /// # Errors
    /// Its events cannot be read, or one is longer than any run's.
    pub fn read(folder: &Path) -> Result<History> {
        let path = folder.join(EVENTS);
        let mut history = History::default();
        let lines = aflora_files::open(&path).and_then(|file| {
            let take = |line: &[u8]| history.read_line(&String::from_utf8_lossy(line));
            whole_lines(BufReader::new(file), take)
        });
        lines.map_err(Error::read(&path))?;
        Ok(history)
    }

    /// Takes in a line; what it cannot read it passes over.
    pub fn read_line(&mut self, line: &str) {
        if let Ok(event) = serde_json::from_str(line) {
            self.take(event);
        }
    }

    /// Takes in an event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Begin { total_steps, steps_per_epoch, selection, eval_every } => {
                self.total_steps = Some(total_steps);
                self.steps_per_epoch = Some(steps_per_epoch);
                self.selection = selection;
                self.eval_every = eval_every;
                self.failed = None;
            }
            Event::Step(Step { step, loss, lr, grad_norm, trainable, .. }) => {
                self.failed = None;
                (self.early_stop, self.test) = (None, None);
                self.step = step;
                drop_from(&mut self.evaluations, step, |e| e.step);
                drop_from(&mut self.checks, step.saturating_add(1), |check| check.step);
                drop_from(&mut self.points, step, |point| point.step);
                self.points.push(StepPoint { step, loss, trainable });
                let finite = |value: f64| Some(value).filter(|value| value.is_finite());
                self.rate = finite(lr).map(|lr| (lr, finite(grad_norm)));
            }
            Event::Freeze(test) => {
                self.step = self.step.max(test.step);
                drop_from(&mut self.checks, test.step, |check| check.step);
                self.checks.push(FreezePoint::from(&test));
            }
            Event::Evaluation(evaluation) => {
                self.step = evaluation.step;
                drop_from(&mut self.evaluations, evaluation.step, |e| e.step);
                self.evaluations.push(evaluation);
            }
            Event::Test(evaluation) => self.test = Some(evaluation),
            Event::EarlyStop { step, patience } => self.early_stop = Some((step, patience)),
            Event::Failed { error } => self.failed = Some(error),
        }
    }

    /// Training losses by step, those that are numbers.
    pub fn losses(&self) -> impl DoubleEndedIterator<Item = (u64, f64)> + '_ {
        let finite = self.points.iter().filter(|point| point.loss.is_finite());
        finite.map(|point| (point.step, point.loss))
    }

    /// Matrices that are frozen by now, of all that can freeze.
    pub fn frozen(&self) -> Option<(usize, usize)> {
        let last = self.checks.last()?;
        let all = self.checks.iter().map(|check| check.trained).max()?;
        Some((all.saturating_sub(last.left()), all))
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

    /// Whether the steps up to an evaluation are done, and it is not there yet.
    pub fn awaits_evaluation(&self) -> bool {
        let every = self.eval_every.or(self.steps_per_epoch);
        let due = every.is_some_and(|n| n > 0 && self.step.is_multiple_of(n))
            || self.total_steps == Some(self.step);
        due && self.step > 0 && self.evaluations.last().is_none_or(|e| e.step < self.step)
    }

    /// The share of the run that is done.
    pub fn share(&self) -> Option<f64> {
        let total = self.total_steps.filter(|total| *total > 0)?;
        Some((self.step as f64 / total as f64).min(1.0))
    }

    /// Which evaluation is best so far; none where it is not known what decides.
    pub fn best(&self) -> Option<usize> {
        evaluation::best(&self.evaluations, self.selection.as_ref()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(lines: &[&str]) -> History {
        let mut history = History::default();
        lines.iter().for_each(|line| history.read_line(line));
        history
    }

    fn steps(history: &History) -> Vec<u64> {
        history.losses().map(|(step, _)| step).collect()
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
        let history = history(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(history.losses().collect::<Vec<_>>(), [(10, 0.5), (20, 0.5)]);
        assert_eq!(history.frozen(), Some((2, 3)));
        assert_eq!((history.checks[1].ratio, history.checks[1].threshold), (0.3, Some(1e-6)));
        assert_eq!(history.checks[1].scores, [1.0; 3]);
        assert_eq!((history.step, history.share(), history.epoch()), (40, Some(0.5), Some(1.0)));
        assert_eq!(history.rate, Some((0.01, Some(1.5))));
    }

    #[test]
    fn an_evaluation_is_awaited_as_often_as_the_run_said_and_at_its_end() {
        let begin = r#"{"event":"begin","total_steps":50,"steps_per_epoch":40,"selection":"f1",
            "eval_every":20}"#;
        let mut history = history(&[begin, &step(10)]);
        let mut awaits = |line: &str| {
            history.read_line(line);
            history.awaits_evaluation()
        };
        assert!(!awaits(&step(10)));
        assert!(awaits(&step(20)));
        assert!(!awaits(&evaluation(20, "0.5")));
        assert!(awaits(&step(40)) && !awaits(&evaluation(40, "0.5")));
        assert!(awaits(&step(50)));
    }

    #[test]
    fn an_early_stop_is_known_until_the_run_goes_on() {
        let stop = r#"{"event":"early_stop","step":20,"patience":2}"#;
        let mut history = history(&[&step(20), &evaluation(20, "0.5"), stop]);
        assert_eq!(history.early_stop, Some((20, 2)));
        history.read_line(&step(20));
        assert_eq!(history.early_stop, None);
    }

    #[test]
    fn a_resumed_run_does_not_run_backwards() {
        let lines = [step(10), step(20), evaluation(20, "0.5"), step(30), evaluation(40, "0.9")];
        let mut lines = lines.to_vec();
        lines.push(r#"{"event":"failed","error":"out of memory"}"#.into());
        let mut history = history(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(history.failed.as_deref(), Some("out of memory"));
        history.read_line(&step(30));
        assert_eq!(steps(&history), [10, 20, 30]);
        assert_eq!((history.step, history.failed.as_deref()), (30, None));
        assert_eq!(history.evaluations.len(), 1, "the one at step 40 will come again");
    }

    /// 200,000 lines took 20 s, and twice as many four times as long.
    #[test]
    fn a_long_run_is_read_as_fast_as_its_lines() {
        let mut history = History::default();
        let started = std::time::Instant::now();
        for at in 1..=200_000 {
            history.read_line(&step(at));
        }
        assert_eq!(history.points.len(), 200_000);
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
        history.read_line(&step(150_000));
        assert_eq!(
            (history.points.len(), history.losses().next_back()),
            (150_000, Some((150_000, 0.5)))
        );
    }

    #[test]
    fn the_best_evaluation_is_the_run_s_own_choice() {
        let mut history = history(&[
            r#"{"event":"begin","total_steps":80,"steps_per_epoch":20,"selection":"f1"}"#,
            &evaluation(20, "0.7"),
            &evaluation(40, "null"),
            &evaluation(60, "0.8"),
            &evaluation(80, "0.8"),
        ]);
        assert_eq!(history.best(), Some(2), "the first of equals");
        history.selection = None;
        assert_eq!(history.best(), None);
    }

    #[test]
    fn half_a_line_and_numbers_that_are_none_do_no_harm() {
        let lines = [
            r#"{"event":"step","step":10,"loss":null,"lr":null,"grad_norm":null,"trainable":7}"#,
            r#"{"event":"freeze","step":10,"ratio":null,"threshold":null,"matrices":[]}"#,
            r#"{"event":"step","step":20,"loss":0.5,"trainable":7,"later":[{}]}"#,
        ];
        let folder = tempfile::tempdir().unwrap();
        let text = lines.join("\n") + "\n{\"event\":\"st";
        std::fs::write(folder.path().join(EVENTS), text).unwrap();
        let history = History::read(folder.path()).unwrap();
        assert_eq!((history.step, history.points.len(), steps(&history)), (20, 2, vec![20]));
        assert_eq!((history.rate, history.frozen()), (None, Some((0, 0))));
        assert!(!history.checks[0].is_finite());
        assert!(History::read(&folder.path().join("nowhere")).unwrap_err().is_missing());
    }
}
