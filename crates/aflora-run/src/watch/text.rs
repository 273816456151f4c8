//! A run at one moment, in words.

use super::view::{Phase, View};
use crate::report::numbers::significant;
use crate::run::recorder::Evaluation;
use crate::ui::{seconds, thousands};
use aflora_files::{printable, printable_line};

/// After this many seconds without an event the silence is told.
const SILENCE: f64 = 60.0;
/// Evaluations in a summary.
const LAST: usize = 6;

/// All that is known, as lines for any terminal or file.
pub fn summary(view: &View) -> String {
    let mut out = format!("{}: {}\n", view.name, phase(view));
    for (label, value) in facts(view) {
        out += &format!("  {label:<12} {value}\n");
    }
    for line in evaluations(view, LAST) {
        out += &format!("  {line}\n");
    }
    out
}

/// How the run stands.
pub fn phase(view: &View) -> String {
    match &view.phase {
        Phase::Waiting => "waiting for its first steps".into(),
        Phase::Running => "running".into(),
        Phase::Evaluating => "evaluating".into(),
        Phase::Finished => "finished".into(),
        Phase::Failed(error) => format!("failed: {}", printable(error)),
    }
}

/// How far it is.
pub fn progress(view: &View) -> String {
    let state = &view.state;
    let mut text = match (state.total_steps, state.share()) {
        (Some(total), Some(share)) => {
            // Evaluating takes its time: a run is all done once it has finished.
            let most = if view.phase == Phase::Finished { 100.0 } else { 99.0 };
            format!(
                "{} of {} steps ({:.0} %)",
                thousands(state.step as i64),
                thousands(total as i64),
                (100.0 * share).floor().min(most)
            )
        }
        _ => format!("{} steps", thousands(state.step as i64)),
    };
    if let Some(epoch) = state.epoch() {
        text += &format!(", epoch {epoch:.1}");
        if let (Some(total), Some(steps)) = (state.total_steps, state.steps_per_epoch) {
            text += &format!(" of {}", total.checked_div(steps).unwrap_or(0));
        }
    }
    text
}

/// How fast, and how long still.
pub fn speed(view: &View) -> Option<String> {
    let mut parts = Vec::new();
    match (&view.phase, view.pace) {
        (Phase::Finished, _) => {
            parts.extend(view.seconds.map(|s| format!("{} of training", seconds(s))));
        }
        (_, Some(pace)) => {
            parts.push(format!("{} steps/s", significant(pace)));
            let left = view.state.total_steps.map(|total| total.saturating_sub(view.state.step));
            if let (Phase::Running, Some(left), true) = (&view.phase, left, pace > 0.0) {
                parts.push(format!("about {} left", seconds(left as f64 / pace)));
            }
        }
        _ => {}
    }
    if let (Phase::Running | Phase::Evaluating | Phase::Waiting, Some(silence)) =
        (&view.phase, view.silence)
    {
        if silence.as_secs_f64() > SILENCE {
            parts.push(format!("nothing new for {}", seconds(silence.as_secs_f64())));
        }
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What is known, each with a label.
pub fn facts(view: &View) -> Vec<(&'static str, String)> {
    let state = &view.state;
    let mut facts = vec![("progress", progress(view))];
    facts.extend(speed(view).map(|speed| ("speed", speed)));
    if let (Some((_, first)), Some((step, last))) = (state.loss.points.first(), state.loss.last()) {
        facts.push(("loss", format!("{last:.4} at step {step}, {first:.4} at first")));
    }
    if let Some((lr, norm)) = state.rate {
        let norm = norm.map_or(String::new(), |n| format!(", gradient norm {}", significant(n)));
        facts.push(("rate", format!("{}{norm}", significant(lr))));
    }
    if let (Some((_, first)), Some((_, last))) =
        (state.trainable.points.first(), state.trainable.last())
    {
        let first = match first == &last {
            true => String::new(),
            false => format!(", {} at first", thousands(*first as i64)),
        };
        facts.push(("trainable", format!("{}{first}", thousands(last as i64))));
    }
    if let (Some(ratio), Some((frozen, all))) = (state.ratio, state.frozen) {
        let threshold =
            state.threshold.map_or(String::new(), |t| format!(", threshold {}", significant(t)));
        facts.push((
            "freezing",
            format!("{frozen} of {all} matrices are frozen; r(t) {ratio:.3}{threshold}"),
        ));
    }
    facts
}

/// The last evaluations, the best of all marked; if that is not among the last, it comes first.
pub fn evaluations(view: &View, last: usize) -> Vec<String> {
    let (all, best) = (&view.state.evaluations, view.state.best());
    let from = all.len().saturating_sub(last);
    let line = |i: usize| {
        let mark = match (best == Some(i), &view.phase) {
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
    let metrics = e.metrics.iter().map(|(name, value)| {
        let name = printable_line(name);
        match value {
            Some(value) => format!("{name} {value:.4}"),
            None => format!("{name} undefined"),
        }
    });
    let metrics: Vec<String> = metrics.collect();
    format!("epoch {}: {}, dev loss {:.4}", e.epoch, metrics.join(", "), e.loss)
}
