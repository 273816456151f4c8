//! The middle of a gated feed-forward layer.

use aflora_cuda::ops;
use tch::Tensor;

pub use aflora_cuda::ops::GateActivation;

/// act(gate) ⊙ up (Shazeer 2020), in their kind. `fused` is the activation that a kernel may compute, `act` any.
///
/// `gate` and `up`: `[.., wide]`; gives `[.., wide]`.
pub fn gated(
    gate: &Tensor,
    up: &Tensor,
    fused: Option<GateActivation>,
    act: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let made = fused.and_then(|activation| ops::gated(gate, Some(up), activation));
    made.unwrap_or_else(|| act(gate) * up)
}

/// As [`gated`], of what one layer made: `both` is `[.., 2 wide]`, the gate and then the other; gives
/// `[.., wide]`.
pub fn gated_halves(
    both: &Tensor,
    fused: Option<GateActivation>,
    act: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let made = fused.and_then(|activation| ops::gated(both, None, activation));
    made.unwrap_or_else(|| {
        let parts = both.chunk(2, -1);
        act(&parts[0]) * &parts[1]
    })
}
