//! What goes wrong in training without an error: told by name, or ended before it costs more.

use super::train::Step;
use crate::config::RunSettings;
use aflora_core::Tuner;
use anyhow::{bail, Result};

/// After so many steps, everything that trains must have moved.
const GUARD_STEP: u64 = 20;

/// Rows that are named at most.
const ROWS: usize = 32;

/// Names what should train and does not, once.
pub fn check_moved(tuner: &mut Tuner) -> Result<()> {
    if tuner.completed() != GUARD_STEP {
        return Ok(());
    }
    let unmoved = tuner.unmoved()?;
    // Where every step was bad, that is told.
    let (skipped, _) = tuner.skipped()?;
    if let Some(first) = unmoved.first().filter(|_| skipped < GUARD_STEP) {
        tracing::warn!(
            "{} trained tensors have had no gradient in {GUARD_STEP} steps, such as {first}: \
             they do not take part in the model's output",
            unmoved.len()
        );
    }
    Ok(())
}

/// Looks at how many steps were bad: tells the first of a row, and ends the run when there are
/// too many. `known` are those told before; gives those known now. Waits for the device.
///
/// # Errors
/// There are too many in a row.
pub fn check_finite(tuner: &Tuner, config: &RunSettings, step: &Step, known: u64) -> Result<u64> {
    let (total, in_a_row) = tuner.skipped()?;
    let completed = tuner.completed();
    if in_a_row >= config.max_bad_steps {
        let loss = step.loss.double_value(&[]);
        let norm = step.report.grad_norm.double_value(&[]);
        let rows: Vec<String> = step.update.rows().take(ROWS).map(|row| row.to_string()).collect();
        let more = step.update.rows().count().saturating_sub(ROWS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        bail!(
            "loss or gradient was not finite in {in_a_row} steps in a row, the last of them step \
             {completed}: loss {loss}, gradient norm {norm}, training rows {}{more} (counted from \
             0, of those in use). None of these steps moved anything. A smaller lr or head_lr, a \
             smaller max_grad_norm, a longer warmup, or precision=fp32 may help",
            rows.join(", ")
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

/// Says that a loss does not move.
pub fn tell_still(which: &str, loss: f64, config: &RunSettings) {
    tracing::warn!(
        "the {which} has stood at {loss:.4} from the start: nothing is learnt. lr={} or head_lr={} \
         may be too small, a max_grad_norm of {} too tight, or the labels may have nothing to do \
         with the texts",
        config.lr,
        config.head_lr,
        config.max_grad_norm.map_or("null".into(), |norm| norm.to_string()),
    );
}
