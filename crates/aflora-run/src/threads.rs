//! How many threads of libtorch's compute on a CPU.

/// The threads of one of so many processes on this machine, where neither a setting nor the environment
/// says it: its part of the processors.
pub fn share(processes: usize) -> Option<usize> {
    let said = std::env::var_os("OMP_NUM_THREADS").is_some();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processes > 1 && !said).then(|| (processors / processes).max(1))
}

/// The number of threads to compute with, of those that were asked for: more than there are
/// processors would wait for one another's turn.
pub fn bounded(wanted: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(wanted, usize::from);
    if wanted > processors {
        tracing::warn!(
            "threads is {wanted}, but this process has {processors} processors: {processors} \
             threads are used"
        );
    }
    wanted.min(processors)
}
