//! From which length on attention goes by tiles.

use aflora_cuda::ops;
use std::sync::atomic::{AtomicI64, Ordering};
use tch::Tensor;

/// All lengths: by tiles a step of DeBERTaV3-base's shape was never slower, from 32 tokens on (docs/performance.md).
static FROM: AtomicI64 = AtomicI64::new(0);

/// Sets the length in tokens from which on this process computes attention by tiles where it can: for
/// tests and measurements.
pub fn tile_from(length: i64) {
    FROM.store(length, Ordering::Relaxed);
}

/// Whether attention without positions goes by tiles, as [`tiles`] says of attention with them: where that is
/// quicker than libtorch's (docs/performance.md).
pub fn tiles_without_positions(x: &Tensor, size: i64, length: i64) -> bool {
    let most = match size {
        32 => 512,
        64 => 192,
        _ => 0,
    };
    length <= most && tiles(x, size, length)
}

/// Whether attention over `length` tokens by heads of `size` numbers goes by tiles, in the kind of `x`,
/// `[..]`, and on its device.
pub fn tiles(x: &Tensor, size: i64, length: i64) -> bool {
    length >= FROM.load(Ordering::Relaxed) && ops::tiles(x, size, length)
}
