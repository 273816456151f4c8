//! LayerNorm whose epsilon can be set from outside while a model is built.
//!
//! rust-bert has 1e-12 in the code of several models whose checkpoints say otherwise (RoBERTa's
//! say 1e-5).

use std::borrow::Borrow;
use std::cell::Cell;
use tch24::nn::{LayerNorm, LayerNormConfig, Path};

thread_local! {
    static EPS: Cell<Option<f64>> = const { Cell::new(None) };
}

/// Runs `build`; every LayerNorm made on the way gets `eps`.
pub fn with_layer_norm_eps<T>(eps: f64, build: impl FnOnce() -> T) -> T {
    /// Sets it back even where `build` panics and someone above goes on.
    struct Before(Option<f64>);
    impl Drop for Before {
        fn drop(&mut self) {
            EPS.set(self.0);
        }
    }
    let _before = Before(EPS.replace(Some(eps)));
    build()
}

/// Creates a new LayerNorm.
pub fn layer_norm<'a, T: Borrow<Path<'a>>>(
    vs: T,
    normalized_shape: Vec<i64>,
    config: LayerNormConfig,
) -> LayerNorm {
    let eps = EPS.get().unwrap_or(config.eps);
    tch24::nn::layer_norm(vs, normalized_shape, LayerNormConfig { eps, ..config })
}
