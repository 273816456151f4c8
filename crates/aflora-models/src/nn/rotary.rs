//! Rotary position embeddings (Su et al. 2021): queries and keys are turned by angles that grow
//! with their position, so that their product depends on their distance.
//!
//! Angles are computed in single precision and only their cosines and sines cast: bf16 cannot
//! tell position 257 from 258.

use tch::{Device, Kind, Tensor};

/// Frequencies of the angles.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// `[size / 2]`, fp32.
    frequencies: Tensor,
}

impl Rotary {
    pub(crate) fn new(frequencies: &[f64], device: Device) -> Self {
        let frequencies = Tensor::from_slice(frequencies).to_kind(Kind::Float).to_device(device);
        Rotary { frequencies }
    }

    /// Cosines and sines for positions `[batch or 1, length]`: `[batch or 1, 1, length, size/2]`.
    pub(crate) fn at(&self, positions: &Tensor, kind: Kind) -> (Tensor, Tensor) {
        let angles = positions.to_kind(Kind::Float).unsqueeze(2) * &self.frequencies;
        let angles = angles.unsqueeze(1);
        (angles.cos().to_kind(kind), angles.sin().to_kind(kind))
    }
}

/// Rotates `x`, `[batch, heads, length, size]`, by the angles of its positions, element i with
/// element i + size/2, as LLaMA does.
pub(crate) fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Tensor {
    let half = x.size()[3] / 2;
    let (a, b) = (x.narrow(3, 0, half), x.narrow(3, half, half));
    Tensor::cat(&[&a * cos - &b * sin, b * cos + a * sin], 3)
}

/// Rotates `x` as [`rotate`] does, but element 2i with element 2i + 1, as GPT-J does.
pub(crate) fn rotate_interleaved(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Tensor {
    let (a, b) = (x.slice(3, 0, None, 2), x.slice(3, 1, None, 2));
    Tensor::stack(&[&a * cos - &b * sin, b * cos + a * sin], -1).flatten(3, 4)
}
