//! Every trained parameter in one flat fp32 buffer, a stretch of it a group.
//!
//! A parameter stays the leaf tensor that its module computes with; packing only moves its
//! storage into the buffer. Clipping, scores and AdamW are then a handful of kernels however
//! many adapters there are, and saving is one tensor a group.
//!
//! A parameter keeps its place for life: work that was recorded once as a CUDA graph reads and
//! writes the same memory ever after. Freezing takes it out of what is updated: the update goes
//! over [`Group::live`] stretches alone, so a frozen matrix cannot move again, by construction
//! and not by a mask. State that only frozen parameters had is given back. What [rests](super::Standing)
//! is frozen for a while: `resting.rs` has how it is looked at, and how it comes back.

use super::gradients::{Gradients, BESIDE};
use super::parameter::Parameter;
use crate::adapter::Role;
use crate::{Checkpoints, Error, Result};
use aflora_cuda::ops::{self, Pieces};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Groups begin at multiples of this many numbers, for kernels that read several at once.
const ALIGNMENT: i64 = 4;

/// A parameter at its place in its group's buffers.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) parameter: Parameter,
    pub(super) place: Range<i64>,
    pub(super) live: bool,
    /// Whether it is frozen for a while only.
    pub(super) rests: bool,
}

/// What trains of a group at one rate.
#[derive(Debug)]
pub(super) struct LiveAt {
    /// As a multiple of the group's.
    pub(super) rate: f64,
    /// Where it lies; those that touch are one.
    pub(super) stretches: Vec<Range<i64>>,
    /// The same for a kernel, on a GPU.
    pub(super) pieces: Option<Pieces>,
}

/// One group's parameters, end to end, and the state that goes with them.
#[derive(Debug)]
pub struct Group {
    pub(super) values: Tensor,
    pub(super) members: Vec<Member>,
    // Where live members lie; and those of each rate.
    pub(super) live: Stretches,
    pub(super) by_rate: Vec<LiveAt>,
    // Where no gradients are computed.
    ungraded: Stretches,
    pub(super) probing: bool,
    // 1 where a gradient is computed, made on first use since that changed.
    pub(super) observed: Option<Tensor>,
    // What is not frozen for good, a piece a parameter, made on first use since that changed.
    pub(super) open_pieces: OnceCell<Pieces>,
    // Buffers as long as `values`, by name: moments, scores. Made on first use.
    pub(super) state: BTreeMap<Cow<'static, str>, Tensor>,
}

impl Group {
    /// All values, frozen ones included, `[n]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// How many numbers train.
    pub fn numel(&self) -> i64 {
        self.live().iter().map(|run| run.end - run.start).sum()
    }

    /// How many parameters train.
    pub fn len(&self) -> usize {
        self.live_members().count()
    }

    /// How many parameters there are, frozen ones included.
    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// Whether nothing trains any more.
    pub fn is_empty(&self) -> bool {
        self.live().is_empty()
    }

    fn live_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| m.live)
    }

    /// The parameters that train, in buffer order; a leaf has its own shape, such as
    /// `[rank, in_features]`.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.live_members().map(|m| &m.parameter)
    }

    /// A buffer that goes with the values, `[n]`, zero at first; a handle to it, not a copy.
    pub fn state(&mut self, name: &'static str) -> Tensor {
        let values = &self.values;
        self.state.entry(name.into()).or_insert_with(|| values.zeros_like()).shallow_clone()
    }

    /// Whether that buffer is there already.
    pub fn has_state(&self, name: &str) -> bool {
        self.state.contains_key(name)
    }

    /// Views of each training parameter's part, `[its numbers]`, of `flat`, which is laid out like
    /// the values, `[n]`.
    pub fn slices<'a>(&'a self, flat: &'a Tensor) -> impl Iterator<Item = Tensor> + 'a {
        self.live_members().map(|m| part(flat, &m.place))
    }

    /// The stretches of the buffers that train, in order; those that touch are one.
    pub fn live(&self) -> &[Range<i64>] {
        &self.live.all
    }

    /// What trains of `flat`, which is laid out like the values, `[n]`: end to end, `[numbers that
    /// train]`. No copy where nothing is frozen.
    pub fn gather(&self, flat: &Tensor) -> Tensor {
        match self.live() {
            [run] => part(flat, run),
            runs => {
                let parts: Vec<Tensor> = runs.iter().map(|run| part(flat, run)).collect();
                match parts.is_empty() {
                    true => part(flat, &(0..0)),
                    false => Tensor::cat(&parts, 0),
                }
            }
        }
    }

    pub(super) fn find_live(&mut self) {
        self.live = Stretches::of(self.live_members());
        self.open_pieces = OnceCell::new();
        let mut rates: Vec<f64> = Vec::new();
        for member in self.live_members() {
            let rate = member.parameter.rate;
            if !rates.contains(&rate) {
                rates.push(rate);
            }
        }
        let device = self.values.device();
        let of = |rate| {
            let stretches =
                Stretches::of(self.live_members().filter(|m| m.parameter.rate == rate)).all;
            let pieces = (device != Device::Cpu).then(|| Pieces::new(&stretches, device));
            LiveAt { rate, stretches, pieces }
        };
        self.by_rate = rates.into_iter().map(of).collect();
        self.observed = None;
        let ungraded = self.members.iter().filter(|m| !(m.live || m.rests && self.probing));
        self.ungraded = Stretches::of(ungraded);
    }
}

/// Parts of a group's buffers, in order.
#[derive(Debug, Default)]
pub(super) struct Stretches {
    all: Vec<Range<i64>>,
    /// The same for kernels, made on first use.
    pieces: OnceCell<Pieces>,
}

impl Stretches {
    /// Where these lie: those that touch are one stretch.
    pub fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let mut all: Vec<Range<i64>> = Vec::new();
        for Member { place, .. } in members {
            match all.last_mut().filter(|last| last.end == place.start) {
                Some(last) => last.end = place.end,
                None => all.push(place.clone()),
            }
        }
        Stretches { all, pieces: OnceCell::new() }
    }

    /// For kernels, on this device, which is always the same.
    pub fn pieces(&self, device: Device) -> &Pieces {
        self.pieces.get_or_init(|| Pieces::new(&self.all, device))
    }

    /// Zeroes these parts of a buffer, `[n]`.
    pub fn clear(&self, buffer: &Tensor) {
        let on_gpu =
            || buffer.device() != Device::Cpu && ops::clear(buffer, self.pieces(buffer.device()));
        tch::no_grad(|| {
            if !self.all.is_empty() && !on_gpu() {
                self.all.iter().for_each(|run| drop(part(buffer, run).zero_()));
            }
        });
    }
}

/// All trained parameters, packed by group.
#[derive(Debug)]
pub struct Arena {
    flat: Tensor,
    pub(super) groups: BTreeMap<Role, Group>,
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
        let Some(first) = by_role.values().flatten().next() else {
            return Err(Error::NothingToTrain);
        };
        let device = first.leaf.device();
        tch::no_grad(|| {
            let stretch = |members: &[Parameter]| -> i64 {
                members.iter().map(|p| p.leaf.numel() as i64).sum()
            };
            let total = by_role.values().map(|members| padded(stretch(members))).sum::<i64>();
            let flat = Tensor::zeros([total], (Kind::Float, device));
            let mut offset = 0;
            let groups = by_role.into_iter().map(|(role, members)| {
                let n = stretch(&members);
                let values = flat.narrow(0, offset, n);
                offset += padded(n);
                (role, pack(values, members))
            });
            let groups = groups.collect();
            Ok(Arena { flat, groups })
        })
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

    /// A number that two arenas of one layout have in common only where all their values are the same to
    /// the bit, but for a chance of 1 in 2⁶⁴. Waits for the device.
    ///
    /// # Errors
    /// libtorch cannot read it.
    pub fn digest(&self) -> Result<i64> {
        // So many at once: what it makes of them takes four times their memory.
        const STRETCH: i64 = 1 << 22;
        // An odd number: no bit of any factor is lost.
        const FACTOR: i64 = 0x5851_F42D_4C95_7F2D;
        let bits = self.flat.f_view_dtype(Kind::Int)?;
        let mut digest = 0i64;
        for part in bits.split(STRETCH, 0) {
            let places = Tensor::arange(part.numel() as i64, (Kind::Int64, self.device()));
            let sum = (part.to_kind(Kind::Int64) * (places * 2 + 1)).sum(Kind::Int64);
            let sum = i64::try_from(sum)?;
            digest = digest.wrapping_mul(FACTOR).wrapping_add(sum);
        }
        Ok(digest)
    }

    /// The device on which everything lies.
    pub fn device(&self) -> Device {
        self.flat.device()
    }

    /// Numbers that train now, adapters only or with the head.
    pub fn trainable(&self, with_head: bool) -> i64 {
        let counts = |role: &Role| with_head || role.is_adapter();
        self.groups.iter().filter(|(role, _)| counts(role)).map(|(_, g)| g.numel()).sum()
    }

    /// How many parameters are frozen.
    pub fn frozen(&self) -> usize {
        self.groups.values().map(|group| group.count() - group.len()).sum()
    }

    /// A buffer for gradients, empty.
    pub fn buffer(&self) -> Gradients {
        let n = self.flat.numel() as i64;
        let whole = Tensor::zeros([n + BESIDE], (Kind::Float, self.device()));
        let flat = whole.narrow(0, 0, n);
        let mut offset = 0;
        let groups = self.groups.iter().map(|(&role, group)| {
            let n = group.values.numel() as i64;
            let own = flat.narrow(0, offset, n);
            offset += padded(n);
            (role, own)
        });
        let groups = groups.collect();
        Gradients { whole, flat, groups, empty: true }
    }

    /// d loss / d parameter for everything that trains; `loss` is one number, `[]`.
    ///
    /// A parameter that the loss does not reach has gradient zero. Once all are frozen, so has
    /// everything.
    ///
    /// # Errors
    /// The loss is not one number that depends on the parameters.
    pub fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let mut gradients = self.buffer();
        self.add_gradients(loss, Checkpoints::default(), &mut gradients)?;
        Ok(gradients)
    }

    /// Adds the [`gradients`](Self::gradients) of a loss, `[]`, behind checkpointed segments to
    /// `sum`.
    ///
    /// # Errors
    /// The loss is not one number that depends on the parameters, or is none of these segments'.
    pub fn add_gradients(
        &self,
        loss: &Tensor,
        checkpoints: Checkpoints,
        sum: &mut Gradients,
    ) -> Result<()> {
        if self.groups.values().all(|group| group.graded_members().next().is_none())
            && loss.numel() == 1
        {
            if sum.empty {
                let _ = tch::no_grad(|| sum.flat.zero_());
            }
            sum.empty = false;
            return Ok(());
        }
        if loss.numel() != 1 || !loss.requires_grad() {
            return Err(Error::Loss { shape: loss.size(), requires_grad: loss.requires_grad() });
        }
        let leaves: Vec<&Tensor> = self
            .groups
            .values()
            .flat_map(Group::graded_members)
            .map(|m| &m.parameter.leaf)
            .collect();
        let mut gradients = checkpoints.gradients(loss, &leaves)?.into_iter();
        let (mut places, mut found) = (Vec::new(), Vec::new());
        for (role, group) in &self.groups {
            let Some(buffer) = sum.groups.get(role) else { continue };
            for (member, gradient) in group.graded_members().zip(&mut gradients) {
                let leaf = &member.parameter.leaf;
                let gradient = if gradient.defined() { gradient } else { leaf.zeros_like() };
                places.push(part(buffer, &member.place));
                found.push(gradient.reshape([-1]));
            }
        }
        tch::no_grad(|| {
            if !ops::collect(&places, &found, !sum.empty) {
                for (place, gradient) in places.iter_mut().zip(&found) {
                    match sum.empty {
                        true => place.f_copy_(gradient).map(drop)?,
                        false => drop(place.f_add_(gradient)?),
                    }
                }
            }
            sum.empty = false;
            Ok(())
        })
    }

    /// Zeroes the gradients that are not computed any more.
    ///
    /// Work that was recorded before a freeze goes on to write them.
    pub fn clear_frozen(&self, gradients: &mut Gradients) {
        for (role, Group { ungraded, .. }) in &self.groups {
            if let Some(buffer) = gradients.groups.get(role) {
                ungraded.clear(buffer);
            }
        }
    }
}

/// Moves parameters into `values`, which has room for them.
fn pack(values: Tensor, parameters: Vec<Parameter>) -> Group {
    let mut offset = 0;
    let members = parameters.into_iter().map(|mut parameter| {
        let place = offset..offset + parameter.leaf.numel() as i64;
        offset = place.end;
        let mut own = part(&values, &place).view(parameter.leaf.size().as_slice());
        own.copy_(&parameter.leaf.detach());
        parameter.leaf.set_data(&own);
        Member { parameter, place, live: true, rests: false }
    });
    let members = members.collect();
    let (live, by_rate, ungraded) = Default::default();
    let (probing, observed, state) = Default::default();
    let open_pieces = OnceCell::new();
    let mut group =
        Group { values, members, live, by_rate, ungraded, probing, observed, open_pieces, state };
    group.find_live();
    group
}

/// Room for `n` numbers, up to where the next group may begin.
fn padded(n: i64) -> i64 {
    (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

pub(super) fn part(flat: &Tensor, place: &Range<i64>) -> Tensor {
    flat.narrow(0, place.start, place.end - place.start)
}
