//! Blocks one after the other.

use aflora_core::Checkpoints;
use tch::Tensor;

/// Runs `blocks` on `x`, each on what the one before gave. With `checkpointing`, each keeps its
/// input alone, and runs once more in the backward pass, which goes through what is given beside.
pub(crate) fn chain<B: Fn(&Tensor) -> Tensor + 'static>(
    x: Tensor,
    blocks: impl Iterator<Item = B>,
    checkpointing: bool,
) -> (Tensor, Checkpoints) {
    if !checkpointing {
        return (blocks.fold(x, |x, block| block(&x)), Checkpoints::default());
    }
    let mut checkpoints = Checkpoints::new(true);
    let x = blocks.fold(x, |x, block| checkpoints.run(&x, block));
    (x, checkpoints)
}
