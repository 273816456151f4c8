//! A run at one moment, in words.

use super::snapshot::{Phase, Snapshot};
use crate::report::numbers::significant;
use crate::words::{counted, seconds, thousands};
use aflora_files::{printable, printable_line};
use aflora_record::Evaluation;

/// After this many seconds without an event the silence is told.
const SILENCE: f64 = 60.0;
/// Evaluations in a summary.
const LAST: usize = 6;

/// All that is known, as lines for any terminal or file.
pub fn summary(snapshot: &Snapshot) -> String {
    let mut out = format!("{}: {}\n", snapshot.name, phase(snapshot));
    for (label, value) in facts(snapshot) {
        out += &format!("  {label:<12} {value}\n");
    }
    for line in evaluations(snapshot, LAST) {
        out += &format!("  {line}\n");
    }
    out
}

/// How the run stands.
pub fn phase(snapshot: &Snapshot) -> String {
    match &snapshot.phase {
        Phase::Waiting => "waiting for its first steps".into(),
        Phase::Running => "running".into(),
        Phase::Evaluating => "evaluating".into(),
        Phase::Finished => "finished".into(),
        Phase::Failed(error) => format!("failed: {}", printable(error)),
    }
}

/// How far it is.
pub fn progress(snapshot: &Snapshot) -> String {
    let history = &snapshot.history;
    let mut text = match (history.total_steps, history.share()) {
        (Some(total), Some(share)) => {
            // Evaluating takes its time: a run is all done once it has finished.
            let most = if snapshot.phase == Phase::Finished { 100.0 } else { 99.0 };
            format!(
                "{} of {} steps ({:.0} %)",
                thousands(history.step as i64),
                thousands(total as i64),
                (100.0 * share).floor().min(most)
            )
        }
        _ => format!("{} steps", thousands(history.step as i64)),
    };
    if let Some(epoch) = history.epoch() {
        text += &format!(", epoch {epoch:.1}");
        if let (Some(total), Some(steps)) = (history.total_steps, history.steps_per_epoch) {
            text += &format!(" of {}", total.div_ceil(steps.max(1)));
        }
    }
    text
}

/// How fast, and how long still.
pub fn speed(snapshot: &Snapshot) -> Option<String> {
    let mut parts = Vec::new();
    match (&snapshot.phase, snapshot.pace) {
        (Phase::Finished, _) => {
            parts.extend(snapshot.seconds.map(|s| format!("{} of training", seconds(s))));
        }
        (_, Some(pace)) => {
            parts.push(format!("{} steps/s", significant(pace)));
            let left = snapshot
                .history
                .total_steps
                .map(|total| total.saturating_sub(snapshot.history.step));
            if let (Phase::Running, Some(left), true) = (&snapshot.phase, left, pace > 0.0) {
                parts.push(format!("about {} left", seconds(left as f64 / pace)));
            }
        }
        _ => {}
    }
    if let (Phase::Running | Phase::Evaluating | Phase::Waiting, Some(silence)) =
        (&snapshot.phase, snapshot.silence)
    {
        if silence.as_secs_f64() > SILENCE {
            parts.push(format!("nothing new for {}", seconds(silence.as_secs_f64())));
        }
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What is known, each with a label.
pub fn facts(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let history = &snapshot.history;
    let mut facts = vec![("progress", progress(snapshot))];
    facts.extend(speed(snapshot).map(|speed| ("speed", speed)));
    let mut losses = history.losses();
    if let Some((first_step, first)) = losses.next() {
        let (step, last) = losses.next_back().unwrap_or((first_step, first));
        facts.push(("loss", format!("{last:.4} at step {step}, {first:.4} at first")));
    }
    if let Some((lr, norm)) = history.rate {
        let norm = norm.map_or(String::new(), |n| format!(", gradient norm {}", significant(n)));
        facts.push(("rate", format!("{}{norm}", significant(lr))));
    }
    if let Some((step, patience)) = history.early_stop {
        let words =
            format!("at step {step}: {} no better", counted(patience as usize, "evaluation"));
        facts.push(("stopped", words));
    }
    if let Some(test) = &history.test {
        let words = format!("{}, loss {:.4}, by the best", test.in_words(), test.loss);
        facts.push(("test", printable_line(&words).into_owned()));
    }
    if let (Some(first), Some(last)) = (history.points.first(), history.points.last()) {
        let first = match first.trainable == last.trainable {
            true => String::new(),
            false => format!(", {} at first", thousands(first.trainable)),
        };
        facts.push(("trainable", format!("{}{first}", thousands(last.trainable))));
    }
    if let (Some(test), Some((frozen, all))) = (history.checks.last(), history.frozen()) {
        let threshold =
            test.threshold.map_or(String::new(), |t| format!(", threshold {}", significant(t)));
        facts.push((
            "freezing",
            format!("{frozen} of {all} matrices are frozen; r(t) {:.3}{threshold}", test.ratio),
        ));
    }
    facts
}

/// The last evaluations, the best of all marked; if that is not among the last, it comes first.
pub fn evaluations(snapshot: &Snapshot, last: usize) -> Vec<String> {
    let (all, best) = (&snapshot.history.evaluations, snapshot.history.best());
    let from = all.len().saturating_sub(last);
    let line = |i: usize| {
        let mark = match (best == Some(i), &snapshot.phase) {
            (true, Phase::Finished) => "  (best)",
            (true, _) => "  (best so far)",
            _ => "",
        };
        format!("{}{mark}", evaluation(&all[i]))
    };
    let before = best.filter(|i| *i < from);
    before.into_iter().chain(from..all.len()).map(line).collect()
}

fn evaluation(e: &Evaluation) -> String {
    format!("{}: {}, dev loss {:.4}", e.when(), printable_line(&e.in_words()), e.loss)
}
