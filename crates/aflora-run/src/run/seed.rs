//! What libtorch's generators start from in a step, on every device.
//!
//! Dropout then depends on the seed and the step alone, not on what was drawn before: a run that
//! goes on from a checkpoint draws what it would have drawn, and no generator's state has to be
//! kept.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Of the step behind `step` completed ones, on this of the processes that train together: each has
/// rows of its own, and what is dropped of them is its own.
pub fn of_step(seed: u64, step: u64, rank: usize) -> i64 {
    // Streams of low numbers order the rows of an epoch.
    const FIRST: u64 = 1 << 32;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(FIRST + step);
    (0..rank).fold(random.next_u64(), |_, _| random.next_u64()) as i64
}
