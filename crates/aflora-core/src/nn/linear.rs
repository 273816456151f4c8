//! A linear layer with a slot for what computes it, and the capture of layers being built.

use super::shapes::{is_shape_only, shape_only, shapes_suffice};
use std::borrow::Borrow;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tch::nn::{LinearConfig, Module, Path};
use tch::Tensor;

/// Computes a layer's output from its input, weight `[out, in]` and bias `[out]`.
pub type LinearForward = Box<dyn Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor + Send>;

type Slot = Arc<Mutex<Option<LinearForward>>>;

thread_local! {
    // Innermost capture last; models are built on one thread.
    static CAPTURES: RefCell<Vec<Vec<LinearHandle>>> = const { RefCell::new(Vec::new()) };
}

/// A fully connected layer, y = x Wᵀ + b, or what its slot makes of it.
///
/// An input of another kind than the weight is cast to the weight's: a model with a bf16 base
/// can keep its head in fp32.
pub struct Linear {
    /// The weight as stored: `[out, in]`, or `[in, out]` of a [`conv1d_linear`].
    pub ws: Tensor,
    /// The bias, `[out]`.
    pub bs: Option<Tensor>,
    transposed: bool,
    slot: Slot,
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
        self.is_computed_elsewhere() || own().any(Tensor::requires_grad)
    }

    /// Whether something computes it in its place.
    pub fn is_computed_elsewhere(&self) -> bool {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).is_some()
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
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(forward);
    }

    /// Whether its weight has a shape and no values: see [`shapes_only`](crate::shapes_only).
    pub fn is_shape_only(&self) -> bool {
        is_shape_only(&self.ws)
    }

    /// Gives the layer its plain computation back.
    pub fn clear(&self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
        return slotted(shape_only(vs, "weight", &[out_dim, in_dim]), bias, false);
    }
    let tch::nn::Linear { ws, bs } = tch::nn::linear(vs, in_dim, out_dim, config);
    slotted(ws, bs, false)
}

/// Creates a linear layer whose weight lies transposed, `[in, out]`, as the checkpoints of GPT-2
/// have it (their `Conv1D`). Weight and bias start at zero.
pub fn conv1d_linear<'a, T: Borrow<Path<'a>>>(vs: T, in_dim: i64, out_dim: i64) -> Linear {
    let vs = vs.borrow();
    if shapes_suffice() {
        let bias = Some(shape_only(vs, "bias", &[out_dim]));
        return slotted(shape_only(vs, "weight", &[in_dim, out_dim]), bias, true);
    }
    let zeros = tch::nn::Init::Const(0.0);
    let ws = vs.var("weight", &[in_dim, out_dim], zeros);
    slotted(ws, Some(vs.var("bias", &[out_dim], zeros)), true)
}

fn slotted(ws: Tensor, bs: Option<Tensor>, transposed: bool) -> Linear {
    let layer = Linear { ws, bs, transposed, slot: Slot::default() };
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
        let view;
        let weight = if self.transposed {
            view = self.ws.tr();
            &view
        } else {
            &self.ws
        };
        match self.slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(forward) => forward(x, weight, self.bs.as_ref()),
            None => x.linear(weight, self.bs.as_ref()),
        }
    }
}
