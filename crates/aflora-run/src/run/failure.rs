//! Failures of libtorch, which tch's operators make panics of: most of all, memory that runs out.

use aflora_models::panics;
use anyhow::{anyhow, Result};
use std::fmt;
use tch::Tensor;

/// What `work` gives. Where libtorch fails in one of tch's operators, which panic, that is an
/// error like any other.
///
/// # Errors
/// Those of `work`, and what libtorch says.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let given =
        panics::catch(work).unwrap_or_else(|words| Err(anyhow!("libtorch failed: {words}")));
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
    // One that was told already may come by again.
    if is_out_of_memory(&error) || !vague.iter().any(|sign| words.contains(sign)) {
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

/// The size of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Rows computed at once.
    pub rows: usize,
    /// Tokens of the longest, to which the others are filled up.
    pub tokens: usize,
}

impl Pass {
    /// That of a batch of these token ids, `[rows, tokens]`.
    pub fn of(input_ids: &Tensor) -> Pass {
        let size = input_ids.size();
        let along = |dim: usize| size.get(dim).map_or(0, |&n| n as usize);
        Pass { rows: along(0), tokens: along(1) }
    }

    /// The error with this pass in it, if the memory ran out.
    pub fn blame(self, error: anyhow::Error) -> anyhow::Error {
        match is_out_of_memory(&error) {
            true => error.context(self),
            false => error,
        }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = if self.rows == 1 { "one row".into() } else { format!("{} rows", self.rows) };
        write!(f, "in a pass of {rows} of {} tokens", self.tokens)
    }
}

/// Frozen weights in half the bytes.
pub(super) const BF16: &str = "precision=bf16";
/// Those of the layers in less than a third of that.
pub(super) const NF4: &str = "precision=nf4";
/// Fewer tokens at once.
pub(super) const SHORTER: &str = "a smaller max_length";

/// An error of an evaluation of one row with words on what to do.
pub fn explain_evaluation(error: anyhow::Error) -> anyhow::Error {
    error.context(format!(
        "the memory is too small to evaluate, not even one row at once fits; these need less: \
         {BF16}, {SHORTER}"
    ))
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
    use tch::{Device, Kind};

    #[test]
    fn the_host_s_memory_runs_out_in_words_too() {
        // More than any process can address.
        let take = || Ok(Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu)));
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
        let again = told_as_memory(full, || Some(2 << 20));
        assert_eq!(format!("{again:#}").matches("are left on the GPU").count(), 1, "{again:#}");
        assert!(!is_out_of_memory(&told(Some(40 << 30))));
        assert!(!is_out_of_memory(&told(None)), "there is no GPU");
    }

    #[test]
    fn an_error_of_memory_knows_its_pass_and_others_do_not() {
        let ids = Tensor::zeros([3, 7], (Kind::Int64, Device::Cpu));
        let pass = Pass::of(&ids);
        let full = pass.blame(anyhow!("CUDA out of memory").context("loss")).context("step");
        assert_eq!(full.downcast_ref(), Some(&Pass { rows: 3, tokens: 7 }));
        assert!(format!("{full:#}").contains("in a pass of 3 rows of 7 tokens: loss: CUDA out of"));
        assert_eq!(pass.blame(anyhow!("no kernel image")).downcast_ref::<Pass>(), None);
    }
}
