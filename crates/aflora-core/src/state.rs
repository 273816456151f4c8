//! The state of a run's training, to be kept and taken up again: a tuner with this state goes on
//! as the one that gave it would have, bit for bit on a CPU.
//!
//! It is two parts: a [`Position`], which is small and which `serde` writes, and fp32 tensors by
//! name, which fit any tensor file: each group's values and its state buffers (moments, scores),
//! end to end as they lie in the [arena](crate::optim::Arena), and what the method's
//! [`Hook`](crate::Hook) keeps. Which parameters are frozen is said by their names, and a state
//! is only taken up by the parameters that it is of.

use crate::accounting::Accounting;
use crate::adapter::Role;
use crate::error::misfit;
use crate::optim::Group;
use crate::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// All that changes while a [`Tuner`](crate::Tuner) trains.
#[derive(Debug)]
pub struct TunerState {
    /// Where training stands.
    pub position: Position,
    /// Values, buffers and the hook's tensors, fp32.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Where training stands, but for the numbers in tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Completed steps.
    pub step: u64,
    /// Steps whose gradient was not finite, which moved nothing.
    pub skipped: u64,
    /// How many of the latest steps were skipped without a good one between.
    pub skipped_in_a_row: u64,
    /// How many parameters trained so far.
    pub accounting: Accounting,
    /// The parameters, group by group.
    pub groups: Vec<GroupPosition>,
    /// The hook's counts by name.
    pub counts: BTreeMap<String, i64>,
}

impl Position {
    /// Whether the numbers are those of a run of `total_steps` steps: a state may come out of a
    /// file, and what counts on from a number that no run has would count wrongly.
    ///
    /// # Errors
    /// A number is none of such a run's.
    pub fn check(&self, total_steps: u64) -> Result<()> {
        let Position { step, skipped, skipped_in_a_row, accounting, .. } = self;
        let most = |what: &str, found: u64, most: u64| match found <= most {
            true => Ok(()),
            false => Err(misfit(what, found, format!("{most} at most"))),
        };
        most("step", *step, total_steps)?;
        most("skipped", *skipped, *step)?;
        most("skipped_in_a_row", *skipped_in_a_row, *skipped)?;
        accounting.check(*step)
    }
}

/// One group's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPosition {
    /// The group's role.
    pub role: Role,
    /// Its parameters, in buffer order.
    pub members: Vec<MemberPosition>,
    /// Whether the gradients of those that rest are computed in the next step.
    #[serde(default, skip_serializing_if = "not")]
    pub probing: bool,
    /// The names of its state buffers.
    pub buffers: Vec<String>,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberPosition {
    /// The parameter's name.
    pub name: String,
    /// The parameter's shape.
    pub shape: Vec<i64>,
    /// Whether it trains: not frozen.
    pub live: bool,
    /// Whether it is frozen for a while only.
    #[serde(default, skip_serializing_if = "not")]
    pub rests: bool,
}

fn not(value: &bool) -> bool {
    !value
}

/// What a [`Hook`](crate::Hook) keeps beside the groups' buffers.
#[derive(Debug, Default)]
pub struct HookState {
    /// Counts by name.
    pub counts: BTreeMap<String, i64>,
    /// Tensors by name, of any kind that fp32 holds.
    pub tensors: BTreeMap<String, Tensor>,
}

impl HookState {
    /// A count that must be there, from 0 to `most`.
    ///
    /// # Errors
    /// It is not, or is no such number.
    pub fn count(&self, name: &str, most: i64) -> Result<i64> {
        match self.counts.get(name) {
            Some(&count) if (0..=most).contains(&count) => Ok(count),
            Some(count) => Err(misfit(name, count, format!("0 to {most}"))),
            None => Err(misfit(name, "missing", "a count")),
        }
    }

    /// A mask over the values of a group that may be there, on their device. A state that was read
    /// from a file lies on the host.
    ///
    /// # Errors
    /// It is not of their shape.
    pub fn mask(&self, name: &str, over: Option<&Group>) -> Result<Option<Tensor>> {
        let Some(mask) = self.tensors.get(name) else { return Ok(None) };
        let values = over.map(Group::values);
        fits(name, mask, &values.map_or(vec![0], Tensor::size))?;
        let device = values.map_or(Device::Cpu, Tensor::device);
        Ok(Some(mask.to_device(device).to_kind(Kind::Bool)))
    }
}

/// The name of a group's tensor: its values, or one of its buffers.
pub(crate) fn key(role: Role, what: &str) -> String {
    format!("{role:?}.{what}").to_lowercase()
}

/// The name of a hook's tensor.
pub(crate) fn hook_key(what: &str) -> String {
    format!("hook.{what}")
}

/// The values of a group, among its tensors.
pub(crate) const VALUES: &str = "values";

pub(crate) fn fits(what: &str, tensor: &Tensor, shape: &[i64]) -> Result<()> {
    match tensor.size() == shape {
        true => Ok(()),
        false => Err(misfit(what, format!("{:?}", tensor.size()), format!("{shape:?}"))),
    }
}

impl TunerState {
    /// A tensor that must be there, of `n` elements.
    pub(crate) fn tensor(&self, name: &str, n: i64) -> Result<&Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| misfit(name, "missing", "a tensor"))?;
        fits(name, tensor, &[n])?;
        Ok(tensor)
    }

    /// The part of it that the method's hook keeps.
    pub(crate) fn hook(&self) -> HookState {
        let of_hook = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix("hook.")?.to_string(), tensor.shallow_clone()))
        };
        HookState {
            counts: self.position.counts.clone(),
            tensors: self.tensors.iter().filter_map(of_hook).collect(),
        }
    }
}
