//! What draws from libtorch's generator, or is compared under one of its seeds.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod checkpointing;
#[path = "../common/mod.rs"]
mod common;
mod noise;
mod packing;

/// One test at a time: the generator is one for all threads, and would serve another's draws between
/// a seed and its own.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
