//! Which components of the matrices freeze, and which leave.

use crate::adapter::{components, Role};
use crate::error::misfit;
use crate::freeze::{FreezeCheck, FreezeConfig, FreezeMode, MatrixScore, Schedule, Smoothed};
use crate::hook::Hook;
use crate::optim::{Arena, Gradients, Group, Parameter};
use crate::span::RunLength;
use crate::state::HookState;
use crate::Result;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

// Names of the state buffers.
const SMOOTHED: [&str; 2] = ["aflora_rank.sensitivity", "aflora_rank.uncertainty"];
const HELD: &str = "aflora_rank.held";
const VALUES: &str = "aflora_rank.values";

// Before a layer's name, among what is kept of a run.
const FROZEN: &str = "frozen.";

/// Whether it is a vector d: the vector that has an element for each component.
pub(super) fn is_d(parameter: &Parameter) -> bool {
    parameter.role == Role::Vector && parameter.components().is_some()
}

/// The components of a layer that has matrices in `group`.
fn rank_of(group: &Group, name: &str) -> Option<usize> {
    group.parameters().find_map(|p| {
        let (site, rank_dim) = p.components()?;
        (site.name == name).then(|| p.leaf.size()[rank_dim as usize] as usize)
    })
}

/// Which components of all layers together still train, and which have left.
#[derive(Debug)]
pub(super) struct Components {
    smoothed: Smoothed,
    /// Steps between two tests.
    interval: u64,
    /// Whether components freeze at all; they leave in any case.
    freezes: bool,
    schedule: Schedule,
    remark: Option<String>,
    /// Components at the start.
    start: i64,
    /// Components at the end.
    target: i64,
    /// Components that have not left.
    in_use: i64,
    /// The elements of the vector group that are zero for good, those of d whose components left,
    /// `[n]`.
    gone: Option<Tensor>,
    /// By layer: which components of its candidate matrices are frozen.
    frozen: BTreeMap<String, Vec<bool>>,
    /// Elements of the arena that are put back after each update, since their component is frozen
    /// and others of its matrix are not.
    held: i64,
}

impl Components {
    /// For a run of `length`, from so many components of all layers together to so many.
    pub fn new(
        freeze: &FreezeConfig,
        length: RunLength,
        [start, target]: [i64; 2],
    ) -> Result<Self> {
        let FreezeConfig { beta1, beta2, .. } = *freeze;
        Ok(Components {
            smoothed: Smoothed { names: SMOOTHED, beta1, beta2, updated: false },
            interval: freeze.interval,
            freezes: freeze.mode == FreezeMode::Adaptive,
            schedule: freeze.schedule(length)?,
            remark: freeze.remark(length),
            start,
            target,
            in_use: start,
            gone: None,
            frozen: BTreeMap::new(),
            held: 0,
        })
    }

    /// Freezes the lowest components until the schedule is met.
    fn test(&mut self, step: u64, group: &mut Group) -> Result<FreezeCheck> {
        let scores = self.smoothed.score(group);
        let means = components::means(group, &scores);
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
        Ok(FreezeCheck { step, ratio, threshold, matrices, thawed: Vec::new() })
    }

    /// Marks in the arena what rests: 1 for an element that is put back after each update.
    fn hold(&mut self, group: &mut Group) {
        let mask = group.state(HELD);
        let pieces: Vec<Tensor> = group
            .parameters()
            .filter_map(|p| Some((p.components()?, &p.leaf)))
            .map(|((site, rank_dim), leaf)| {
                let resting = self.frozen.get(&site.name).map_or(&[][..], Vec::as_slice);
                let flags: Vec<f32> = resting.iter().map(|&f| f32::from(u8::from(f))).collect();
                let flags = Tensor::from_slice(&flags).to_device(leaf.device());
                flags.unsqueeze(1 - rank_dim).expand_as(leaf).reshape([-1])
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
            .parameters()
            .map(|p| {
                let options = (Kind::Bool, p.leaf.device());
                Tensor::full([p.leaf.numel() as i64], i64::from(is_d(p)), options)
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
                let members = arena.group(Role::Projection).map_or(0, |g| g.len());
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
        let matrices = group.map_or(0, |g| g.values().numel() as i64);
        let (in_use, held) = (state.count("in_use", self.start)?, state.count("held", matrices)?);
        let gone = state.mask("gone", arena.group(Role::Vector))?;
        let mut frozen = BTreeMap::new();
        for (name, rests) in &state.tensors {
            let Some(site) = name.strip_prefix(FROZEN) else { continue };
            let rests = Vec::<f32>::try_from(rests.to_device(Device::Cpu).to_kind(Kind::Float))?;
            let rank = group.and_then(|group| rank_of(group, site)).unwrap_or(0);
            if rests.len() != rank {
                return Err(misfit(name, format!("of rank {}", rests.len()), rank));
            }
            frozen.insert(site.to_string(), rests.into_iter().map(|rests| rests != 0.0).collect());
        }
        (self.in_use, self.held, self.gone, self.frozen) = (in_use, held, gone, frozen);
        Ok(())
    }
}
