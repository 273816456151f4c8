//! The path that LoRA, AdaLoRA and SoRA share: y = W0 x + s · B (m ⊙ (A x)), in which LoRA has no
//! middle m, AdaLoRA its singular values and SoRA its gate.

use super::components::in_use;
use super::init::constant;
use super::site::Site;
use super::tensor::{AdapterTensor, TensorSpec};
use super::traits::{Adapter, LowRank};
use crate::error::check;
use crate::flops::Products;
use crate::kernels::{self, LowRankPath};
use crate::Result;
use std::sync::Arc;
use tch::Tensor;

/// A low-rank path of A, a middle and B, as LoRA, AdaLoRA and SoRA have it.
#[derive(Debug)]
pub(super) struct Factored {
    site: Arc<Site>,
    /// What A, B and the middle are called.
    specs: &'static [TensorSpec],
    /// Down-projection A, `[rank, in_features]`.
    a: Tensor,
    /// Up-projection B, `[out_features, rank]`.
    b: Tensor,
    /// m, `[rank, 1]` or `[1, rank]`, if there is one.
    middle: Option<Tensor>,
    /// s, of the rank at the start, whatever is left of it.
    scale: f64,
    dropout: f64,
    training: bool,
}

impl Factored {
    /// A path that trains all of its tensors: A `[rank, in_features]`, B `[out_features, rank]`
    /// and, if there is one, the middle, in the order of `specs`.
    pub fn new(
        site: &Arc<Site>,
        specs: &'static [TensorSpec],
        [a, b]: [Tensor; 2],
        middle: Option<Tensor>,
        scale: f64,
        dropout: f64,
    ) -> Self {
        Factored {
            site: site.clone(),
            specs,
            a: a.set_requires_grad(true),
            b: b.set_requires_grad(true),
            middle: middle.map(|middle| middle.set_requires_grad(true)),
            scale,
            dropout,
            training: false,
        }
    }

    /// s · m ⊙ A, rows scaled, `[rank, in_features]`: A is the smaller matrix of most layers.
    fn down(&self) -> Tensor {
        match &self.middle {
            None => &self.a * self.scale,
            Some(middle) => &self.a * (middle.reshape([-1, 1]) * self.scale),
        }
    }

    fn pair(&self) -> LowRank {
        LowRank { down: self.down(), up: self.b.shallow_clone() }
    }
}

impl Adapter for Factored {
    fn site(&self) -> &Arc<Site> {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let dropout = self.training.then_some(self.dropout);
        let folded = self.middle.as_ref().map(|_| self.down());
        // The kernels put a scale on by themselves.
        let (down, scale) = folded.as_ref().map_or((&self.a, self.scale), |down| (down, 1.0));
        let path = LowRankPath { down, d: None, up: &self.b, b: None, scale };
        kernels::low_rank(x, weight, bias, &path, dropout)
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.pair())
    }

    fn merged(&self, weight: &Tensor) -> Tensor {
        self.pair().merged(weight)
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        let tensors = [&self.a, &self.b].into_iter().chain(&self.middle);
        self.specs.iter().zip(tensors).map(|(spec, t)| AdapterTensor::new(*spec, t)).collect()
    }

    fn set_training(&mut self, on: bool) {
        self.training = on;
    }

    fn products(&self) -> Products {
        // What stands between is folded into A, so its gradient takes that of A.
        let middle = self.middle.as_ref().is_some_and(Tensor::requires_grad);
        Products { down: middle || self.a.requires_grad(), up: self.b.requires_grad() }
    }

    fn rank(&self) -> i64 {
        self.a.size()[0]
    }

    fn saved(&self) -> Vec<AdapterTensor> {
        match &self.middle {
            Some(middle) => in_use(self.tensors(), middle),
            None => self.tensors(),
        }
    }

    fn set_rank(&mut self, rank: i64) -> Result<()> {
        let Some(middle) = &mut self.middle else {
            return check("rank", rank, rank == self.rank(), "the rank of every other layer");
        };
        let column = middle.size()[1] == 1;
        for (tensor, shape) in [
            (&mut self.a, [rank, self.site.in_features]),
            (&mut self.b, [self.site.out_features, rank]),
            (middle, if column { [rank, 1] } else { [1, rank] }),
        ] {
            *tensor = constant(shape, 0.0, tensor.device()).set_requires_grad(true);
        }
        Ok(())
    }
}
