//! AFLoRA with adaptive rank: the paper's future work, freezing and rank from the same scores.
//!
//! The module is AFLoRA's. What freezes is not a whole matrix but a component k of a layer: row k
//! of A with column k of B. Two scores of one form, s = Ī ⊙ Ū (Eq. 2-4), decide, both smoothed
//! every step:
//!
//! * a component *freezes* when the mean |g| score of its row and column is among the lowest, so
//!   that ⌊r(t) · n⌋ of all n candidates are frozen (Eq. 5, the `matrix_rank` rule);
//! * a component *leaves* when the |d · g| score of its element of d is among the lowest, so that
//!   b(t) of all components are left, where b(t) falls from all to `target_rank` a layer along
//!   the same curve. |d · g| is, to first order, what the loss would change by if the
//!   component went. Its element of d becomes 0 and stays so; it is dropped when saved.
//!
//! Frozen rows and columns lie in the arena with those that train; they are put back after each
//! update, to the bit. At saturation, whole matrices have frozen and leave the arena.

mod hook;

use self::hook::{is_d, Components};
use super::aflora::{Aflora, AfloraAdapter, AfloraConfig, PmTrainable};
use super::components;
use super::side_path::SidePath;
use super::site::{Layer, Site};
use super::tensor::{AdapterTensor, TensorSpec};
use super::traits::{Adapter, LowRank, Method, MethodSettings};
use crate::error::check;
use crate::flops::Products;
use crate::freeze::{FreezeConfig, Rule, Score};
use crate::hook::Hook;
use crate::optim::Parameter;
use crate::span::RunLength;
use crate::weight::FrozenWeight;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::{Device, Tensor};

/// AFLoRA's settings and a target. `freeze.rule` and `freeze.score` have no say here, and are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AfloraRankConfig {
    /// Components a layer at the start.
    pub rank: i64,
    /// Components a layer at the end, on average.
    pub target_rank: i64,
    /// Scales the path by alpha / rank; null: by 1, as in the paper.
    pub alpha: Option<f64>,
    /// Every element of d at the start; b starts at 0, so that the model is unchanged.
    pub d_initial: f64,
    /// Share of the adapter's input that is dropped out: against overfitting, at the cost of speed.
    pub dropout: f64,
    /// Whose projection matrices train at the start; the others stay as they were drawn.
    pub pm_trainable: PmTrainable,
    /// How components freeze and leave: they freeze by rank of |g|, and leave by |d·g|, so that
    /// neither its rule nor its score is to be set.
    pub freeze: FreezeConfig,
}

impl Default for AfloraRankConfig {
    fn default() -> Self {
        let AfloraConfig { alpha, d_initial, dropout, pm_trainable, freeze, .. } =
            AfloraConfig::default();
        let (rank, target_rank) = (8, 4);
        AfloraRankConfig { rank, target_rank, alpha, d_initial, dropout, pm_trainable, freeze }
    }
}

impl MethodSettings for AfloraRankConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        Ok(Box::new(AfloraRank::new(self.clone())?))
    }

    fn rank(&self) -> Option<i64> {
        Some(self.rank)
    }

    fn freezing(&self) -> Option<&FreezeConfig> {
        // Where no matrix trains, components leave all the same, on this schedule.
        Some(&self.freeze)
    }
}

/// AFLoRA with ranks that shrink, as a [`Method`].
#[derive(Debug, Clone)]
pub struct AfloraRank {
    aflora: Aflora,
    config: AfloraRankConfig,
}

impl AfloraRank {
    /// The method with these settings.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
    pub fn new(config: AfloraRankConfig) -> Result<Self> {
        let AfloraRankConfig { rank, alpha, d_initial, dropout, pm_trainable, .. } = config;
        let freeze = config.freeze.clone();
        let module = AfloraConfig { rank, alpha, d_initial, dropout, pm_trainable, freeze };
        let aflora = Aflora::new(module)?;
        let target = config.target_rank;
        let fits = (1..=rank).contains(&target);
        check("target_rank", target, fits, "at least 1 and at most `rank`")?;
        let FreezeConfig { rule, score, .. } = &config.freeze;
        let unset = "left out: components freeze by rank of |g|, and leave by |d·g|";
        check("freeze.rule", rule.name(), *rule == Rule::default(), unset)?;
        check("freeze.score", score.name(), *score == Score::default(), unset)?;
        Ok(AfloraRank { aflora, config })
    }
}

impl Method for AfloraRank {
    fn name(&self) -> &'static str {
        "aflora_rank"
    }

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let adapters = self.aflora.adapters(layers, seed, device)?;
        Ok(adapters.into_iter().map(|inner| Box::new(RankAdapter { inner }) as _).collect())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        self.aflora.tensors()
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.aflora.trainable_count(site)
    }

    fn freezes(&self) -> bool {
        self.aflora.freezes()
    }

    fn hook(&self, length: RunLength, parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        let AfloraRankConfig { rank, target_rank, freeze, .. } = &self.config;
        let layers = parameters.iter().filter(|p| is_d(p)).count() as i64;
        let ranks = [layers * rank, layers * target_rank];
        Ok(Some(Box::new(Components::new(freeze, length, ranks)?)))
    }
}

/// An AFLoRA path whose components may be dropped.
#[derive(Debug)]
struct RankAdapter {
    inner: AfloraAdapter,
}

impl Adapter for RankAdapter {
    fn site(&self) -> &Arc<Site> {
        self.inner.site()
    }

    fn forward(&self, x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor {
        self.inner.forward(x, weight, bias)
    }

    fn path(&self) -> Option<SidePath> {
        self.inner.path()
    }

    fn low_rank(&self) -> Option<LowRank> {
        self.inner.low_rank()
    }

    fn merged(&self, weight: &Tensor) -> Tensor {
        self.inner.merged(weight)
    }

    fn tensors(&self) -> Vec<AdapterTensor> {
        self.inner.tensors()
    }

    fn set_training(&mut self, on: bool) {
        self.inner.set_training(on);
    }

    fn products(&self) -> Products {
        self.inner.products()
    }

    fn rank(&self) -> i64 {
        self.inner.rank()
    }

    fn saved(&self) -> Vec<AdapterTensor> {
        components::in_use(self.inner.tensors(), self.inner.d())
    }

    fn set_rank(&mut self, rank: i64) -> Result<()> {
        self.inner.set_component_count(rank);
        Ok(())
    }
}
