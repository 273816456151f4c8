//! What goes wrong in training without an error: told by name, or ended before it costs more.

use super::loop_state::LoopState;
use super::prepare::Prepared;
use super::update::Step;
use crate::config::{Precision, RunSettings};
use aflora_core::Tuner;
use anyhow::{bail, Result};

/// After so many steps, everything that trains must have moved.
const GUARD_STEP: u64 = 20;

/// Rows that are named at most.
const ROWS: usize = 32;

/// One bad step in so many is told again at the end.
const TOLD: u64 = 100;

/// Warns once, behind step `GUARD_STEP`, of tensors that should train and never had a gradient.
///
/// # Errors
/// What the device holds of the gradients cannot be read.
pub fn check_moved(tuner: &mut Tuner) -> Result<()> {
    if tuner.completed() != GUARD_STEP {
        return Ok(());
    }
    let unmoved = tuner.unmoved()?;
    // Where most steps were bad, that is told: the others are too few to reach everything.
    let (skipped, _) = tuner.skipped()?;
    if let Some(first) = unmoved.first().filter(|_| 2 * skipped <= GUARD_STEP) {
        tracing::warn!(
            "{} trained tensors have had no gradient in {GUARD_STEP} steps, such as {first}: \
             they do not take part in the model's output",
            unmoved.len()
        );
    }
    Ok(())
}

/// Looks at how many steps were bad: tells the first of a row, and ends the run when there are
/// too many: `max_bad_steps` in a row, or in all and more than half of the steps so far; behind
/// the last step, more than half. `known` are those told before; gives those known now. Waits for
/// the device.
///
/// # Errors
/// There are too many.
pub fn check_finite(tuner: &Tuner, run: &Prepared, step: &Step, known: u64) -> Result<u64> {
    let (total, in_a_row) = tuner.skipped()?;
    let completed = tuner.completed();
    let most = run.config.max_bad_steps;
    let too_many = if in_a_row >= most {
        Some(format!("{in_a_row} steps in a row"))
    } else {
        let enough = total >= most || completed == run.total_steps();
        (enough && 2 * total > completed).then(|| format!("{total} of {completed} steps"))
    };
    if let Some(too_many) = too_many {
        let loss = step.report.loss.double_value(&[]);
        let norm = step.report.grad_norm.double_value(&[]);
        let rows: Vec<String> = step.update.rows().take(ROWS).map(|row| row.to_string()).collect();
        let more = step.update.rows().count().saturating_sub(ROWS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        bail!(
            "loss or gradient was not finite in {too_many}; step {completed} had loss {loss}, \
             gradient norm {norm}, training rows {}{more} (counted from 0, of those in use). None \
             of these steps moved anything. {}",
            rows.join(", "),
            cure(total, completed, &run.config)
        );
    }
    if total > known && in_a_row <= total - known {
        tracing::warn!(
            "step {completed}: the loss or its gradient was not finite; {} that moved nothing so \
             far",
            if total == 1 { "it is the first step".into() } else { format!("{total} steps") }
        );
    }
    Ok(total)
}

/// What helps where `bad` of `steps` steps were not finite.
fn cure(bad: u64, steps: u64, config: &RunSettings) -> String {
    if bad == steps {
        return "No step was finite, so no rate is at fault, but the weights, or a precision other \
                than fp32"
            .into();
    }
    format!(
        "A smaller lr (it is {:?}) or head_lr ({:?}), or a longer warmup ({}) may help{}",
        config.update.lr,
        config.update.head_lr,
        config.update.warmup,
        if config.precision == Precision::Fp32 { "" } else { ", or precision=fp32" }
    )
}

/// Warns that a loss does not move, in a run of which `bad` of `steps` steps were not finite.
pub fn warn_of_flat_loss(which: &str, loss: f64, (bad, steps): (u64, u64), config: &RunSettings) {
    let stood = format!("the {which} has stood at {loss:.4} from the start: nothing is learnt");
    if bad > 0 {
        tracing::warn!(
            "{stood}. {bad} of {steps} steps were not finite and moved nothing. {}",
            cure(bad, steps, config)
        );
        return;
    }
    tracing::warn!(
        "{stood}. lr={:?} or head_lr={:?} may be too small, a max_grad_norm of {} too tight, or the \
         labels may have nothing to do with the texts",
        config.update.lr,
        config.update.head_lr,
        config.update.max_grad_norm.map_or("null".into(), |norm| norm.to_string()),
    );
}

/// Says at the end of a run of `steps` steps, of which `bad` were not finite, what its result is
/// worth where it is worth little.
pub fn sum_up(loop_state: &LoopState, (bad, steps): (u64, u64), config: &RunSettings) {
    for words in findings(loop_state, (bad, steps), config) {
        tracing::warn!("{words}");
    }
}

fn findings(loop_state: &LoopState, (bad, steps): (u64, u64), config: &RunSettings) -> Vec<String> {
    let mut words = Vec::new();
    if bad * TOLD > steps {
        words.push(format!(
            "{bad} of {steps} steps were not finite and moved nothing. {}",
            cure(bad, steps, config)
        ));
    }
    let ends = loop_state.ends();
    if let Some((first, last)) = ends.filter(|_| loop_state.rose()) {
        words.push(format!(
            "the training loss rose, from {first:.4} at first to {last:.4} at last: lr={:?} or \
             head_lr={:?} is too large, or a warmup of {} too short",
            config.update.lr, config.update.head_lr, config.update.warmup
        ));
    }
    let best = loop_state.best.and_then(|best| loop_state.evaluations.get(best));
    if let Some(best) = best.filter(|best| !best.loss.is_finite()) {
        words.push(format!("the best epoch's dev loss is {}: its answers say nothing", best.loss));
    }
    let why = match (ends.zip(loop_state.detour()), loop_state.fell()) {
        _ if !words.is_empty() => "Training went wrong, as said above".to_string(),
        (Some(((first, last), most)), _) => format!(
            "The training loss rose at first, from {first:.4} to {most:.4}, and ended at {last:.4}: \
             a smaller lr (it is {:?}) or head_lr ({:?}), or a longer warmup ({}) may help",
            config.update.lr, config.update.head_lr, config.update.warmup
        ),
        (None, Some((first, last))) => format!(
            "The training loss did fall, from {first:.4} to {last:.4}: what was learnt of the \
             training rows does not carry over. More of them may help, if the labels have to do \
             with the texts"
        ),
        _ => format!(
            "The training loss hardly fell: more epochs ({} now), more rows or {} rates (lr={:?}, \
             head_lr={:?}) may help, if the labels have to do with the texts",
            config.epochs,
            // No larger one where it fell and rose again.
            if loop_state.turned() { "other" } else { "larger" },
            config.update.lr, config.update.head_lr
        ),
    };
    let doubts = loop_state.doubts.iter();
    words.extend(doubts.map(|doubt| format!("no better than a guess: {doubt}. {why}")));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loop_state(losses: &[f64], doubts: &[&str]) -> LoopState {
        let doubts = doubts.iter().map(|doubt| doubt.to_string()).collect();
        let mut loop_state = LoopState { doubts, start: Some(0.7), ..LoopState::default() };
        for &loss in losses {
            let _ = loop_state.curve.stands_still(loss, 50);
        }
        loop_state
    }

    fn found(losses: &[f64], doubts: &[&str], bad: u64) -> String {
        findings(&loop_state(losses, doubts), (bad, 100), &RunSettings::default()).join("\n")
    }

    #[test]
    fn a_run_that_learnt_says_nothing() {
        assert_eq!(found(&[0.7, 0.5, 0.2], &[], 1), "", "one bad step of a hundred was told");
    }

    #[test]
    fn advice_follows_from_what_happened() {
        let words = found(&[0.7, 3.0, 9.0], &["dev: one label"], 30);
        assert!(words.contains("30 of 100 steps"), "{words}");
        assert!(words.contains("rose, from 0.7000 at first to 9.0000"), "{words}");
        assert!(words.contains("no better than a guess: dev: one label"), "{words}");
        assert!(!words.contains("larger rates") && !words.contains("too small"), "{words}");
        let words = found(&[0.7, 0.5, 0.2], &["dev: one label"], 0);
        assert!(words.contains("does not carry over"), "{words}");
        let words = found(&[2.7, 0.66], &["dev: one label"], 0);
        assert!(words.contains("rose at first, from 0.7000 to 2.7000"), "{words}");
        assert!(words.contains("smaller lr") && !words.contains("carry over"), "{words}");
        let words = found(&[0.7, 0.71, 0.69], &["dev: one label"], 0);
        assert!(words.contains("larger rates"), "{words}");
        let words = found(&[0.67, 0.7, 0.71], &["dev: one label"], 0);
        assert!(words.contains("other rates"), "{words}");
        assert!(found(&[], &["dev: one label"], 0).contains("more epochs"));
    }

    #[test]
    fn a_rate_is_not_blamed_for_steps_that_never_moved_anything() {
        let config = RunSettings::default();
        assert!(cure(5, 5, &config).contains("no rate is at fault"));
        assert!(cure(5, 9, &config).contains("smaller lr"));
    }
}
