//! LoRA's matrices as a folder has them, and as they are here: of one rank, on one scale, beside the
//! base model's own weights.
//!
//! PEFT has a rank and an α for each layer (`rank_pattern`, `alpha_pattern`), and starts
//! (`init_lora_weights`) that take out of the weight, when the adapter is attached, what A and B
//! began with: W = (W₀ - s · B₀ A₀) + s · B A. All of it is LoRA of one rank and one scale s₀ with
//! A' = [A; A₀; 0] and B' = [B, -B₀, 0] · s / s₀, to which PEFT's own conversion leads, too. Where that
//! is of a higher rank than the layer's matrix, the product itself, beside a matrix of ones, says as
//! much.

use super::names::ROOT;
use super::peft::FILE;
use crate::weights::Checkpoint;
use crate::{Error, Result};
use aflora_core::adapter::{AdapterTensor, DoraConfig, Init, MethodConfig};
use aflora_core::weight::FrozenWeight;
use aflora_core::Injected;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// What the matrices of each layer are called in a folder.
const MATRICES: [&str; 2] = ["lora_A.weight", "lora_B.weight"];

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
    /// What A and B began with, and the weight no longer holds.
    taken_out: Init,
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
            Some("pissa") => Init::Pissa,
            Some("olora") => Init::Olora,
            _ => Init::Standard,
        };
        let times = if taken_out == Init::Standard { 1 } else { 2 };
        let found = found(file);
        // The method takes no rank above all features of its layers: what such matrices make has one
        // below.
        let widest = found.iter().flat_map(|found| found.features).flatten().max();
        let wide = widest.is_some_and(|widest| scales.rank > widest)
            && found.iter().all(|found| found.rank == scales.rank);
        if scales.are_one() && taken_out == Init::Standard && !wide {
            return Ok(None);
        }
        let (mut layers, mut most) = (BTreeMap::new(), 0);
        for Found { site, rank, features } in found {
            let shape = scales.at(site, rank)?;
            let smaller = features.into_iter().flatten().min();
            most = most.max((shape.rank * times).min(smaller.unwrap_or(i64::MAX)));
            layers.insert(site.to_string(), shape);
        }
        let scale = scales.alpha / scales.divisor(scales.rank);
        *rank = if layers.is_empty() { *rank * times } else { most };
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
        let mut matrices = Vec::new();
        for matrix in layer.adapter().tensors() {
            if let Some(shape) = self.shape(site, &matrix) {
                let mut part = Tensor::zeros(&shape, (Kind::Float, matrix.tensor.device()));
                file.copy_to(&format!("{ROOT}{site}.{}", matrix.spec.key), &mut part)?;
                matrices.push((matrix, part));
            }
        }
        let Ok([(mut to_down, mut down), (mut to_up, mut up)]) = <[_; 2]>::try_from(matrices)
        else {
            return Ok(());
        };
        match layer.linear().as_layer().weight {
            Some(FrozenWeight::Quantised(_)) if self.taken_out != Init::Standard => {
                let problem = format!(
                    "`{site}` is held in few bits here, but the adapter was taken out of its whole \
                     weight: load the model with another precision"
                );
                return Err(Error::Unbuilt(problem));
            }
            Some(FrozenWeight::Dense(weight)) => {
                if let Some([a, b]) = self.taken_out.of_matrix(&weight, rank, scale)? {
                    down = Tensor::f_cat(&[down, a], 0)?;
                    up = Tensor::f_cat(&[up, -b], 1)?;
                }
            }
            _ => {}
        }
        up *= scale / self.scale;
        let (from, to) = (down.size()[1], up.size()[0]);
        if down.size()[0] > from.min(to) {
            let product = up.f_matmul(&down)?;
            let ones = Tensor::f_eye(from.min(to), (Kind::Float, product.device()))?;
            (down, up) = if from <= to { (ones, product) } else { (product, ones) };
        }
        let rank = down.size()[0];
        for (matrix, dim, values) in [(&mut to_down, 0, down), (&mut to_up, 1, up)] {
            let _ = matrix.tensor.f_zero_()?;
            matrix.tensor.f_narrow(dim, 0, rank)?.f_copy_(&values)?;
        }
        Ok(())
    }
}

/// A pair of matrices in a file.
#[derive(Debug)]
struct Found<'a> {
    site: &'a str,
    rank: i64,
    /// Out of the layer and into it, where the matrices have two sides.
    features: [Option<i64>; 2],
}

/// The pairs in `file`, by their first matrices.
fn found(file: &Checkpoint) -> Vec<Found<'_>> {
    let shapes: BTreeMap<&str, &[i64]> = file.shapes().collect();
    let found = shapes.iter().filter_map(|(name, down)| {
        let site = name.strip_prefix(ROOT)?.strip_suffix(MATRICES[0])?;
        let up = shapes.get(format!("{ROOT}{site}{}", MATRICES[1]).as_str());
        let features = [up.and_then(|up| up.first().copied()), down.get(1).copied()];
        let (site, rank) = (site.trim_end_matches('.'), down.first().copied().unwrap_or(0));
        Some(Found { site, rank, features })
    });
    found.collect()
}

/// The rank and the scale that a configuration gives each layer.
#[derive(Debug)]
pub(super) struct Scales {
    rank: i64,
    alpha: f64,
    rslora: bool,
    /// Whether the method is DoRA.
    pub dora: bool,
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
        let dora = matches!(method, MethodConfig::Dora(_));
        Ok(Some(Scales { rank, alpha, rslora, dora, ranks, alphas }))
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
