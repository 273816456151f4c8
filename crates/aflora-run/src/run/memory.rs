//! Memory: the batch that fits into a GPU's, and what to do when one does not fit; and other
//! failures of libtorch, which tch's operators make panics of.

use super::prepare::Prepared;
use super::update::Update;
use crate::config::Resolved;
use aflora_core::Tuner;
use aflora_models::foreign::caught;
use anyhow::{anyhow, bail, Result};
use tch::{Device, Tensor};

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
    let wanted = run.config.batch_size;
    let mut fits = |size: usize| {
        let batch = run.objective.batch(&run.objective.longest(size));
        let batch: Vec<Tensor> = batch.iter().map(|t| t.to_device(run.device)).collect();
        let (loss, checkpoints) = run.objective.loss(&run.model, &batch)?;
        let tried = tuner.accumulate_through(&loss, checkpoints);
        tuner.discard();
        crate::device::synchronize(run.device);
        Ok(tried?)
    };
    let found = largest_that_fits(wanted, |size| guarded(|| fits(size)))?;
    let Some(size) = found else {
        bail!("not even one row fits into the GPU's memory; {}", remedy(1, 1, checkpoints(run)));
    };
    let accumulate = run.config.accumulate * (wanted / size);
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

/// What `work` gives. Where libtorch fails in one of tch's operators, which panic, that is an
/// error like any other.
///
/// # Errors
/// Those of `work`, and what libtorch says.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let given = caught(work).unwrap_or_else(|words| Err(anyhow!("libtorch failed: {words}")));
    given.map_err(|error| {
        let error = told_as_memory(error, free);
        if is_out_of_memory(&error) {
            // Whoever tries again with less finds what was taken in vain.
            aflora_cuda::release_unused();
        }
        error
    })
}

/// Bytes that cuBLAS and cuDNN take from the driver themselves, for kernels and workspaces.
const THEIR_OWN: u64 = 256 << 20;

/// An error of cuBLAS or cuDNN that comes of a full GPU, told as that: where no memory is left to
/// load a kernel into, they speak of an internal error. `free` gives the bytes left.
fn told_as_memory(error: anyhow::Error, free: impl Fn() -> Option<u64>) -> anyhow::Error {
    let words = format!("{error:#}");
    let vague = ["_STATUS_INTERNAL_ERROR", "_STATUS_NOT_INITIALIZED", "_STATUS_EXECUTION_FAILED"];
    if !vague.iter().any(|sign| words.contains(sign)) {
        return error;
    }
    match free() {
        Some(free) if free < THEIR_OWN => {
            error.context(format!("out of memory, {} MB are left on the GPU", free >> 20))
        }
        _ => error,
    }
}

/// Bytes left on the fullest of the GPUs that this process uses. Others are not asked: that alone
/// would take memory there.
fn free() -> Option<u64> {
    let used = |device: &usize| aflora_cuda::memory(*device).is_some_and(|m| m.peak_reserved > 0);
    let devices = 0..usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    devices.filter(used).filter_map(aflora_cuda::memory_free).min()
}

/// An error of a step with words on what to do, where the memory was too small.
pub fn explain(error: anyhow::Error, run: &Prepared, update: &Update) -> anyhow::Error {
    if !is_out_of_memory(&error) {
        return error;
    }
    let width = |rows: &Vec<usize>| run.objective.batch(rows).first().map_or(0, |t| t.size()[1]);
    let longest = update.passes.iter().map(width).max().unwrap_or(0);
    let (size, accumulate) = (run.config.batch_size, run.config.accumulate);
    let whose = if run.device == Device::Cpu { "the memory" } else { "the GPU's memory" };
    error.context(format!(
        "{whose} is too small for a batch of {size} rows of {longest} tokens; {}",
        remedy(size, accumulate, checkpoints(run))
    ))
}

/// An error of an evaluation of one row with words on what to do.
pub fn explain_evaluation(error: anyhow::Error) -> anyhow::Error {
    error.context(format!(
        "the memory is too small to evaluate, not even one row at once fits; these need less: {}",
        SMALLER.join(", ")
    ))
}

/// What takes less memory whatever is done, and does not give quite the same.
const SMALLER: [&str; 2] = ["precision=bf16", "a smaller max_length"];

fn checkpoints(run: &Prepared) -> bool {
    run.model.backbone().about().checkpoints
}

/// What takes less memory and gives the same updates, then what does not quite.
fn remedy(size: usize, accumulate: usize, checkpoints: bool) -> String {
    let mut ways = Vec::new();
    if let Some(part) = smaller(size, size) {
        let passes = accumulate * (size / part);
        ways.push(format!("batch_size={part} accumulate={passes} (the same update)"));
        ways.push("batch_size=auto on a GPU".to_string());
    }
    if checkpoints {
        ways.push("model.gradient_checkpointing=true".into());
    }
    ways.extend(SMALLER.map(String::from));
    format!("these need less: {}", ways.join(", "))
}

/// Whether libtorch ran out of memory, a GPU's or the host's: it says so in words alone, cuBLAS and
/// cuDNN in theirs.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    let words = format!("{error:#}").to_lowercase();
    ["out of memory", "can't allocate memory", "not enough memory", "_status_alloc_failed"]
        .iter()
        .any(|sign| words.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_host_s_memory_runs_out_in_words_too() {
        // More than any process can address.
        let take = || Ok(Tensor::zeros([1 << 50], (tch::Kind::Float, Device::Cpu)));
        let error = guarded(take).unwrap_err();
        assert!(is_out_of_memory(&error.context("dev loss")));
        let cublas = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`";
        assert!(is_out_of_memory(&anyhow!(cublas)));
        assert!(!is_out_of_memory(&anyhow!("The size of tensor a must match")));
    }

    #[test]
    fn an_internal_error_on_a_full_gpu_is_one_of_memory() {
        let cublas = || anyhow!("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `gemm`");
        let told = |free: Option<u64>| told_as_memory(cublas(), || free);
        let full = told(Some(3 << 20));
        assert!(is_out_of_memory(&full), "{full:#}");
        assert!(format!("{full:#}").contains("CUBLAS_STATUS_INTERNAL_ERROR"));
        assert!(!is_out_of_memory(&told(Some(40 << 30))));
        assert!(!is_out_of_memory(&told(None)), "there is no GPU");
    }

    #[test]
    fn other_errors_end_the_search() {
        let error = largest_that_fits(8, |_| Err(anyhow!("no kernel image"))).unwrap_err();
        assert_eq!(error.to_string(), "no kernel image");
    }

    #[test]
    fn the_remedy_names_numbers_that_give_the_same_update() {
        let words = remedy(32, 2, true);
        assert!(words.contains("batch_size=16 accumulate=4"), "{words}");
        assert!(words.contains("gradient_checkpointing"), "{words}");
        assert!(!remedy(1, 1, false).contains("batch_size"), "nothing is smaller than one row");
    }
}
