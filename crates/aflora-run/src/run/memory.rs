//! The batch that fits into a GPU's memory, and what to do when one does not fit.

use super::failure::{guarded, is_out_of_memory, Pass, BF16, NF4, SHORTER};
use super::model::trains_weights;
use super::prepare::Prepared;
use crate::config::Resolved;
use crate::usage;
use aflora_core::Tuner;
use anyhow::{bail, Result};
use tch::{Device, Kind};

/// Finds the batch size that `batch_size: auto` asks for, and sets it: the configured one, or
/// the largest part of it of which a forward and backward pass over the longest rows fits; with
/// so many passes to an update that its rows stay the same. On a CPU the configured one.
///
/// # Errors
/// Not even one row fits, or the model fails otherwise.
pub fn fit(resolved: &mut Resolved, run: &mut Prepared, tuner: &mut Tuner) -> Result<()> {
    if !resolved.run.fit_batch || run.device == Device::Cpu {
        return Ok(());
    }
    let wanted = run.config.batch_size.div_ceil(run.world.size());
    let mut fits = |size: usize| {
        let batch = run.objective.batch(&run.objective.longest(size));
        let loss = run.objective.loss(&run.model, &batch.to_device(run.device))?;
        let tried = tuner.backward(loss);
        tuner.discard();
        crate::device::synchronize(run.device);
        Ok(tried?)
    };
    let found = largest_that_fits(wanted, |size| guarded(|| fits(size)))?;
    let Some(size) = found else {
        let ways = Remedies::of(resolved, run).words(1, 1);
        bail!("not even one row fits into the GPU's memory; {ways}");
    };
    // What fits on the smallest of the GPUs.
    let all = run.world.gather(&(size as u64).to_le_bytes())?;
    let sizes = all.iter().filter_map(|bytes| bytes.first_chunk());
    let size = sizes.map(|bytes| u64::from_le_bytes(*bytes) as usize).min().unwrap_or(size);
    let parts = wanted.div_ceil(size);
    if !run.config.batch_size.is_multiple_of(parts) {
        usage!(
            "batch_size: auto finds that {size} rows fit on a GPU, and {} rows on {} GPUs cannot be \
             cut in passes of that; choose a batch_size that can",
            run.config.batch_size,
            run.world.size()
        );
    }
    let (size, accumulate) = (run.config.batch_size / parts, run.config.accumulate * parts);
    tracing::info!("batch_size: auto is {size}, with accumulate={accumulate}");
    for config in [&mut run.config, &mut resolved.run] {
        (config.batch_size, config.accumulate) = (size, accumulate);
    }
    Ok(())
}

/// The first of the divisors of `wanted` that fits, the largest first, each at most half of the
/// one before.
///
/// # Errors
/// Those of `fits` that do not come from the memory.
fn largest_that_fits(
    wanted: usize,
    mut fits: impl FnMut(usize) -> Result<()>,
) -> Result<Option<usize>> {
    let mut size = wanted;
    loop {
        match fits(size) {
            Ok(()) => return Ok(Some(size)),
            Err(error) if !is_out_of_memory(&error) => return Err(error),
            Err(_) => {}
        }
        match smaller(size, wanted) {
            Some(next) => size = next,
            None => return Ok(None),
        }
    }
}

/// The largest divisor of `whole` that is at most half of `size`.
fn smaller(size: usize, whole: usize) -> Option<usize> {
    (1..=size / 2).rev().find(|part| whole.is_multiple_of(*part))
}

/// An error of a step with words on what to do, where the memory was too small.
pub fn explain(error: anyhow::Error, resolved: &Resolved, run: &Prepared) -> anyhow::Error {
    if !is_out_of_memory(&error) {
        return error;
    }
    let whose = if run.device == Device::Cpu { "the memory" } else { "the GPU's memory" };
    // Behind its passes, an update takes the same whatever they were.
    let rows = error.downcast_ref::<Pass>().map_or(1, |pass| pass.rows);
    let whole = run.config.batch_size * run.config.accumulate;
    error.context(format!(
        "{whose} is too small; {}",
        Remedies::of(resolved, run).words(rows, whole)
    ))
}

/// What a run can still do about its memory.
#[derive(Debug, Clone, Copy)]
struct Remedies {
    /// Let a GPU's memory decide on the rows of a pass.
    auto: bool,
    /// Compute layers twice.
    checkpointing: bool,
    /// Hold the frozen weights in half the bytes.
    bf16: bool,
    /// Hold those of the layers in an eighth.
    nf4: bool,
}

impl Remedies {
    fn of(resolved: &Resolved, run: &Prepared) -> Self {
        let backbone = run.model.backbone();
        let weights = backbone.var_store().variables();
        let is_bf16 = weights.values().any(|weight| weight.kind() == Kind::BFloat16);
        Remedies {
            auto: run.device != Device::Cpu && !resolved.run.fit_batch,
            checkpointing: !resolved.model.gradient_checkpointing,
            bf16: !is_bf16 && !trains_weights(run.method.as_ref()),
            nf4: backbone.quantised().is_empty() && !run.method.trains("layer.weight"),
        }
    }

    /// What takes less memory than a pass of `rows` and gives the same updates, of `whole` rows;
    /// then what does not give quite the same.
    fn words(self, rows: usize, whole: usize) -> String {
        let mut ways = Vec::new();
        if let Some(part) = smaller(rows, whole) {
            let passes = whole / part;
            ways.push(format!("batch_size={part} accumulate={passes} (the same update)"));
            ways.extend(self.auto.then(|| "batch_size=auto".into()));
        }
        ways.extend(self.checkpointing.then(|| "model.gradient_checkpointing=true".into()));
        ways.extend(self.bf16.then(|| BF16.into()));
        ways.extend(self.nf4.then(|| NF4.into()));
        ways.push(SHORTER.into());
        format!("these need less: {}", ways.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use proptest::prelude::*;

    /// What is tried, and what comes of it, on a device that holds `room` rows.
    fn search(wanted: usize, room: usize) -> (Option<usize>, Vec<usize>) {
        let mut tried = Vec::new();
        let found = largest_that_fits(wanted, |size| {
            tried.push(size);
            match size <= room {
                true => Ok(()),
                false => {
                    Err(anyhow!("CUDA out of memory. Tried to allocate 2 GiB").context("loss"))
                }
            }
        });
        (found.unwrap(), tried)
    }

    #[test]
    fn the_search_halves_and_keeps_to_divisors() {
        assert_eq!(search(32, 100), (Some(32), vec![32]));
        assert_eq!(search(32, 9), (Some(8), vec![32, 16, 8]));
        assert_eq!(search(48, 1), (Some(1), vec![48, 24, 12, 6, 3, 1]));
        assert_eq!(search(21, 20), (Some(7), vec![21, 7]));
        assert_eq!(search(4, 0), (None, vec![4, 2, 1]));
    }

    #[test]
    fn other_errors_end_the_search() {
        let error = largest_that_fits(8, |_| Err(anyhow!("no kernel image"))).unwrap_err();
        assert_eq!(error.to_string(), "no kernel image");
    }

    const ALL: Remedies = Remedies { auto: true, checkpointing: true, bf16: true, nf4: true };

    proptest! {
        #[test]
        fn the_advice_halves_the_pass_that_failed_and_keeps_the_update(
            batch in 1usize..70, accumulate in 1usize..9, rows in 1usize..70,
        ) {
            let rows = rows.min(batch);
            let whole = batch * accumulate;
            let words = ALL.words(rows, whole);
            let number = |key: &str| {
                let (_, rest) = words.split_once(&format!("{key}="))?;
                rest.split(' ').next()?.parse::<usize>().ok()
            };
            match (number(": batch_size"), number("accumulate")) {
                (Some(part), Some(passes)) => {
                    prop_assert_eq!(part * passes, whole);
                    prop_assert!(2 * part <= rows);
                    prop_assert!((part + 1..=rows / 2).all(|n| whole % n != 0), "{}", words);
                }
                none => prop_assert_eq!((rows, none), (1, (None, None))),
            }
        }
    }

    #[test]
    fn the_advice_is_of_the_rows_that_were_computed_and_of_what_is_not_done_yet() {
        // Five rows are all there are, of 32 that were asked for.
        let words = ALL.words(5, 32);
        assert!(words.contains("batch_size=2 accumulate=16 (the same update), batch_size=auto"));
        assert!(ALL.words(32, 64).contains("batch_size=16 accumulate=4 "));
        // A divisor of the update, if not of the batch.
        assert!(ALL.words(9, 18).contains("batch_size=3 accumulate=6 "));
        assert!(ALL.words(5, 10).contains("batch_size=2 accumulate=5 "));
        let one = "these need less: model.gradient_checkpointing=true, precision=bf16, \
                   precision=nf4, a smaller max_length";
        assert_eq!(ALL.words(1, 32), one);
        let nothing = Remedies { auto: false, checkpointing: false, bf16: false, nf4: false };
        assert_eq!(nothing.words(1, 1), "these need less: a smaller max_length");
    }
}
