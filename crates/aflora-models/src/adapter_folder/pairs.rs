//! LoRA's matrices as a folder has them, and as they are here: of one rank, on one scale, beside the
//! base model's own weights.
//!
//! PEFT has a rank and an α for each layer (`rank_pattern`, `alpha_pattern`), and starts
//! (`init_lora_weights`) that take out of the weight, when the adapter is attached, what A and B
//! began with: W = (W₀ - s · B₀ A₀) + s · B A. All of it is LoRA of one rank and one scale s₀ with
//! A' = [A; A₀; 0] and B' = [B, -B₀, 0] · s / s₀, to which PEFT's own conversion leads, too.

use super::names::ROOT;
use super::peft::FILE;
use crate::weights::Checkpoint;
use crate::{Error, Result};
use aflora_core::adapter::{AdapterTensor, DoraConfig, MethodConfig};
use aflora_core::weight::FrozenWeight;
use aflora_core::Injected;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// What the matrices of each layer are called in a folder.
const MATRICES: [&str; 2] = ["lora_A.weight", "lora_B.weight"];

/// What A and B begin with, and the weight no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TakenOut {
    /// The largest singular values with their vectors (PiSSA, arXiv 2404.02948).
    Singular,
    /// The first columns of Q and rows of R, W₀ = Q R (OLoRA, arXiv 2406.01775).
    Orthogonal,
}

/// The rank and the scale of a layer in the folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub rank: i64,
    pub scale: f64,
}

/// The pairs of a folder whose layers differ, or whose start changes the base model's weights.
#[derive(Debug)]
pub(super) struct Pairs {
    layers: BTreeMap<String, Shape>,
    taken_out: Option<TakenOut>,
    /// s₀.
    scale: f64,
}

impl Pairs {
    /// The pairs of the folder that `keys` describe, of these `scales`, whose `method` becomes that of all layers; none
    /// where they are what the method makes anyway.
    ///
    /// # Errors
    /// A pattern is none, or says another rank than a layer's matrices have.
    pub fn of(
        keys: &Map<String, Value>,
        file: &Checkpoint,
        scales: Option<Scales>,
        method: &mut MethodConfig,
    ) -> std::result::Result<Option<Pairs>, String> {
        let Some(scales) = scales else { return Ok(None) };
        let (rank, alpha) = match method {
            MethodConfig::Lora(lora) | MethodConfig::Dora(DoraConfig(lora)) => {
                (&mut lora.rank, &mut lora.alpha)
            }
            _ => return Ok(None),
        };
        let taken_out = match keys.get("init_lora_weights").and_then(Value::as_str) {
            Some("pissa") => Some(TakenOut::Singular),
            Some("olora") => Some(TakenOut::Orthogonal),
            _ => None,
        };
        if scales.are_one() && taken_out.is_none() {
            return Ok(None);
        }
        let mut layers = BTreeMap::new();
        for (name, shape) in file.shapes() {
            let Some(site) =
                name.strip_prefix(ROOT).and_then(|name| name.strip_suffix(MATRICES[0]))
            else {
                continue;
            };
            let site = site.trim_end_matches('.');
            layers.insert(site.to_string(), scales.at(site, shape.first().copied().unwrap_or(0))?);
        }
        let most = layers.values().map(|shape| shape.rank).max().unwrap_or(*rank);
        let scale = scales.alpha / scales.divisor(scales.rank);
        *rank = most * if taken_out.is_some() { 2 } else { 1 };
        *alpha = scale * scales.divisor(*rank);
        Ok(Some(Pairs { layers, taken_out, scale }))
    }

    /// The shape in the file of `tensor`, which an adapter on `site` has; none if it is no matrix of
    /// a pair.
    pub fn shape(&self, site: &str, tensor: &AdapterTensor) -> Option<Vec<i64>> {
        let rank_dim = tensor.spec.rank_dim.filter(|_| MATRICES.contains(&tensor.spec.key))?;
        let mut shape = tensor.tensor.size();
        shape[rank_dim as usize] = self.layers.get(site)?.rank;
        Some(shape)
    }

    /// Loads the pair of a layer, whose matrices are in the file and of their [`shape`](Self::shape).
    pub fn fill(&self, file: &Checkpoint, layer: &Injected) -> Result<()> {
        let site = layer.linear().site.name.as_str();
        let Some(Shape { rank, scale }) = self.layers.get(site).copied() else { return Ok(()) };
        let weight = layer.linear().as_layer().weight;
        let began = match (self.taken_out, weight) {
            (Some(_), Some(FrozenWeight::Quantised(_))) => {
                let problem = format!(
                    "`{site}` is held in few bits here, but the adapter was taken out of its whole \
                     weight: load the model with another precision"
                );
                return Err(Error::Unbuilt(problem));
            }
            (Some(taken_out), Some(FrozenWeight::Dense(weight))) => {
                Some(taken_out.pair(&weight, rank, scale)?)
            }
            _ => None,
        };
        for mut matrix in layer.adapter().tensors() {
            let (Some(shape), Some(dim)) = (self.shape(site, &matrix), matrix.spec.rank_dim) else {
                continue;
            };
            let mut part = Tensor::zeros(&shape, (matrix.tensor.kind(), matrix.tensor.device()));
            file.copy_to(&format!("{ROOT}{site}.{}", matrix.spec.key), &mut part)?;
            let up = matrix.spec.key == MATRICES[1];
            let mut parts = vec![part];
            if let Some((a, b)) = &began {
                parts.push(if up { -b } else { a.shallow_clone() });
            }
            let whole = Tensor::f_cat(&parts, dim)?;
            let whole = if up { whole * (scale / self.scale) } else { whole };
            let _ = matrix.tensor.f_zero_()?;
            matrix.tensor.f_narrow(dim, 0, whole.size()[dim as usize])?.f_copy_(&whole)?;
        }
        Ok(())
    }
}

impl TakenOut {
    /// A₀ `[rank, in]` and B₀ `[out, rank]` of `weight`, `[out, in]`: s · B₀ A₀ was taken out of it.
    fn pair(self, weight: &Tensor, rank: i64, scale: f64) -> Result<(Tensor, Tensor)> {
        let weight = weight.detach().to_kind(Kind::Float);
        Ok(match self {
            TakenOut::Singular => {
                let (u, s, v) = weight.f_svd(true, true)?;
                let s = (s.f_narrow(0, 0, rank)? / scale).sqrt();
                (v.tr().f_narrow(0, 0, rank)? * s.unsqueeze(1), u.f_narrow(1, 0, rank)? * s)
            }
            TakenOut::Orthogonal => {
                let (q, r) = Tensor::f_linalg_qr(&weight, "reduced")?;
                (r.f_narrow(0, 0, rank)?, q.f_narrow(1, 0, rank)?)
            }
        })
    }
}

/// The rank and the scale that a configuration gives each layer.
#[derive(Debug)]
pub(super) struct Scales {
    rank: i64,
    alpha: f64,
    rslora: bool,
    ranks: Pattern,
    alphas: Pattern,
}

impl Scales {
    /// Those of LoRA's `method` with the patterns of `keys`; none of another method.
    ///
    /// # Errors
    /// A pattern is none.
    pub fn of(
        keys: &Map<String, Value>,
        method: &MethodConfig,
    ) -> std::result::Result<Option<Scales>, String> {
        let (rank, alpha, rslora) = match method {
            MethodConfig::Lora(lora) | MethodConfig::Dora(DoraConfig(lora)) => {
                (lora.rank, lora.alpha, lora.rslora)
            }
            _ => return Ok(None),
        };
        let ranks = Pattern::of(keys, "rank_pattern")?;
        let alphas = Pattern::of(keys, "alpha_pattern")?;
        Ok(Some(Scales { rank, alpha, rslora, ranks, alphas }))
    }

    /// Whether all layers have the same.
    fn are_one(&self) -> bool {
        self.ranks.0.is_empty() && self.alphas.0.is_empty()
    }

    fn divisor(&self, rank: i64) -> f64 {
        match self.rslora {
            true => (rank as f64).sqrt(),
            false => rank as f64,
        }
    }

    /// What the layer `site` has, whose matrices have the rank `found`.
    ///
    /// # Errors
    /// The configuration gives it another one, or no scale.
    pub fn at(&self, site: &str, found: i64) -> std::result::Result<Shape, String> {
        let rank = self.ranks.at(site).map_or(self.rank, |rank| rank as i64);
        if found != rank || rank < 1 {
            return Err(format!("`{site}` has rank {found} there, {rank} by {FILE}"));
        }
        let scale = self.alphas.at(site).unwrap_or(self.alpha) / self.divisor(rank);
        match scale.is_finite() {
            true => Ok(Shape { rank, scale }),
            false => Err(format!("`{site}` has the scale {scale} by `alpha_pattern`")),
        }
    }
}

/// Numbers for the layers whose names end as an expression says, as PEFT reads them: the first that
/// fits counts.
#[derive(Debug)]
struct Pattern(Vec<(Regex, f64)>);

impl Pattern {
    fn of(keys: &Map<String, Value>, key: &str) -> std::result::Result<Pattern, String> {
        let given = match keys.get(key) {
            None | Some(Value::Null) => return Ok(Pattern(Vec::new())),
            Some(Value::Object(given)) => given,
            Some(value) => return Err(format!("`{key}` is {value}, no object of numbers")),
        };
        let one = |(name, value): (&String, &Value)| {
            let number = match key {
                "rank_pattern" => value.as_i64().map(|rank| rank as f64),
                _ => value.as_f64(),
            };
            let number = number.ok_or_else(|| format!("`{key}` of {name:?} is {value}"))?;
            let regex = Regex::new(&format!("^(?:.*\\.)?(?:{name})$"));
            let regex = regex.map_err(|_| {
                format!("`{key}` has {name:?}, which only Python reads as an expression")
            })?;
            Ok((regex, number))
        };
        given.iter().map(one).collect::<std::result::Result<_, String>>().map(Pattern)
    }

    fn at(&self, site: &str) -> Option<f64> {
        self.0.iter().find(|(regex, _)| regex.is_match(site)).map(|(_, number)| *number)
    }
}
