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

use super::aflora::{Aflora, AfloraAdapter};
use super::{
    component_means, components_in_use, select_components, Adapter, AdapterTensor, AfloraConfig,
    LowRank, Method, PmTrainable, Role, Site,
};
use crate::error::{check, misfit};
use crate::flops::Products;
use crate::freeze::{FreezeCheck, FreezeConfig, FreezeMode, MatrixScore, Schedule, Smoothed};
use crate::hook::Hook;
use crate::optim::{Arena, Gradients, Group, Parameter};
use crate::span::RunLength;
use crate::state::HookState;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

// Names of the state buffers.
const SMOOTHED: [&str; 2] = ["aflora_rank.sensitivity", "aflora_rank.uncertainty"];
const HELD: &str = "aflora_rank.held";
const VALUES: &str = "aflora_rank.values";

// Before a layer's name, among what is kept of a run.
const FROZEN: &str = "frozen.";

/// AFLoRA's settings and a target. `freeze.rule` has no say here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AfloraRankConfig {
    /// Components a layer at the start.
    pub rank: i64,
    /// Components a layer at the end, on average.
    pub target_rank: i64,
    /// Scales the path by `alpha / rank`; without it by 1.
    pub alpha: Option<f64>,
    /// Initial value of every element of d.
    pub d_initial: f64,
    /// Dropout on the adapter's input.
    pub dropout: f64,
    /// Which projection matrices train at the start.
    pub pm_trainable: PmTrainable,
    /// How components freeze and leave.
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

/// The method.
#[derive(Debug, Clone)]
pub struct AfloraRank {
    aflora: Aflora,
    config: AfloraRankConfig,
}

impl AfloraRank {
    /// Checks the settings.
    pub fn new(config: AfloraRankConfig) -> Result<Self> {
        let AfloraRankConfig { rank, alpha, d_initial, dropout, pm_trainable, .. } = config;
        let freeze = config.freeze.clone();
        let module = AfloraConfig { rank, alpha, d_initial, dropout, pm_trainable, freeze };
        let aflora = Aflora::new(module)?;
        let target = config.target_rank;
        let fits = (1..=rank).contains(&target);
        check("target_rank", target, fits, "at least 1 and at most `rank`")?;
        Ok(AfloraRank { aflora, config })
    }
}

impl Method for AfloraRank {
    fn name(&self) -> &'static str {
        "aflora_rank"
    }

    fn attach(&self, sites: &[Site], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let adapters = self.aflora.adapters(sites, seed, device)?;
        Ok(adapters.into_iter().map(|inner| Box::new(RankAdapter { inner }) as _).collect())
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.aflora.trainable_count(site)
    }

    fn freezes(&self) -> bool {
        self.aflora.freezes()
    }

    fn hook(&self, length: RunLength, parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        let freeze = &self.config.freeze;
        let (schedule, remark) = (freeze.schedule(length)?, freeze.remark(length));
        let layers = parameters.iter().filter(|p| p.name.ends_with(".aflora_d")).count() as i64;
        let start = layers * self.config.rank;
        Ok(Some(Box::new(Components {
            smoothed: Smoothed {
                names: SMOOTHED,
                beta1: freeze.beta1,
                beta2: freeze.beta2,
                updated: false,
            },
            interval: freeze.interval,
            freezes: freeze.mode == FreezeMode::Adaptive,
            schedule,
            remark,
            start,
            target: layers * self.config.target_rank,
            gone: None,
            in_use: start,
            frozen: BTreeMap::new(),
            held: 0,
        })))
    }
}

/// An AFLoRA path whose components may be dropped.
#[derive(Debug)]
struct RankAdapter {
    inner: AfloraAdapter,
}

impl Adapter for RankAdapter {
    fn site(&self) -> &Site {
        self.inner.site()
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.inner.forward(x, weight, bias)
    }

    fn folded(&self) -> LowRank {
        self.inner.folded()
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
        let tensors = self.inner.tensors();
        let d = tensors.iter().find(|t| t.name == "aflora_d");
        let Some(kept) = d.map(|d| components_in_use(&d.tensor)) else { return tensors };
        select_components(tensors, &kept, |name| match name {
            "lora_A" | "aflora_d" => Some(0),
            "lora_B" => Some(1),
            _ => None,
        })
    }

    fn set_rank(&mut self, rank: i64) -> Result<()> {
        self.inner.set_component_count(rank);
        Ok(())
    }
}

/// Which components train, rest and stay.
#[derive(Debug)]
struct Components {
    smoothed: Smoothed,
    interval: u64,
    freezes: bool,
    schedule: Schedule,
    remark: Option<String>,
    start: i64,
    target: i64,
    /// Elements of the vector group that are zero for good, `[n]`.
    gone: Option<Tensor>,
    in_use: i64,
    /// By layer: which components of its candidate matrices rest.
    frozen: BTreeMap<String, Vec<bool>>,
    held: i64,
}

impl Components {
    /// Freezes the lowest components until the schedule is met.
    fn test(&mut self, step: u64, group: &mut Group) -> Result<FreezeCheck> {
        let scores = self.smoothed.score(group);
        let means = component_means(group, &scores);
        let flat: Vec<Tensor> = means.values().map(Tensor::shallow_clone).collect();
        // The one host read of a test.
        let values = Vec::<f64>::try_from(Tensor::cat(&flat, 0).to_kind(Kind::Double))?;
        let ratio = self.schedule.ratio(step);
        let mut open: Vec<(f64, &str, usize)> = Vec::new();
        let mut values = values.into_iter();
        for (site, mean) in &means {
            let rank = mean.size()[0] as usize;
            let resting =
                self.frozen.entry(site.clone()).or_insert_with(|| vec![false; rank]).clone();
            for (k, rests) in resting.into_iter().enumerate() {
                let value = values.next().unwrap_or(f64::NAN);
                if !rests {
                    open.push((value, site, k));
                }
            }
        }
        let all: usize = self.frozen.values().map(Vec::len).sum();
        let already = self.frozen.values().flatten().filter(|f| **f).count();
        let wanted = (all as f64 * ratio + 1e-9).floor() as usize;
        open.sort_by(|a, b| a.0.total_cmp(&b.0));
        let now = wanted.saturating_sub(already).min(open.len());
        let mut matrices = Vec::new();
        for (i, (score, site, k)) in open.iter().enumerate() {
            if let Some(resting) = self.frozen.get_mut(*site) {
                resting[*k] |= i < now;
            }
            let name = format!("{site}.component{k}");
            matrices.push(MatrixScore { name, score: *score, frozen: i < now });
        }
        let threshold = now.checked_sub(1).map(|last| open[last].0);
        self.hold(group);
        Ok(FreezeCheck { step, ratio, threshold, matrices })
    }

    /// Marks in the arena what rests: 1 for an element that is put back after each update.
    fn hold(&mut self, group: &mut Group) {
        let mask = group.state(HELD);
        let pieces: Vec<Tensor> = group
            .leaves()
            .map(|(name, leaf)| {
                let (site, which) = name.rsplit_once('.').unwrap_or((name, ""));
                let resting = self.frozen.get(site).map_or(&[][..], Vec::as_slice);
                let flags: Vec<f32> = resting.iter().map(|&f| f32::from(u8::from(f))).collect();
                let flags = Tensor::from_slice(&flags).to_device(leaf.device());
                let flags = flags.unsqueeze(if which == "lora_A" { 1 } else { 0 });
                flags.expand_as(leaf).reshape([-1])
            })
            .collect();
        let flat = Tensor::cat(&pieces, 0);
        self.held = flat.sum(Kind::Int64).int64_value(&[]);
        mask.shallow_clone().copy_(&flat);
    }

    /// Components to keep at `step`.
    fn budget(&self, step: u64) -> i64 {
        let leave = (self.start - self.target) as f64 * self.schedule.ratio(step);
        self.start - (leave + 1e-9).floor() as i64
    }

    /// Zeroes the elements of d with the lowest scores until the budget is met.
    fn leave(&mut self, step: u64, arena: &mut Arena) {
        let Some(group) = arena.group_mut(Role::Vector) else { return };
        let is_d: Vec<Tensor> = group
            .leaves()
            .map(|(name, leaf)| {
                let d = name.ends_with(".aflora_d");
                Tensor::full([leaf.numel() as i64], i64::from(d), (Kind::Bool, leaf.device()))
            })
            .collect();
        let is_d = Tensor::cat(&is_d, 0);
        let wanted = self.start - self.budget(step);
        if wanted < 1 || wanted <= self.start - self.in_use {
            return;
        }
        // What left already has the lowest score of all: it never comes back.
        let scores = self.smoothed.score(group);
        let mut ranked = scores.masked_fill(&is_d.logical_not(), f64::INFINITY);
        if let Some(gone) = &self.gone {
            ranked = ranked.masked_fill(gone, -1.0);
        }
        let (_, order) = ranked.topk(wanted, 0, false, true);
        let gone = is_d.zeros_like().index_fill(0, &order, 1);
        self.in_use = self.start - wanted;
        self.gone = Some(gone);
    }
}

impl Hook for Components {
    fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    fn score(&mut self, _: u64, arena: &mut Arena, gradients: &Gradients) -> Result<()> {
        tch::no_grad(|| {
            let vectors = (arena.group_mut(Role::Vector), gradients.get(Role::Vector));
            if let (Some(group), Some(gradient)) = vectors {
                let now = (group.values() * gradient).abs_();
                self.smoothed.observe(group, &now);
            }
            let matrices = (arena.group_mut(Role::Projection), gradients.get(Role::Projection));
            if let (Some(group), Some(gradient)) = matrices {
                if !group.is_empty() {
                    self.smoothed.observe(group, &gradient.abs());
                }
            }
            Ok(())
        })
    }

    fn freeze(
        &mut self,
        step: u64,
        arena: &mut Arena,
        gradients: &mut Gradients,
    ) -> Result<Option<FreezeCheck>> {
        tch::no_grad(|| {
            if step.is_multiple_of(self.interval) {
                self.leave(step, arena);
            }
            let Some(group) = arena.group_mut(Role::Projection) else { return Ok(None) };
            let due = step.is_multiple_of(self.interval) || step >= self.schedule.saturation;
            if group.is_empty() || !self.freezes || !due || self.schedule.ratio(step) <= 0.0 {
                return Ok(None);
            }
            let check = self.test(step, group)?;
            if self.frozen.values().flatten().all(|f| *f) {
                let members = arena.group(Role::Projection).map_or(0, |g| g.leaves().count());
                arena.freeze(Role::Projection, &vec![true; members], gradients);
                self.held = 0;
            } else if let Some(group) = arena.group_mut(Role::Projection) {
                // The values to come back to.
                let values = group.values().copy();
                group.state(VALUES).copy_(&values);
            }
            Ok(Some(check))
        })
    }

    fn after_update(&mut self, _: u64, arena: &mut Arena, _: &Gradients) -> Result<()> {
        tch::no_grad(|| {
            if let Some(group) = arena.group_mut(Role::Projection) {
                if self.held > 0 && !group.is_empty() {
                    let (mask, kept) = (group.state(HELD), group.state(VALUES));
                    let back = kept.where_self(&mask.to_kind(Kind::Bool), group.values());
                    group.values().shallow_clone().copy_(&back);
                }
            }
            if let (Some(gone), Some(group)) = (&self.gone, arena.group_mut(Role::Vector)) {
                let _ = group.values().shallow_clone().masked_fill_(gone, 0.0);
            }
            Ok(())
        })
    }

    fn frozen_in_place(&self) -> i64 {
        self.held + (self.start - self.in_use)
    }

    fn rank_in_use(&self, _: &Arena) -> Option<i64> {
        Some(self.in_use)
    }

    fn state(&self) -> HookState {
        let counts = [("in_use".into(), self.in_use), ("held".into(), self.held)];
        let gone = self.gone.iter().map(|gone| ("gone".into(), gone.shallow_clone()));
        let frozen = self.frozen.iter().map(|(site, rests)| {
            let rests: Vec<f32> = rests.iter().map(|&rests| f32::from(u8::from(rests))).collect();
            (format!("{FROZEN}{site}"), Tensor::from_slice(&rests))
        });
        HookState { counts: counts.into(), tensors: gone.chain(frozen).collect() }
    }

    fn restore(&mut self, state: &HookState, arena: &Arena) -> Result<()> {
        let group = arena.group(Role::Projection);
        let numel = |role| arena.group(role).map_or(0, |g| g.values().numel() as i64);
        let (elements, matrices) = (numel(Role::Vector), numel(Role::Projection));
        let (in_use, held) = (state.count("in_use", self.start)?, state.count("held", matrices)?);
        let gone = state.mask("gone", elements)?;
        let mut frozen = BTreeMap::new();
        for (name, rests) in &state.tensors {
            let Some(site) = name.strip_prefix(FROZEN) else { continue };
            let rests = Vec::<f32>::try_from(rests.to_device(Device::Cpu).to_kind(Kind::Float))?;
            let down = format!("{site}.lora_A");
            let leaf = group.and_then(|g| g.leaves().find(|(name, _)| *name == down));
            let rank = leaf.map_or(0, |(_, leaf)| leaf.size()[0] as usize);
            if rests.len() != rank {
                return Err(misfit(name, format!("of rank {}", rests.len()), rank));
            }
            frozen.insert(site.to_string(), rests.into_iter().map(|rests| rests != 0.0).collect());
        }
        (self.in_use, self.held, self.gone, self.frozen) = (in_use, held, gone, frozen);
        Ok(())
    }
}
