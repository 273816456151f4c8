//! What a step will take of a device's memory: measured, with few rows and random weights.
//!
//! Weights, adapters and the optimiser's state do not depend on the rows; what a step keeps beside them grows
//! by the same with each row of a length. So two steps of few rows tell what one of all rows takes, of every
//! model, method, precision and device, as the code stands.

use crate::config::{Resolved, WeightsFrom};
use crate::device;
use crate::run::prepare::{prepare, Prepared};
use crate::ui::Progress;
use crate::usage;
use aflora_core::{StepGraphs, Tuner};
use anyhow::Result;
use std::fmt::Write;

/// Tokens of the larger step that is measured, at least: enough for what grows with the rows to be more than
/// what does not.
const TOKENS: usize = 2048;

/// Bytes that tensors take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    weights: u64,
    adapters: u64,
    /// Gradients, the optimiser's moments, scores.
    state: u64,
    /// What a step needs beside all that.
    step: u64,
}

/// What a training step of `resolved` takes on its device, in words. A run is prepared for it, on random
/// weights.
///
/// # Errors
/// As a run's that cannot begin; or nobody counts what tensors take.
pub fn memory(resolved: &Resolved, progress: &mut dyn Progress) -> Result<String> {
    let mut random = resolved.clone();
    random.model.weights = WeightsFrom::Random;
    let run = prepare(&random, progress)?;
    let rows = resolved.run.batch_size.min(run.objective.training_rows());
    let longest = run.objective.batch(&run.objective.longest(1));
    let length = longest.batch.input_ids.size().last().copied().unwrap_or(0).max(1);
    let most = TOKENS.div_ceil(length as usize).max(2);
    let taken = measure(&run, rows, rows.min(most))?;
    let mut out = String::new();
    writeln!(
        out,
        "\nmemory of a step on {}, the {rows} longest rows, of {length} tokens:",
        device::describe(run.device)
    )?;
    let Taken { weights, adapters, state, step } = taken;
    for (what, bytes) in [
        ("weights", weights),
        ("adapters", adapters),
        ("gradients and optimiser", state),
        ("activations", step),
        ("together", weights + adapters + state + step),
    ] {
        writeln!(out, "  {what:31} {:>10.1} MB", bytes as f64 / 1e6)?;
    }
    if most < rows {
        writeln!(out, "  (measured of {most} rows, and of half as many)")?;
    }
    Ok(out)
}

/// Measures what a step of the `rows` longest rows takes, by one of `more` of them and, if those are fewer, one
/// of half as many.
fn measure(run: &Prepared, rows: usize, more: usize) -> Result<Taken> {
    let Some(begun) = device::tensors(run.device) else {
        usage!("this build does not count what tensors take on {}", device::describe(run.device));
    };
    let tensors = run.model.adapters().flat_map(|adapter| adapter.tensors());
    let adapters: usize =
        tensors.map(|t| t.tensor.numel() * t.tensor.kind().elt_size_in_bytes()).sum();
    let weights = begun.allocated.saturating_sub(adapters as u64);
    let mut tuner = run.tuner()?;
    // Makes the state.
    let _ = of_step(run, &mut tuner, more)?;
    let whole = of_step(run, &mut tuner, more)?;
    let held = device::tensors(run.device).map_or(0, |memory| memory.allocated);
    let state = held.saturating_sub(begun.allocated);
    let step = match rows - more {
        0 => whole,
        further => {
            let few = more / 2;
            let half = of_step(run, &mut tuner, few)?;
            let a_row = whole.saturating_sub(half) as f64 / (more - few) as f64;
            whole + (a_row * further as f64) as u64
        }
    };
    Ok(Taken { weights, adapters: adapters as u64, state, step })
}

/// What a step of the longest rows takes at the most beside what is there after it.
fn of_step(run: &Prepared, tuner: &mut Tuner, rows: usize) -> Result<u64> {
    device::reset_peak(run.device);
    let rows = run.objective.longest(rows);
    let items = run.objective.items(&rows);
    let batches = [run.objective.batch(&rows)];
    let mut graphs = StepGraphs::off(run.device);
    tuner.forward_backward(
        batches,
        if items > 0.0 { items } else { 1.0 },
        &mut graphs,
        |batch| run.objective.loss(&run.model, batch),
    )?;
    tuner.update()?;
    device::synchronize(run.device);
    let found = device::tensors(run.device);
    Ok(found.map_or(0, |memory| memory.peak_allocated.saturating_sub(memory.allocated)))
}
