//! What a finished run is judged by, made of its tuner and its loop's state.

use super::loop_state::LoopState;
use super::prepare::Prepared;
use crate::config::Resolved;
use crate::device;
use aflora_core::accounting::Accounting;
use aflora_core::adapter::Role;
use aflora_core::flops::Flops;
use aflora_core::Tuner;
use aflora_record::freezes::Matrix;
use aflora_record::summary::{EarlyStop, FlopsPerToken, Operations, Parameters, Summary, Times};
use anyhow::{Context, Result};

/// What the run of `tuner` came to.
///
/// # Errors
/// Nothing was evaluated.
pub fn summary(
    resolved: &Resolved,
    run: &Prepared,
    tuner: &Tuner,
    (frozen_weights, paths_at_start): (Flops, Flops),
    loop_state: LoopState,
) -> Result<Summary> {
    let LoopState { evaluations, best, by_class, training_seconds, clock, .. } = loop_state;
    let counts = tuner.accounting();
    let head = run.model.parameters();
    let head = head.iter().filter(|p| matches!(p.role, Role::Head | Role::HeadBias));
    let epochs = tuner.completed() as f64 / run.steps_per_epoch as f64;
    let tokens = run.objective.tokens() as f64 * epochs;
    let early_stop = run.config.patience.filter(|_| tuner.completed() < run.total_steps());
    let best = best.and_then(|best| evaluations.get(best));
    Ok(Summary {
        task: resolved.task.name().into(),
        model: resolved.model.model.clone(),
        method: resolved.method_name.clone(),
        seed: run.config.seed,
        selection: run.objective.selection(),
        best: best.context("nothing was evaluated")?.clone(),
        by_class,
        test: None,
        last: evaluations.last().context("nothing was evaluated")?.clone(),
        parameters: Parameters {
            at_start: counts.at_start,
            at_end: counts.at_end,
            time_average: counts.time_average(),
            head: head.map(|p| p.leaf.numel() as i64).sum(),
        },
        steps: tuner.completed(),
        early_stop: early_stop
            .map(|patience| EarlyStop { patience, total_steps: run.total_steps() }),
        skipped_steps: tuner.skipped()?.0,
        flops_per_token: FlopsPerToken {
            frozen_weights: operations(frozen_weights),
            paths_at_start: operations(paths_at_start),
            paths_at_end: operations(run.model.flops_per_token().1),
        },
        device: device::describe(run.device),
        seconds: Times {
            training: training_seconds,
            evaluation: evaluations.iter().map(|e| e.seconds).sum(),
            median_step: match run.device {
                tch::Device::Cpu => clock.median(),
                // Steps are only queued there: their own times say nothing.
                _ => training_seconds / tuner.completed() as f64,
            },
        },
        tokens_per_second: tokens / training_seconds,
        peak_memory: device::peak_memory(run.device),
        peak_tensors: device::tensors(run.device).map(|memory| memory.peak_allocated),
        evaluations,
    })
}

fn operations(flops: Flops) -> Operations {
    Operations { forward: flops.forward, backward: flops.backward }
}

/// Every projection matrix that trained at the start (or component of one, where a method freezes
/// by components), and the step at which it froze.
pub fn frozen(run: &Prepared, counts: &Accounting) -> Vec<Matrix> {
    let mut matrices = Vec::new();
    let by_component = counts.frozen_at.iter().any(|(name, _)| name.contains(".component"));
    for adapter in run.model.adapters() {
        let site = adapter.site();
        let block = format!("{:?}", site.block).to_lowercase();
        let mut add = |name: String, elements: usize, trains: bool| {
            let frozen = counts.frozen_at.iter().find(|(frozen, _)| *frozen == name);
            // What neither trains now nor froze on the way never trained.
            if trains || frozen.is_some() {
                let (block, elements) = (block.clone(), elements as i64);
                let frozen_at = frozen.map(|(_, step)| *step);
                matrices.push(Matrix { name, block, elements, frozen_at });
            }
        };
        if by_component {
            let elements = (site.in_features + site.out_features) as usize;
            for k in 0..adapter.rank() {
                add(format!("{}.component{k}", site.name), elements, false);
            }
        } else {
            for t in adapter.tensors().iter().filter(|t| t.spec.role == Role::Projection) {
                add(format!("{}.{}", site.name, t.spec.name), t.tensor.numel(), t.trainable);
            }
        }
    }
    matrices
}
