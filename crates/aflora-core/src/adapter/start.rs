//! Starts of A and B that are part of the layer's weight, with PEFT's arithmetic: PiSSA (Meng et
//! al. 2024) and OLoRA (Büyükakyüz 2024).
//!
//! The weight loses what the path starts with, so that the model is unchanged at first:
//! y = (W0 - s · B0 A0) x + s · B A x. PEFT writes the difference into the model's weight; here W0
//! stays as it is, whatever its precision, and the path is [A; A0] and [B, -B0] of twice the
//! rank. That is also how such an adapter is saved: as plain LoRA beside the untouched W0.

use super::init::{constant, normal};
use super::site::Layer;
use crate::error::check;
use crate::nn::shapes_suffice;
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// What A and B are at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Init {
    /// A random, B zero.
    #[default]
    Standard,
    /// The weight's largest singular values with their vectors.
    Pissa,
    /// The first columns of Q and rows of R of the weight's QR decomposition.
    Olora,
}

impl Init {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Init::Standard => "standard",
            Init::Pissa => "pissa",
            Init::Olora => "olora",
        }
    }

    /// A `[rank, in_features]` and B `[out_features, rank]` from the weight of `layer`, for a path
    /// scaled by `scale`; none where they are not part of it. With `niter`, PiSSA's decomposition
    /// is that of [`svd_lowrank`]; the values are drawn by `seed` and the layer's name.
    ///
    /// Computed on the weight's device, in fp32. Of a layer of which only the shape is known, zeros.
    ///
    /// # Errors
    /// The weight has no such rank, or libtorch finds no decomposition of it.
    pub(super) fn of_weight(
        self,
        layer: &Layer,
        rank: i64,
        scale: f64,
        niter: Option<u32>,
        seed: u64,
        device: Device,
    ) -> Result<Option<[Tensor; 2]>> {
        if self == Init::Standard {
            return Ok(None);
        }
        let (from, to) = (layer.site.in_features, layer.site.out_features);
        let most = from.min(to);
        let expected = format!(
            "at most {most} with `init: {}`: `{}` has no more",
            self.name(),
            layer.site.name
        );
        check("rank", rank, rank <= most, expected)?;
        let Some(weight) = layer.weight.as_ref().filter(|_| !shapes_suffice()) else {
            let zeros = |shape| constant(shape, 0.0, device);
            return Ok(Some([zeros([rank, from]), zeros([to, rank])]));
        };
        let pair = match niter {
            None => self.of_matrix(&weight.numbers(), rank, scale)?,
            Some(niter) => tch::no_grad(|| {
                let weight = weight.numbers().to_kind(Kind::Float);
                let parts = svd_lowrank(&weight, rank, niter, seed, &layer.site.name)?;
                Ok::<_, crate::Error>(Some(halves(parts, rank, scale)?))
            })?,
        };
        Ok(pair.map(|pair| pair.map(|t| t.contiguous().to_device(device))))
    }

    /// A `[rank, in_features]` and B `[out_features, rank]` of `weight`, `[out_features,
    /// in_features]`, so that scale · B A is the part of it that they start as; none where they are
    /// no part of it. In single precision, on the weight's device.
    ///
    /// # Errors
    /// The weight has no such rank, or libtorch finds no decomposition of it.
    pub fn of_matrix(self, weight: &Tensor, rank: i64, scale: f64) -> Result<Option<[Tensor; 2]>> {
        tch::no_grad(|| {
            let weight = || weight.detach().to_kind(Kind::Float);
            Ok(match self {
                Init::Standard => None,
                Init::Pissa => Some(halves(weight().f_svd(true, true)?, rank, scale)?),
                Init::Olora => {
                    let (q, r) = Tensor::f_linalg_qr(&weight(), "reduced")?;
                    Some([r.f_narrow(0, 0, rank)?, q.f_narrow(1, 0, rank)?])
                }
            })
        })
    }
}

/// The `rank` first of U, S and V of U S Vᵀ as A and B, a root of S / `scale` on each.
fn halves((u, s, v): (Tensor, Tensor, Tensor), rank: i64, scale: f64) -> Result<[Tensor; 2]> {
    let root = (s.f_narrow(0, 0, rank)? / scale).sqrt();
    let down = v.f_narrow(1, 0, rank)?.tr() * root.unsqueeze(1);
    Ok([down, u.f_narrow(1, 0, rank)? * root])
}

/// The `rank` largest singular values of `weight`, nearly, with their vectors: U `[rows, rank]`, S
/// `[rank]`, V `[columns, rank]`. Randomised subspace iteration (Halko et al. 2011, algorithms 4.4
/// and 5.1), as PyTorch's `svd_lowrank` has it; `niter` rounds.
fn svd_lowrank(
    weight: &Tensor,
    rank: i64,
    niter: u32,
    seed: u64,
    site: &str,
) -> Result<(Tensor, Tensor, Tensor)> {
    let [rows, columns] = [weight.size()[0], weight.size()[1]];
    let wide = rows < columns;
    let tall = if wide { weight.tr() } else { weight.shallow_clone() };
    let basis =
        |product: Tensor| Ok::<_, crate::Error>(Tensor::f_linalg_qr(&product, "reduced")?.0);
    let random = normal(&[rows.min(columns), rank], 1.0, seed, &format!("{site}.pissa"));
    let mut q = basis(tall.matmul(&random.to_device(weight.device())))?;
    for _ in 0..niter {
        q = basis(tall.tr().matmul(&q))?;
        q = basis(tall.matmul(&q))?;
    }
    let (u, s, v) = q.tr().matmul(&tall).f_svd(true, true)?;
    let u = q.matmul(&u);
    Ok(if wide { (v, s, u) } else { (u, s, v) })
}
