//! Rotary position embeddings (Su et al. 2021): queries and keys are turned by angles that grow
//! with their position, so that their product depends on their distance.
//!
//! Angles are computed in single precision and only their cosines and sines cast: bf16 cannot
//! tell position 257 from 258.

use aflora_core::kernels;
use tch::{Device, Kind, Tensor};

pub(crate) use aflora_core::kernels::RotaryPairs;

/// Cosines and sines of positions, `[batch or 1, 1, length, size / 2]` each, where `size` elements
/// of a head are turned.
pub(crate) type Rotation = (Tensor, Tensor);

/// How angles grow with positions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    pub frequencies: Frequencies,
    /// What cosines and sines are multiplied by.
    pub amplitude: f64,
}

/// The frequencies of the angles, half as many as a head has elements that are turned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frequencies {
    /// The same for every text.
    Fixed(Vec<f64>),
    /// `short` of texts up to `original` tokens, `long` of longer ones (Ding et al. 2024).
    ByLength { short: Vec<f64>, long: Vec<f64>, original: i64 },
    /// θ^(-2i / size), where θ grows with the text beyond `original` tokens ("dynamic NTK").
    Dynamic { theta: f64, size: i64, factor: f64, original: i64 },
}

impl Rope {
    pub(crate) fn fixed(frequencies: Vec<f64>) -> Self {
        Rope { frequencies: Frequencies::Fixed(frequencies), amplitude: 1.0 }
    }
}

/// θ^(-2i / size) for i below size / 2.
pub(crate) fn powers(theta: f64, size: i64) -> Vec<f64> {
    (0..size / 2).map(|i| theta.powf(-2.0 * i as f64 / size as f64)).collect()
}

/// A [`Rope`] on its device.
#[derive(Debug)]
pub(crate) struct Rotary {
    rope: Rope,
    /// `[size / 2]` each, fp32: the frequencies, and those of long texts.
    tables: Vec<Tensor>,
}

impl Rotary {
    pub(crate) fn new(rope: Rope, device: Device) -> Self {
        let table =
            |list: &Vec<f64>| Tensor::from_slice(list).to_kind(Kind::Float).to_device(device);
        let tables = match &rope.frequencies {
            Frequencies::Fixed(list) => vec![table(list)],
            Frequencies::ByLength { short, long, .. } => vec![table(short), table(long)],
            Frequencies::Dynamic { .. } => Vec::new(),
        };
        Rotary { rope, tables }
    }

    /// Those of texts whose positions are `positions`, `[size / 2]`, without waiting for the
    /// device to tell how long they are.
    fn frequencies(&self, positions: &Tensor) -> Tensor {
        let longest = || positions.max() + 1;
        match self.rope.frequencies {
            Frequencies::Fixed(_) => self.tables[0].shallow_clone(),
            Frequencies::ByLength { original, .. } => {
                self.tables[1].where_self(&longest().gt(original), &self.tables[0])
            }
            Frequencies::Dynamic { theta, size, factor, original } => {
                let length = longest().clamp_min(original).to_kind(Kind::Double);
                let stretch = length * (factor / original as f64) - (factor - 1.0);
                let size_of = size as f64;
                let theta = stretch.pow_tensor_scalar(size_of / (size_of - 2.0)) * theta;
                let steps = Tensor::arange(size / 2, (Kind::Double, positions.device()));
                (theta.log() * steps * (-2.0 / size_of)).exp().to_kind(Kind::Float)
            }
        }
    }

    /// Of positions `[batch or 1, length]`.
    pub(crate) fn at(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let angles = positions.to_kind(Kind::Float).unsqueeze(2) * self.frequencies(positions);
        let angles = angles.unsqueeze(1);
        let scaled = |x: Tensor| match self.rope.amplitude {
            1.0 => x.to_kind(kind),
            amplitude => (x * amplitude).to_kind(kind),
        };
        (scaled(angles.cos()), scaled(angles.sin()))
    }

    /// The length beyond which all positions of a text turn otherwise than before.
    pub(crate) fn turns_anew_at(&self) -> Option<i64> {
        match self.rope.frequencies {
            Frequencies::ByLength { original, .. } => Some(original),
            Frequencies::Fixed(_) | Frequencies::Dynamic { .. } => None,
        }
    }
}

/// Queries and keys, `[batch, heads, length, size]`, turned by the angles of their positions.
pub(crate) fn rotate(
    query: &Tensor,
    key: &Tensor,
    (cos, sin): &Rotation,
    pairs: RotaryPairs,
) -> [Tensor; 2] {
    kernels::rotary(query, key, (cos, sin), pairs)
}
