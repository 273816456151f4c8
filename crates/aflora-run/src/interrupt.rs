//! SIGINT and SIGTERM: the first asks a run to stop where nothing is lost, the second ends the
//! process at once. And SIGPIPE, which says that nobody reads what is printed. This module's unsafe code:
//! the registering of what a signal does.

use signal_hook::consts::{SIGINT, SIGPIPE, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// The signal that came, 0 before. A process has one set of signals, so there is one of these.
static CAME: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// A signal asked the run to stop, and it did.
#[derive(Debug, thiserror::Error)]
#[error("stopped by {}", if *.0 == SIGINT { "SIGINT" } else { "SIGTERM" })]
pub struct Interrupted(pub i32);

impl Interrupted {
    /// By a signal that came to another of the processes that work together.
    pub fn elsewhere() -> Self {
        Interrupted(SIGTERM)
    }

    /// As shells have it: 130 for SIGINT, 143 for SIGTERM.
    pub fn exit_code(&self) -> u8 {
        128 + self.0 as u8
    }
}

/// From now on, signals are kept for [`check`].
///
/// # Errors
/// The system refuses.
pub fn listen() -> io::Result<()> {
    let came = CAME.get_or_init(Default::default);
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let (came, again) = (came.clone(), again.clone());
        let act = move || {
            came.store(signal as usize, Ordering::Relaxed);
            // In one operation: two signals may come at once, each to a thread of its own.
            if again.swap(true, Ordering::Relaxed) {
                signal_hook::low_level::exit(128 + signal);
            }
        };
        // SAFETY: it stores to atomics, and ends the process without running anything of it.
        unsafe { signal_hook::low_level::register(signal, act) }?;
    }
    Ok(())
}

/// Ends what can be ended here if a signal came.
///
/// # Errors
/// A signal came.
pub fn check() -> Result<(), Interrupted> {
    match CAME.get().map_or(0, |came| came.load(Ordering::Relaxed)) {
        0 => Ok(()),
        signal => Err(Interrupted(signal as i32)),
    }
}

/// From now on the process ends quietly where it prints for a reader that is gone, as programs do
/// that are not in Rust: `aflora predict … | head` is no error.
///
/// # Errors
/// The system refuses.
pub fn end_with_the_reader() -> io::Result<()> {
    flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true))).map(drop)
}

/// SIGINT for those who go on after it: a conversation, whose answer alone ends.
#[derive(Debug)]
pub struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    /// From now on SIGINT does not end the process, but is kept here.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        flag::register(SIGINT, came.clone())?;
        Ok(Interrupts(came))
    }

    /// Whether one came.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets what came be.
    pub fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
