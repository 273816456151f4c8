//! A group's parameters and buffers as a state that is kept, and back.

use super::{Group, Standing};
use crate::adapter::Role;
use crate::error::misfit;
use crate::state::{key, GroupPosition, MemberPosition, TunerState, VALUES};
use crate::Result;
use std::collections::BTreeMap;
use tch::Tensor;

impl Group {
    /// Adds the group's tensors to `tensors`, and tells what they are.
    pub(crate) fn state_of(
        &self,
        role: Role,
        tensors: &mut BTreeMap<String, Tensor>,
    ) -> GroupPosition {
        tensors.insert(key(role, VALUES), self.values.shallow_clone());
        for (name, buffer) in &self.state {
            tensors.insert(key(role, name), buffer.shallow_clone());
        }
        let member = |m: &super::arena::Member| MemberPosition {
            name: m.parameter.name.clone(),
            shape: m.parameter.leaf.size(),
            live: m.live,
            rests: m.rests,
        };
        GroupPosition {
            role,
            members: self.members.iter().map(member).collect(),
            probing: self.probing,
            buffers: self.state.keys().map(|name| name.to_string()).collect(),
        }
    }

    /// Whether [`restore`](Self::restore) would succeed.
    pub(crate) fn check_state(&self, of: &GroupPosition, state: &TunerState) -> Result<()> {
        let wanted = self.members.iter().map(|m| (&m.parameter.name, m.parameter.leaf.size()));
        let mut found = of.members.iter();
        for (name, shape) in wanted {
            match found.next() {
                Some(member) if member.name != *name => {
                    return Err(misfit("a parameter", &member.name, name));
                }
                Some(member) if member.shape != shape => {
                    let (found, expected) = (&member.shape, shape);
                    return Err(misfit(name, format!("{found:?}"), format!("{expected:?}")));
                }
                Some(member) if member.live && member.rests => {
                    return Err(misfit(name, "in training and at rest", "one of them"));
                }
                Some(_) => {}
                None => return Err(misfit(name, "missing", format!("{shape:?}"))),
            }
        }
        if let Some(member) = found.next() {
            return Err(misfit(&member.name, format!("{:?}", member.shape), "nothing"));
        }
        let n = self.values.numel() as i64;
        let names = of.buffers.iter().map(String::as_str).chain([VALUES]);
        names.map(|name| state.tensor(&key(of.role, name), n)).try_for_each(|t| t.map(drop))
    }

    /// Takes up what [`state_of`](Self::state_of) gave; parameters that were frozen are so again.
    pub(crate) fn restore(&mut self, of: &GroupPosition, state: &TunerState) -> Result<()> {
        let n = self.values.numel() as i64;
        self.values.f_copy_(state.tensor(&key(of.role, VALUES), n)?)?;
        self.state.clear();
        for name in &of.buffers {
            let mut buffer = self.values.zeros_like();
            buffer.f_copy_(state.tensor(&key(of.role, name), n)?)?;
            self.state.insert(name.clone().into(), buffer);
        }
        self.probing = of.probing;
        for (member, of) in self.members.iter_mut().zip(&of.members) {
            let standing = match (of.live, of.rests) {
                (true, _) => Standing::Trains,
                (_, true) => Standing::Rests,
                _ => Standing::Frozen,
            };
            member.stand(standing, self.probing);
        }
        self.find_live();
        Ok(())
    }
}
