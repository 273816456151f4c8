//! From which length on attention goes by tiles.

use aflora_cuda::ops;
use std::sync::atomic::{AtomicI64, Ordering};
use tch::Tensor;

/// On an H100, DeBERTaV3-base's step takes 1.02 times as long by tiles at 32 x 128 tokens, 0.99 times at 16 x 256, 0.85
/// times at 16 x 512 and 0.66 times at 4 x 1024 (docs/performance.md).
const TILED_FROM: i64 = 256;

static FROM: AtomicI64 = AtomicI64::new(TILED_FROM);

/// Sets the length in tokens from which on this process computes attention by tiles where it can: for
/// tests and measurements.
pub fn tile_from(length: i64) {
    FROM.store(length, Ordering::Relaxed);
}

/// Whether attention over `length` tokens by heads of `size` numbers goes by tiles, in the kind of `x`,
/// `[..]`, and on its device.
pub fn tiles(x: &Tensor, size: i64, length: i64) -> bool {
    length >= FROM.load(Ordering::Relaxed) && ops::tiles(x, size, length)
}
