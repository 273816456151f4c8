//! Parameters that are frozen, for good or for a while.
//!
//! What rests is not updated and has no gradient, as what is frozen for good; but its place in the
//! buffers of scores and moments is kept, and in a step that *probes* its gradient is computed once, for
//! scores to look at. It is zero again before anything is clipped or updated. What trains again goes on
//! with the moments that it had, as if no step had passed.

use super::arena::{part, Arena, Group, Member, Stretches};
use super::gradients::Gradients;
use super::parameter::Parameter;
use crate::adapter::Role;
use std::ops::Range;
use tch::Tensor;

/// What becomes of a parameter that may freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is updated.
    Trains,
    /// It is frozen, and may train again.
    Rests,
    /// It is frozen for good.
    Frozen,
}

impl Member {
    pub(super) fn stand(&mut self, standing: Standing, probing: bool) {
        self.live = standing == Standing::Trains;
        self.rests = standing == Standing::Rests;
        let graded = self.live || self.rests && probing;
        let _ = self.parameter.leaf.set_requires_grad(graded);
    }

    pub(super) fn is_open(&self) -> bool {
        self.live || self.rests
    }
}

impl Group {
    /// Members whose gradients are computed.
    pub(super) fn graded_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.live || m.rests && self.probing)
    }

    fn open_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.is_open())
    }

    /// The parameters that are not frozen for good, in buffer order, and whether each rests.
    pub fn open(&self) -> impl Iterator<Item = (&Parameter, bool)> {
        self.open_members().map(|m| (&m.parameter, m.rests))
    }

    /// Where those that are not frozen for good lie.
    pub(super) fn open_places(&self) -> impl Iterator<Item = Range<i64>> + '_ {
        self.open_members().map(|m| m.place.clone())
    }

    /// [`slices`](Self::slices) of those that are not frozen for good.
    pub(crate) fn open_slices<'a>(&'a self, flat: &'a Tensor) -> impl Iterator<Item = Tensor> + 'a {
        self.open_members().map(|m| part(flat, &m.place))
    }

    /// Whether every parameter is frozen for good.
    pub fn is_closed(&self) -> bool {
        self.open_members().next().is_none()
    }

    /// How many rest.
    pub fn resting(&self) -> usize {
        self.members.iter().filter(|m| m.rests).count()
    }

    /// Whether the gradients of those that rest are computed in this step.
    pub(crate) fn is_probing(&self) -> bool {
        self.probing
    }

    /// 1 where this step has a gradient and 0 elsewhere, `[n]`; none where all that is not frozen for
    /// good has one.
    pub(crate) fn observed(&mut self) -> Option<Tensor> {
        if self.probing || self.resting() == 0 {
            return None;
        }
        if self.observed.is_none() {
            let mask = self.values.zeros_like();
            for run in self.live() {
                let _ = part(&mask, run).fill_(1.0);
            }
            self.observed = Some(mask);
        }
        self.observed.as_ref().map(Tensor::shallow_clone)
    }

    /// Of those that are not frozen for good, in buffer order, what each is from now on.
    fn settle(&mut self, standings: impl IntoIterator<Item = Standing>) {
        let probing = self.probing;
        for (member, standing) in self.members.iter_mut().filter(|m| m.is_open()).zip(standings) {
            member.stand(standing, probing);
        }
        self.find_live();
        if self.is_closed() {
            self.state.clear();
        }
    }
}

impl Arena {
    /// Freezes the parameters of `role` for which `leave` (in buffer order of those that train)
    /// is true; their gradients become zero.
    pub fn freeze(&mut self, role: Role, leave: &[bool], gradients: &mut Gradients) {
        let Some(group) = self.groups.get(&role) else { return };
        let mut leave = leave.iter();
        let standing = |(_, rests)| match rests {
            true => Standing::Rests,
            false if leave.next() == Some(&true) => Standing::Frozen,
            false => Standing::Trains,
        };
        let standings: Vec<Standing> = group.open().map(standing).collect();
        self.settle(role, &standings, gradients);
    }

    /// Says of the parameters of `role` that are not frozen for good, in buffer order, what each is
    /// from now on; the gradients of those that do not train become zero.
    pub fn settle(&mut self, role: Role, standings: &[Standing], gradients: &mut Gradients) {
        if let Some(group) = self.groups.get_mut(&role) {
            group.settle(standings.iter().copied());
            // Of what rests, too, where it is looked at.
            if let Some(buffer) = gradients.groups.get(&role) {
                Stretches::of(group.members.iter().filter(|m| !m.live)).clear(buffer);
            }
        }
    }

    /// Has the gradients of what rests in `role` computed from the next pass on, or no longer.
    pub fn probe(&mut self, role: Role, on: bool) {
        let Some(group) = self.groups.get_mut(&role) else { return };
        if group.probing != on {
            group.probing = on;
            for member in group.members.iter_mut().filter(|m| m.rests) {
                member.stand(Standing::Rests, on);
            }
            group.find_live();
        }
    }

    /// Whether gradients of parameters that rest are computed.
    pub(crate) fn probes(&self) -> bool {
        self.groups.values().any(|group| group.probing && group.resting() > 0)
    }

    /// Of every parameter, in the order of the arena, whether its gradient is computed.
    pub(crate) fn graded(&self) -> Vec<bool> {
        let members = self
            .groups
            .values()
            .flat_map(|group| group.members.iter().map(|m| m.live || m.rests && group.probing));
        members.collect()
    }
}
