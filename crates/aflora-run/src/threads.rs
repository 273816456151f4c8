//! How libtorch's threads on a CPU wait for one another.
//!
//! libtorch's operators are parallel loops of GNU's OpenMP, whose threads spin for up to 300,000
//! turns before they sleep, so as to be awake when the next loop comes. On a machine that has
//! other work, a thread that spins takes the processor from the one that it waits for: a step of
//! 0.2 s takes 1.5 to 7 s. Threads that sleep at once are slower where the machine is idle, since
//! each loop has to wake them. `TURNS` is nearly the best of both (docs/performance.md has the
//! measurements).

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// OpenMP's variables that say how to wait, whichever the user prefers.
const CHOICES: [&str; 3] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"];

/// How often a thread looks for work before it sleeps.
const TURNS: &str = "10000";

/// Makes the threads of this process, and of those that it starts, wait as `TURNS` says, unless
/// the environment has a setting of its own.
///
/// OpenMP reads its variables when it is loaded, which is before any code of ours runs. So the
/// program starts itself once more, in the same process, with the variable set: before anything
/// else is done, and for a quarter of a second. Where that fails, it goes on as it is.
///
/// `arguments` are the program's own, of which the first is its name.
pub fn settle(arguments: &[OsString]) {
    if CHOICES.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let error = Command::new(program)
        .arg0(arguments.first().map_or(OsStr::new("aflora"), OsString::as_os_str))
        .args(arguments.iter().skip(1))
        .env(CHOICES[0], TURNS)
        .exec();
    tracing::debug!("threads wait as OpenMP has it: {error}");
}

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
