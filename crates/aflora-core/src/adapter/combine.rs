//! Several adapters of one layer made into one: task arithmetic, TIES (Yadav et al. 2023), DARE (Yu
//! et al. 2024) and pruning by magnitude, with the arithmetic of PEFT's `add_weighted_adapter`.
//!
//! [`How::Cat`] is the exact sum of what the adapters add to the weight. [`How::Svd`] and its kin
//! (`ties_svd` and so on) combine what each adds, and take the best approximation of a rank. In all
//! others, A and B are combined each by itself, weighted by the root of the weight: B A of the result
//! holds products of one adapter's B with another's A, as PEFT's does.

use super::init::bernoulli;
use super::traits::LowRank;
use crate::error::check;
use crate::{Error, Result};
use std::str::FromStr;
use tch::{Kind, Tensor};

/// How adapters are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// The weighted sums of the As and of the Bs.
    Linear,
    /// The weighted sum of what they add to the weight: one rank behind the other.
    Cat,
    /// The same, of the largest rank among them or another that is named.
    Svd,
    /// Pruned by magnitude; of what agrees with the elected sign, the mean.
    Ties,
    /// Elements dropped at random and the others scaled up, then as linear.
    DareLinear,
    /// Elements dropped at random and the others scaled up, then the mean of what agrees in sign.
    DareTies,
    /// Pruned by magnitude, then as linear.
    MagnitudePrune,
    /// As ties, of what the adapters add to the weight, of a rank.
    TiesSvd,
    /// As dare_linear, of the same.
    DareLinearSvd,
    /// As dare_ties, of the same.
    DareTiesSvd,
    /// As magnitude_prune, of the same.
    MagnitudePruneSvd,
}

impl How {
    /// All of them with their names, which are PEFT's.
    pub const ALL: [(&'static str, How); 11] = [
        ("linear", How::Linear),
        ("cat", How::Cat),
        ("svd", How::Svd),
        ("ties", How::Ties),
        ("dare_linear", How::DareLinear),
        ("dare_ties", How::DareTies),
        ("magnitude_prune", How::MagnitudePrune),
        ("ties_svd", How::TiesSvd),
        ("dare_linear_svd", How::DareLinearSvd),
        ("dare_ties_svd", How::DareTiesSvd),
        ("magnitude_prune_svd", How::MagnitudePruneSvd),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, how)| *how == self).map_or("", |(name, _)| name)
    }

    /// Whether elements are left out, so that a density has a say.
    pub fn prunes(self) -> bool {
        !matches!(self, How::Linear | How::Cat | How::Svd)
    }

    /// Whether it is of what the adapters add to the weight, whatever their ranks, and of a rank that
    /// can be named.
    pub fn is_of_a_rank(self) -> bool {
        use How::*;
        matches!(self, Svd | TiesSvd | DareLinearSvd | DareTiesSvd | MagnitudePruneSvd)
    }

    /// Whether elements are dropped at random.
    fn drops(self) -> bool {
        use How::*;
        matches!(self, DareLinear | DareTies | DareLinearSvd | DareTiesSvd)
    }

    /// Whether a sign is elected.
    fn elects(self) -> bool {
        matches!(self, How::Ties | How::DareTies | How::TiesSvd | How::DareTiesSvd)
    }
}

impl FromStr for How {
    type Err = Error;

    fn from_str(name: &str) -> Result<How> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
        found.map(|(_, how)| *how).ok_or_else(|| Error::Setting {
            field: "how",
            value: name.into(),
            expected: format!("one of {}", names.join(", ")).into(),
        })
    }
}

/// Which sign of an element wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Majority {
    /// That of the sum.
    #[default]
    Total,
    /// That of most adapters.
    Frequency,
}

/// A way to combine and its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Combination {
    /// The way.
    pub how: How,
    /// The share of elements that is left of each adapter, where some are left out.
    pub density: f64,
    /// Which sign wins, where one is elected.
    pub majority: Majority,
    /// The rank of what is [of a rank](How::is_of_a_rank); the largest of the adapters' if not given.
    pub rank: Option<i64>,
    /// Draws which elements are dropped.
    pub seed: u64,
}

/// One adapter of a layer, W = W0 + scale · B A, and what it counts for.
#[derive(Debug)]
pub struct Part {
    /// A, `[rank, in_features]`.
    pub a: Tensor,
    /// B, `[out_features, rank]`.
    pub b: Tensor,
    /// s.
    pub scale: f64,
    /// Its weight in the combination; below zero takes away what it learned.
    pub weight: f64,
}

impl Combination {
    /// Checks every range.
    ///
    /// # Errors
    /// The density leaves nothing, or more than there is; or the rank is 0 or less.
    pub fn validate(&self) -> Result<()> {
        let (density, rank) = (self.density, self.rank.unwrap_or(1));
        check("density", density, density > 0.0 && density <= 1.0, "above 0 and at most 1")?;
        check("rank", rank, rank >= 1, "at least 1")
    }

    /// The one adapter that `parts`, those of the layer `site`, are combined into. It is
    /// W = W0 + up · down, in fp32.
    ///
    /// # Errors
    /// There is none, a weight is no number, or ranks differ where A and B are combined each by itself.
    pub fn of(&self, site: &str, parts: &[Part]) -> Result<LowRank> {
        self.validate()?;
        for part in parts {
            check("weight", part.weight, part.weight.is_finite(), "a finite number")?;
        }
        let ranks: Vec<i64> = parts.iter().map(|part| part.a.size()[0]).collect();
        let most = ranks.iter().copied().max().unwrap_or(0);
        check("adapters", parts.len(), most > 0, "at least one of a rank above 0")?;
        tch::no_grad(|| match self.how {
            How::Cat => Ok(concatenated(parts)),
            how if how.is_of_a_rank() => {
                let added = parts.iter().enumerate().map(|(i, part)| {
                    let [a, b] = [&part.a, &part.b].map(|t| t.to_kind(Kind::Float));
                    let added = b.matmul(&a) * part.scale;
                    (self.pruned(&added, &format!("{site}.{i}")), part.weight)
                });
                let (u, s, v) = self.sum(added.collect()).f_svd(true, true)?;
                let rank = self.rank.unwrap_or(most).min(s.size()[0]);
                let up = u.narrow(1, 0, rank) * s.narrow(0, 0, rank);
                Ok(LowRank { down: v.narrow(1, 0, rank).tr(), up })
            }
            _ => {
                let least = ranks.iter().copied().min().unwrap_or(0);
                let expected =
                    format!("the same of all ({least} of another): `cat` and `…svd` take any");
                check("rank", most, most == least, expected)?;
                let side = |name: &str, of: &dyn Fn(&Part) -> (&Tensor, f64)| {
                    let tensors = parts.iter().enumerate().map(|(i, part)| {
                        let (tensor, factor) = of(part);
                        (self.pruned(tensor, &format!("{site}.{name}.{i}")), factor)
                    });
                    self.sum(tensors.collect())
                };
                // The sign goes onto one side alone: on both it would be lost.
                let root = |part: &Part| (part.weight * part.scale).abs().sqrt();
                let signed = |part: &Part| root(part).copysign(part.weight * part.scale);
                let down = side("lora_A", &|part| (&part.a, signed(part)));
                let up = side("lora_B", &|part| (&part.b, root(part)));
                Ok(LowRank { down, up })
            }
        })
    }

    /// What is left of a matrix, fp32.
    fn pruned(&self, tensor: &Tensor, name: &str) -> Tensor {
        let tensor = tensor.to_kind(Kind::Float);
        if self.density >= 1.0 || !self.how.prunes() {
            return tensor;
        }
        if self.how.drops() {
            let kept = bernoulli(&tensor.size(), self.density, self.seed, name);
            return &tensor * kept.to_device(tensor.device()) / self.density;
        }
        let keep = (self.density * tensor.numel() as f64) as i64;
        let (_, places) = tensor.abs().reshape([-1]).topk(keep, 0, true, false);
        let mask = tensor.zeros_like().reshape([-1]).index_fill(0, &places, 1.0);
        &tensor * mask.view_as(&tensor)
    }

    /// The weighted sum of matrices of one shape; with an elected sign, over those of that sign and
    /// divided by their number.
    fn sum(&self, tensors: Vec<(Tensor, f64)>) -> Tensor {
        let (tensors, factors): (Vec<Tensor>, Vec<f64>) = tensors.into_iter().unzip();
        let all = Tensor::stack(&tensors, 0);
        let factors = Tensor::from_slice(&factors).to_kind(Kind::Float).to_device(all.device());
        let weighted = &all * factors.view([-1, 1, 1]);
        let sum = |t: Tensor| t.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        if !self.how.elects() {
            return sum(weighted);
        }
        let sign = all.sign();
        let votes = match self.majority {
            Majority::Total => sum(all),
            Majority::Frequency => sum(sign.shallow_clone()),
        };
        // Of votes that cancel, the positive sign wins; a zero agrees with neither.
        let elected = votes.ge(0.0).to_kind(Kind::Float) * 2.0 - 1.0;
        let agrees = sign.eq_tensor(&elected).to_kind(Kind::Float);
        sum(weighted * &agrees) / sum(agrees).clamp_min(1.0)
    }
}

/// Σ weight · scale · B A as one pair of all their ranks.
fn concatenated(parts: &[Part]) -> LowRank {
    let float = |t: &Tensor| t.to_kind(Kind::Float);
    let downs: Vec<Tensor> =
        parts.iter().map(|part| float(&part.a) * (part.weight * part.scale)).collect();
    let ups: Vec<Tensor> = parts.iter().map(|part| float(&part.b)).collect();
    LowRank { down: Tensor::cat(&downs, 0), up: Tensor::cat(&ups, 1) }
}
