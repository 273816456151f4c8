//! A linear layer with a slot for what computes it, and the capture of layers being built.

use super::shapes::{is_shape_only, place, shape_only, shapes_suffice};
use crate::adapter::SidePath;
use crate::sharded::Share;
use crate::weight::{FrozenWeight, QuantisedWeight, WeightFormat};
use crate::{Error, Result};
use std::borrow::Borrow;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::nn::{LinearConfig, Module, Path};
use tch::Tensor;

/// Computes a layer's output from its input, weight `[out, in]` and bias `[out]`.
pub type LinearForward = Box<dyn Fn(&Tensor, &FrozenWeight, Option<&Tensor>) -> Tensor + Send>;

/// Gives the path that with the weight is all that such a forward computes, if there is one.
pub(crate) type LinearPath = Box<dyn Fn() -> Option<SidePath> + Send>;

/// What a layer and its handles share.
struct Inside {
    /// What computes the layer, where it is not the plain product.
    forward: Option<LinearForward>,
    /// The same as a path, where it may be one.
    path: Option<LinearPath>,
    /// A handle to `ws`, as stored, or codes, `[out, in]`.
    weight: FrozenWeight,
    /// What the weight is quantised to when it is [put](LinearHandle::put) there.
    format: Option<WeightFormat>,
    /// Its part in weights that are spread over ranks, which has the weight then.
    share: Option<Share>,
}

type Slot = Arc<Mutex<Inside>>;

thread_local! {
    // Innermost capture last; models are built on one thread.
    static CAPTURES: RefCell<Vec<Vec<LinearHandle>>> = const { RefCell::new(Vec::new()) };
}

/// A fully connected layer, y = x Wᵀ + b, or what its slot makes of it.
///
/// An input of another kind than the weight is cast to the weight's: a model with a bf16 base
/// can keep its head in fp32.
pub struct Linear {
    /// The weight as stored: `[out, in]`, or `[in, out]` of a [`conv1d_linear`]. Of a
    /// [`quantised_linear`] or a [`spread_linear`] only its place, which has its shape and the kind that
    /// products are of, and repeats one NaN.
    pub ws: Tensor,
    /// The bias, `[out]`.
    pub bs: Option<Tensor>,
    transposed: bool,
    slot: Slot,
}

/// What is inside is set in one go, so a panic elsewhere leaves it whole.
fn inside(slot: &Slot) -> MutexGuard<'_, Inside> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linear").field("ws", &self.ws).field("bs", &self.bs).finish()
    }
}

impl Linear {
    /// Whether its output has a gradient: something computes it in its place, or its own weights
    /// train.
    pub fn trains(&self) -> bool {
        let own = || [Some(&self.ws), self.bs.as_ref()].into_iter().flatten();
        inside(&self.slot).forward.is_some() || own().any(Tensor::requires_grad)
    }

    /// The weight, `[out, in]`, and the path that is beside it, where these are all that computes the layer and the
    /// weight lies here.
    pub(super) fn beside(&self) -> Option<(FrozenWeight, SidePath)> {
        let inside = inside(&self.slot);
        if inside.share.is_some() {
            return None;
        }
        let path = inside.path.as_ref()?()?;
        Some(match &inside.weight {
            FrozenWeight::Dense(ws) if self.transposed => (ws.tr().into(), path),
            weight => (weight.shallow_clone(), path),
        })
    }

    /// A handle that sets what computes the layer.
    pub fn slot(&self) -> LinearHandle {
        LinearHandle {
            ws: self.ws.shallow_clone(),
            bs: self.bs.as_ref().map(Tensor::shallow_clone),
            transposed: self.transposed,
            slot: self.slot.clone(),
        }
    }
}

/// A handle to a layer, such as one that was made during a [`capture`].
pub struct LinearHandle {
    /// The layer's weight as stored: a handle, not a copy.
    pub ws: Tensor,
    /// The bias, `[out]`: a handle, too.
    pub bs: Option<Tensor>,
    /// Whether the weight is stored as `[in, out]`.
    pub transposed: bool,
    slot: Slot,
}

impl Clone for LinearHandle {
    /// A further handle to the same layer.
    fn clone(&self) -> Self {
        LinearHandle {
            ws: self.ws.shallow_clone(),
            bs: self.bs.as_ref().map(Tensor::shallow_clone),
            transposed: self.transposed,
            slot: self.slot.clone(),
        }
    }
}

impl LinearHandle {
    /// Lets `forward` compute the layer from now on.
    pub fn set(&self, forward: LinearForward) {
        let mut inside = inside(&self.slot);
        inside.forward = Some(forward);
        inside.path = None;
    }

    /// As [`set`](Self::set), where `path` may have all that `forward` computes as a path beside the weight.
    pub(crate) fn set_with_path(&self, forward: LinearForward, path: LinearPath) {
        let mut inside = inside(&self.slot);
        inside.forward = Some(forward);
        inside.path = Some(path);
    }

    /// Whether its weight has a shape and no values: see [`shapes_only`](crate::shapes_only).
    pub(crate) fn is_shape_only(&self) -> bool {
        match &inside(&self.slot).weight {
            FrozenWeight::Dense(weight) => is_shape_only(weight),
            FrozenWeight::Quantised(_) => false,
        }
    }

    /// Gives the layer its plain computation back.
    pub fn clear(&self) {
        let mut inside = inside(&self.slot);
        inside.forward = None;
        inside.path = None;
    }

    /// What its weight is quantised to.
    pub fn format(&self) -> Option<WeightFormat> {
        inside(&self.slot).format
    }

    /// Whether what `ws` has is only its place: the weight is quantised, or spread over ranks.
    pub fn lies_elsewhere(&self) -> bool {
        let inside = inside(&self.slot);
        inside.format.is_some() || inside.share.is_some()
    }

    /// Whether its weight is spread over ranks.
    pub fn is_sharded(&self) -> bool {
        inside(&self.slot).share.is_some()
    }

    /// Lets the weight be a part of those that are spread over ranks.
    pub(crate) fn spread(&self, share: Share) {
        inside(&self.slot).share = Some(share);
    }

    /// The weight, `[out, in]`. Of one that is spread over ranks a copy, for which all must ask together.
    ///
    /// # Panics
    /// A rank is lost.
    pub fn weight(&self) -> FrozenWeight {
        let inside = inside(&self.slot);
        let own = match &inside.share {
            Some(share) => there(share.weight()).map_tensors(&Tensor::copy),
            None => inside.weight.shallow_clone(),
        };
        match own {
            FrozenWeight::Dense(ws) if self.transposed => ws.tr().into(),
            weight => weight,
        }
    }

    /// The weight's numbers as `ws` would have them: as they lie, or restored in single precision.
    pub fn stored(&self) -> Tensor {
        match self.transposed {
            true => self.weight().numbers().tr(),
            false => self.weight().numbers(),
        }
    }

    /// Gives a layer whose weight [lies elsewhere](Self::lies_elsewhere) that weight, which lies as `ws`
    /// does: in codes, or in the kind of `ws`.
    ///
    /// # Errors
    /// libtorch refuses; or the layer is none of these.
    pub fn put(&self, stored: &Tensor) -> Result<()> {
        self.fits(stored)?;
        let Some(format) = self.format() else {
            let share = inside(&self.slot).share.clone().ok_or(Error::NotQuantised)?;
            return share.put(stored.f_to_dtype(self.ws.kind(), false, false)?.into());
        };
        let weight = match self.transposed {
            true => QuantisedWeight::quantise(&stored.f_tr()?, format)?,
            false => QuantisedWeight::quantise(stored, format)?,
        };
        self.put_codes(weight)
    }

    /// Gives a quantised layer its weight, `[out, in]`, in codes of any format.
    ///
    /// # Errors
    /// The layer is none that is quantised, or has another shape.
    pub fn put_codes(&self, weight: QuantisedWeight) -> Result<()> {
        let size = self.ws.size();
        let own = if self.transposed { [size[1], size[0]] } else { [size[0], size[1]] };
        if weight.shape() != own {
            return Err(self.misfit(weight.shape().to_vec(), own.to_vec()));
        }
        let mut inside = inside(&self.slot);
        if inside.format.is_none() {
            return Err(Error::NotQuantised);
        }
        match &inside.share {
            Some(share) => share.put(FrozenWeight::Quantised(weight))?,
            None => inside.weight = FrozenWeight::Quantised(weight),
        }
        Ok(())
    }

    fn fits(&self, stored: &Tensor) -> Result<()> {
        match stored.size() == self.ws.size() {
            true => Ok(()),
            false => Err(self.misfit(stored.size(), self.ws.size())),
        }
    }

    fn misfit(&self, found: Vec<i64>, expected: Vec<i64>) -> Error {
        Error::Shape { site: "a layer".into(), what: "its weight", found, expected }
    }

    /// Gives the layer a weight of its own numbers, which lies as `ws` does. Layers that
    /// [share](fn@crate::nn::share) the one that it had keep it.
    ///
    /// # Errors
    /// libtorch refuses, or it has another shape; or the weight is spread over ranks.
    pub fn replace(&self, stored: &Tensor) -> Result<()> {
        self.fits(stored)?;
        if self.is_sharded() {
            return Err(Error::Sharded("a layer".into()));
        }
        self.ws.shallow_clone().f_set_data(&stored.f_contiguous()?)?;
        let mut inside = inside(&self.slot);
        inside.format = None;
        inside.weight = FrozenWeight::Dense(self.ws.shallow_clone());
        Ok(())
    }
}

impl fmt::Debug for LinearHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinearHandle").field("ws", &self.ws).finish_non_exhaustive()
    }
}

/// Drops the captures beyond so many, however their building ends.
struct Forget(usize);

impl Drop for Forget {
    fn drop(&mut self) {
        CAPTURES.with(|c| c.borrow_mut().truncate(self.0));
    }
}

/// Runs `build` and gives what it made together with every [`Linear`] made on the way.
pub fn capture<T>(build: impl FnOnce() -> T) -> (T, Vec<LinearHandle>) {
    let outer = Forget(CAPTURES.with(|c| c.borrow().len()));
    CAPTURES.with(|c| c.borrow_mut().push(Vec::new()));
    let made = build();
    let captured = CAPTURES.with(|c| c.borrow_mut().pop()).unwrap_or_default();
    drop(outer);
    (made, captured)
}

/// Creates a new linear layer.
pub fn linear<'a, T: Borrow<Path<'a>>>(
    vs: T,
    in_dim: i64,
    out_dim: i64,
    config: LinearConfig,
) -> Linear {
    if shapes_suffice() {
        let vs = vs.borrow();
        let bias = config.bias.then(|| shape_only(vs, "bias", &[out_dim]));
        return slotted(shape_only(vs, "weight", &[out_dim, in_dim]), bias, false, None);
    }
    let tch::nn::Linear { ws, bs } = tch::nn::linear(vs, in_dim, out_dim, config);
    slotted(ws, bs, false, None)
}

/// Creates a linear layer whose weight lies transposed, `[in, out]`, as the checkpoints of GPT-2
/// have it (their `Conv1D`). Weight and bias start at zero.
pub fn conv1d_linear<'a, T: Borrow<Path<'a>>>(vs: T, in_dim: i64, out_dim: i64) -> Linear {
    let vs = vs.borrow();
    if shapes_suffice() {
        let bias = Some(shape_only(vs, "bias", &[out_dim]));
        return slotted(shape_only(vs, "weight", &[in_dim, out_dim]), bias, true, None);
    }
    let zeros = tch::nn::Init::Const(0.0);
    let ws = vs.var("weight", &[in_dim, out_dim], zeros);
    slotted(ws, Some(vs.var("bias", &[out_dim], zeros)), true, None)
}

/// Creates a linear layer whose weight is held in `format` once it was [put](LinearHandle::put)
/// there, and stored as `[in, out]` if `transposed` says so. A bias starts at zero.
pub fn quantised_linear(
    vs: &Path,
    dims: (i64, i64),
    bias: bool,
    transposed: bool,
    format: WeightFormat,
) -> Linear {
    spread_linear(vs, dims, bias, transposed, Some(format))
}

/// Creates a linear layer whose weight has only its place among the variables: it is to be
/// [spread](fn@crate::nn::spread) over ranks, as it is or in a `format` as a [`quantised_linear`]'s.
pub fn spread_linear(
    vs: &Path,
    (in_dim, out_dim): (i64, i64),
    bias: bool,
    transposed: bool,
    format: Option<WeightFormat>,
) -> Linear {
    let shape = if transposed { [in_dim, out_dim] } else { [out_dim, in_dim] };
    let weight = match shapes_suffice() {
        true => shape_only(vs, "weight", &shape),
        false => place(vs, "weight", &shape, f64::NAN),
    };
    let bias = bias.then(|| match shapes_suffice() {
        true => shape_only(vs, "bias", &[out_dim]),
        false => vs.var("bias", &[out_dim], tch::nn::Init::Const(0.0)),
    });
    slotted(weight, bias, transposed, format)
}

/// What is there; where it is not, a panic, as of tch's operators where libtorch fails.
fn there<T>(found: Result<T>) -> T {
    found.unwrap_or_else(|error| panic!("{error}"))
}

fn slotted(
    ws: Tensor,
    bs: Option<Tensor>,
    transposed: bool,
    format: Option<WeightFormat>,
) -> Linear {
    let inside = Inside { forward: None, path: None, weight: (&ws).into(), format, share: None };
    let layer = Linear { ws, bs, transposed, slot: Arc::new(Mutex::new(inside)) };
    CAPTURES.with(|c| {
        if let Some(list) = c.borrow_mut().last_mut() {
            list.push(layer.slot());
        }
    });
    layer
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Tensor {
        let cast;
        let x = if x.kind() == self.ws.kind() {
            x
        } else {
            cast = x.to_kind(self.ws.kind());
            &cast
        };
        let inside = inside(&self.slot);
        let (here, view);
        let weight = match &inside.share {
            Some(share) => {
                here = there(share.weight());
                &here
            }
            None => &inside.weight,
        };
        let weight = match weight {
            FrozenWeight::Dense(ws) if self.transposed => {
                view = ws.tr().into();
                &view
            }
            weight => weight,
        };
        let y = match &inside.forward {
            Some(forward) => forward(x, weight, self.bs.as_ref()),
            None => weight.linear(x, self.bs.as_ref()),
        };
        match &inside.share {
            Some(share) => there(share.keeps(y)),
            None => y,
        }
    }
}
