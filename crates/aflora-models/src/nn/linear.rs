//! Linear layers as the models of ours make them: with zeros, which cost nothing to make, and are
//! loaded over or initialised by name before they are used.

use aflora_core::nn;
use tch::Tensor;

pub(crate) fn with_bias(config: nn::LinearConfig, bias: bool) -> nn::LinearConfig {
    nn::LinearConfig { bias, ..config }
}

pub(crate) fn zeros() -> nn::LinearConfig {
    let zero = nn::Init::Const(0.0);
    nn::LinearConfig { ws_init: zero, bs_init: Some(zero), bias: true }
}

pub(crate) fn dropout(x: Tensor, p: f64, train: bool) -> Tensor {
    if train && p > 0.0 {
        x.dropout(p, true)
    } else {
        x
    }
}
