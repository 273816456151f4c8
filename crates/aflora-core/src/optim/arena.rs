//! Every trained parameter in one flat fp32 buffer a group.
//!
//! A parameter stays the leaf tensor that its module computes with; packing only moves its
//! storage into the group's buffer. Clipping, scores and AdamW are then a handful of kernels
//! however many adapters there are, and saving is one tensor a buffer.
//!
//! Freezing takes a parameter out: its values move to storage of their own, it no longer
//! requires a gradient, and buffer and state close the gap. A frozen matrix cannot move again,
//! by construction and not by a mask, and costs nothing more. (The copy is small: the buffers
//! of a whole BERT-base hold some 450,000 numbers, and each matrix freezes once.)

use crate::adapter::Role;
use crate::{Checkpoints, Error, Result};
use std::collections::{BTreeMap, HashSet};
use tch::{Kind, Tensor};

/// A tensor to train.
#[derive(Debug)]
pub struct Parameter {
    /// Its full name, unique in the model.
    pub name: String,
    /// Its optimiser group.
    pub role: Role,
    /// The leaf; fp32.
    pub leaf: Tensor,
}

/// The flat gradients of one step, a tensor a group.
pub type Gradients = BTreeMap<Role, Tensor>;

/// One group's parameters, end to end in one buffer, and the state that goes with them.
#[derive(Debug)]
pub struct Group {
    values: Tensor,
    members: Vec<Parameter>,
    // Buffers as long as `values`, by name: moments, scores. Made on first use.
    state: BTreeMap<&'static str, Tensor>,
}

impl Group {
    fn pack(members: Vec<Parameter>) -> Self {
        let pieces: Vec<Tensor> = members.iter().map(|p| p.leaf.detach().reshape([-1])).collect();
        let mut group = Group { values: Tensor::cat(&pieces, 0), members, state: BTreeMap::new() };
        group.point_leaves();
        group
    }

    /// Makes every leaf a view of its place in the buffer.
    fn point_leaves(&mut self) {
        let places: Vec<Tensor> = self.slices(&self.values).collect();
        for (member, place) in self.members.iter_mut().zip(places) {
            let place = place.view(member.leaf.size().as_slice());
            member.leaf.set_data(&place);
        }
    }

    /// All values, `[n]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// How many numbers train.
    pub fn numel(&self) -> i64 {
        self.values.numel() as i64
    }

    /// Whether nothing trains any more.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The parameters' names, in buffer order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|p| p.name.as_str())
    }

    /// The parameters' names and leaves, in buffer order.
    pub fn leaves(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.members.iter().map(|p| (p.name.as_str(), &p.leaf))
    }

    /// A buffer that goes with the values, zero at first; a handle to it, not a copy.
    pub fn state(&mut self, name: &'static str) -> Tensor {
        let values = &self.values;
        self.state.entry(name).or_insert_with(|| values.zeros_like()).shallow_clone()
    }

    /// Views of each parameter's part of `flat`, which is laid out like the values.
    pub fn slices<'a>(&'a self, flat: &'a Tensor) -> impl Iterator<Item = Tensor> + 'a {
        let mut offset = 0;
        self.members.iter().map(move |p| {
            let n = p.leaf.numel() as i64;
            let slice = flat.narrow(0, offset, n);
            offset += n;
            slice
        })
    }

    /// Takes parameters out: those whose place in `leave` is true.
    fn freeze(&mut self, leave: &[bool]) {
        let kept = |flat: &Tensor, group: &Group| {
            let pieces: Vec<Tensor> =
                group.slices(flat).zip(leave).filter(|(_, &out)| !out).map(|(s, _)| s).collect();
            if pieces.is_empty() {
                Tensor::zeros([0], (Kind::Float, flat.device()))
            } else {
                Tensor::cat(&pieces, 0)
            }
        };
        let values = kept(&self.values, self);
        let state = self.state.iter().map(|(name, buffer)| (*name, kept(buffer, self))).collect();
        let mut out = leave.iter();
        self.members.retain_mut(|member| {
            let leaves = out.next().copied().unwrap_or(false);
            if leaves {
                let own = member.leaf.detach().copy();
                member.leaf.set_data(&own);
                let _ = member.leaf.set_requires_grad(false);
            }
            !leaves
        });
        self.values = values;
        self.state = state;
        self.point_leaves();
    }
}

/// All trained parameters, packed by group.
#[derive(Debug)]
pub struct Arena {
    groups: BTreeMap<Role, Group>,
}

impl Arena {
    /// Packs parameters; from here on their storage is the arena's.
    ///
    /// # Errors
    /// There is none, two have one name, or one is not an fp32 leaf that requires a gradient.
    pub fn new(parameters: Vec<Parameter>) -> Result<Self> {
        let mut seen = HashSet::new();
        let mut by_role: BTreeMap<Role, Vec<Parameter>> = BTreeMap::new();
        for parameter in parameters {
            if !seen.insert(parameter.name.clone()) {
                return Err(Error::DuplicateName(parameter.name));
            }
            let leaf = &parameter.leaf;
            if leaf.kind() != Kind::Float || !leaf.is_leaf() || !leaf.requires_grad() {
                return Err(Error::NotTrainable {
                    name: parameter.name,
                    kind: leaf.kind(),
                    leaf: leaf.is_leaf(),
                    requires_grad: leaf.requires_grad(),
                });
            }
            by_role.entry(parameter.role).or_default().push(parameter);
        }
        if by_role.is_empty() {
            return Err(Error::NothingToTrain);
        }
        let groups =
            tch::no_grad(|| by_role.into_iter().map(|(r, m)| (r, Group::pack(m))).collect());
        Ok(Arena { groups })
    }

    /// A group, if it has parameters.
    pub fn group(&self, role: Role) -> Option<&Group> {
        self.groups.get(&role).filter(|group| !group.is_empty())
    }

    /// A group, if it has or had parameters; to be updated.
    pub fn group_mut(&mut self, role: Role) -> Option<&mut Group> {
        self.groups.get_mut(&role)
    }

    /// All groups, in [`Role`] order.
    pub fn groups(&self) -> impl Iterator<Item = (Role, &Group)> {
        self.groups.iter().map(|(role, group)| (*role, group))
    }

    /// All groups, to be updated.
    pub fn groups_mut(&mut self) -> impl Iterator<Item = (Role, &mut Group)> {
        self.groups.iter_mut().map(|(role, group)| (*role, group))
    }

    /// Numbers that train now, adapters only or with the head.
    pub fn trainable(&self, with_head: bool) -> i64 {
        let counts = |role: &Role| with_head || role.is_adapter();
        self.groups.iter().filter(|(role, _)| counts(role)).map(|(_, g)| g.numel()).sum()
    }

    /// d loss / d parameter for everything that trains, one flat tensor a group.
    ///
    /// A parameter that the loss does not reach has gradient zero.
    ///
    /// # Errors
    /// The loss is not one number that depends on the parameters.
    pub fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        self.gradients_through(loss, Checkpoints::default())
    }

    /// [`gradients`](Self::gradients) of a loss behind checkpointed segments.
    pub fn gradients_through(&self, loss: &Tensor, checkpoints: Checkpoints) -> Result<Gradients> {
        if loss.numel() != 1 || !loss.requires_grad() {
            return Err(Error::Loss { shape: loss.size(), requires_grad: loss.requires_grad() });
        }
        let leaves: Vec<&Tensor> =
            self.groups.values().flat_map(|g| g.members.iter().map(|p| &p.leaf)).collect();
        let mut gradients = checkpoints.gradients(loss, &leaves)?.into_iter();
        Ok(tch::no_grad(|| {
            let mut flat = Gradients::new();
            for (&role, group) in self.groups.iter().filter(|(_, g)| !g.is_empty()) {
                let pieces: Vec<Tensor> = group
                    .members
                    .iter()
                    .zip(&mut gradients)
                    .map(|(p, g)| if g.defined() { g } else { p.leaf.zeros_like() })
                    .map(|g| g.reshape([-1]))
                    .collect();
                flat.insert(role, Tensor::cat(&pieces, 0));
            }
            flat
        }))
    }

    /// Freezes the parameters of `role` for which `leave` (in buffer order) is true, and takes
    /// them out of `gradients` too.
    pub fn freeze(&mut self, role: Role, leave: &[bool], gradients: &mut Gradients) {
        let Some(group) = self.groups.get_mut(&role) else {
            return;
        };
        tch::no_grad(|| {
            if let Some(gradient) = gradients.remove(&role) {
                let pieces: Vec<Tensor> = group
                    .slices(&gradient)
                    .zip(leave)
                    .filter(|(_, &f)| !f)
                    .map(|(s, _)| s)
                    .collect();
                if !pieces.is_empty() {
                    gradients.insert(role, Tensor::cat(&pieces, 0));
                }
            }
            group.freeze(leave);
        });
    }
}
