//! The path that LoRA, AdaLoRA and SoRA share: y = W0 x + s · B (m ⊙ (A x)), in which LoRA has no
//! middle m, AdaLoRA its singular values and SoRA its gate. What starts as part of W0 is taken off
//! it: - s · B0 A0 x, frozen.

use super::components::in_use;
use super::init::constant;
use super::side_path::SidePath;
use super::site::Site;
use super::tensor::{AdapterTensor, TensorSpec};
use super::traits::{Adapter, LowRank};
use crate::error::check;
use crate::flops::{self, Flops, Products};
use crate::nn::shapes_suffice;
use crate::weight::FrozenWeight;
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
    /// A0, `[rank, in_features]`, and -B0, `[out_features, rank]`, where A and B started as part of
    /// W0.
    start: Option<[Tensor; 2]>,
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
            start: None,
            scale,
            dropout,
            training: false,
        }
    }

    /// Takes what the path is now, of no middle, off W0.
    pub fn starting_within(self) -> Self {
        let (a, b) = (self.a.detach(), self.b.detach());
        let start = match shapes_suffice() {
            true => [a, b],
            false => [a.copy(), b.neg()],
        };
        Factored { start: Some(start), ..self }
    }

    /// Leaves A as it is from the start.
    pub fn without_a(mut self) -> Self {
        self.a = self.a.set_requires_grad(false);
        self
    }

    /// A and B with what is taken off W0 behind them: [A; A0] and [B, -B0].
    fn whole(&self) -> [Tensor; 2] {
        match &self.start {
            None => [self.a.shallow_clone(), self.b.shallow_clone()],
            Some([a, b]) => [Tensor::cat(&[&self.a, a], 0), Tensor::cat(&[&self.b, b], 1)],
        }
    }

    fn side_path(&self) -> SidePath {
        let dropout = self.training.then_some(self.dropout);
        // The kernels put a scale on by themselves.
        let ([down, up], scale) = match &self.middle {
            None => (self.whole(), self.scale),
            Some(_) => {
                let LowRank { down, up } = self.pair();
                ([down, up], 1.0)
            }
        };
        SidePath { down, d: None, up, b: None, scale, dropout }
    }

    fn pair(&self) -> LowRank {
        let [down, up] = self.whole();
        // The scale goes onto A, the smaller matrix of most layers.
        let down = match &self.middle {
            None => down * self.scale,
            Some(middle) => down * (middle.reshape([-1, 1]) * self.scale),
        };
        LowRank { down, up }
    }
}

impl Adapter for Factored {
    fn site(&self) -> &Arc<Site> {
        &self.site
    }

    fn forward(&self, x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor {
        self.side_path().forward(x, weight, bias)
    }

    fn path(&self) -> Option<SidePath> {
        Some(self.side_path())
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.pair())
    }

    fn scale(&self) -> f64 {
        self.scale
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

    fn flops_per_token(&self) -> Flops {
        let Site { in_features, out_features, .. } = *self.site;
        let rank = self.rank() * if self.start.is_some() { 2 } else { 1 };
        flops::path((in_features, out_features), rank, self.products(), 1, true)
    }

    /// Of a path that started within W0, A and B are those beside the untouched W0, of twice the
    /// rank.
    fn saved(&self) -> Vec<AdapterTensor> {
        let mut tensors = self.tensors();
        if self.start.is_some() {
            for (saved, whole) in tensors.iter_mut().zip(tch::no_grad(|| self.whole())) {
                saved.tensor = whole;
            }
        }
        match &self.middle {
            Some(middle) => in_use(tensors, middle),
            None => tensors,
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
