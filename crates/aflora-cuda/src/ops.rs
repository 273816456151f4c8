//! Fused operations: what takes several of libtorch's in one or two passes over memory, each a
//! node of libtorch's graph with a gradient of its own (shim/*.h, kernels/*.cu); and the [update](adamw) of what
//! trains, with the [norm](judge) of its gradients and what a freeze test [reads](kth_smallest).
//!
//! Each gives `None` where it does not take what it is given (another device, another kind, a
//! shape that does not divide by eight): the caller then composes libtorch's operations. For what models compute that
//! choice is made in one place, aflora-core's `kernels`; for the update and scores, where these are.

mod decoders;
mod fetched;
mod loss;
mod low_rank;
mod pieces;
mod scores;
mod update;

pub use decoders::{add_rms_norm, gated, rotary, GateActivation};
pub use fetched::{fetch, Fetched};
pub use loss::cross_entropy;
pub use low_rank::{feed_forward, low_rank, low_rank_together, LowRankLayer, LowRankPath};
pub use pieces::{clear, kth_smallest, means, Pieces};
pub use scores::{sensitivity, Sensitivity, Smoothing};
pub use update::{adamw, clip, collect, joint_norm, judge, AdamWStep, AdamWUpdate, Judged};

use crate::blocks::BlockFormat;
use crate::raw::{Out, Raw, RawQuantised};
use crate::shim::Shim;
use crate::{host, shim, Error};
use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};
use tch::{Device, Kind, Tensor};

static FAILURE: OnceLock<Error> = OnceLock::new();

/// Why an operation failed, if one did: the first of them. On a GPU all are off since then.
pub fn failure() -> Option<&'static Error> {
    FAILURE.get()
}

/// LayerNorm(dropout(x) + residual) over the last dimension with a frozen `gamma` and `beta`, in
/// the kind of `x`; sums in fp32. `dropout` is the share of `x` that is dropped, 0 outside training.
///
/// `x` and `residual`: `[.., features]`, `gamma` and `beta`: `[features]`; gives `[.., features]`.
pub fn add_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    eps: f64,
    dropout: f64,
) -> Option<Tensor> {
    run(x, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe {
            let (x, residual) = (x.as_ptr(), residual.as_ptr());
            (shim.add_layer_norm)(out, x, residual, raw(gamma), raw(beta), eps, dropout)
        }
    })
}

/// What DeBERTa's attention reads.
#[derive(Debug)]
pub struct Disentangled<'a> {
    /// Projected tokens, `[tokens, hidden]`. Further rows are positions projected as queries, as
    /// in `pos_query`: one product for both.
    pub query: &'a Tensor,
    /// As `query`, `[tokens, hidden]`; further rows as in `pos_key`.
    pub key: &'a Tensor,
    /// Projected tokens, `[tokens, hidden]`.
    pub value: &'a Tensor,
    /// Relative positions projected as keys, `[width, hidden]`; row t for the distance
    /// i - j = length - 1 - t. Without it and without further rows, there are no
    /// content-to-position scores.
    pub pos_key: Option<&'a Tensor>,
    /// The same positions projected as queries, `[width, hidden]`.
    pub pos_query: Option<&'a Tensor>,
    /// Added to every score of a key, `[batch, length]`.
    pub mask: &'a Tensor,
    /// How many attention heads there are.
    pub heads: i64,
    /// Multiplies every score.
    pub scale: f64,
    /// Dropout of attention weights; 0 outside training.
    pub dropout: f64,
}

/// Softmax attention over disentangled scores (He et al. 2021), `[batch, length, hidden]` in the
/// kind of [`value`](Disentangled::value).
pub fn disentangled(of: &Disentangled) -> Option<Tensor> {
    run(of.value, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe {
            (shim.disentangled)(
                out,
                of.query.as_ptr(),
                of.key.as_ptr(),
                of.value.as_ptr(),
                raw(of.pos_key),
                raw(of.pos_query),
                of.mask.as_ptr(),
                of.heads,
                of.scale,
                of.dropout,
            )
        }
    })
}

/// Which of the positions a distance reads, where distances share them.
#[derive(Debug, Clone, Copy)]
pub struct SharedPositions<'a> {
    /// Entry t is the row of [`pos_key`](Disentangled::pos_key) and
    /// [`pos_query`](Disentangled::pos_query) for i - j = length - 1 - t; from entry to entry it falls
    /// by one or stays. `[2 length - 1]`, Int.
    pub rows: &'a Tensor,
    /// Entry r is how many distances have row r or a later one, `[positions + 1]`, Int.
    pub edges: &'a Tensor,
}

/// [`disentangled`] by tiles on the tensor cores, for bf16: nothing of `[length, length]` is ever in
/// memory. The scores against positions of a pair are those of its distance's row, for which
/// [`pos_key`](Disentangled::pos_key) and [`pos_query`](Disentangled::pos_query), or further rows of
/// `key` and `query`, are `[positions, hidden]`; `shared` is missing where there are none.
///
/// Takes what [`tiles`] says.
pub fn disentangled_tiled(of: &Disentangled, shared: Option<SharedPositions>) -> Option<Tensor> {
    run(of.value, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe {
            (shim.disentangled_tiled)(
                out,
                of.query.as_ptr(),
                of.key.as_ptr(),
                of.value.as_ptr(),
                raw(of.pos_key),
                raw(of.pos_query),
                of.mask.as_ptr(),
                raw(shared.map(|shared| shared.rows)),
                raw(shared.map(|shared| shared.edges)),
                of.heads,
                of.scale,
                of.dropout,
            )
        }
    })
}

/// Whether [`disentangled_tiled`] takes texts of `length` tokens and heads of `size` numbers, in the
/// kind of `x`, `[..]`, and on its device.
pub fn tiles(x: &Tensor, size: i64, length: i64) -> bool {
    let mut takes = 0;
    fuses(x)
        && shim().is_ok_and(|shim| {
            // SAFETY: a tensor that lives through the call, and a place for a number.
            let returned = unsafe { (shim.tiles)(&mut takes, x.as_ptr(), size, length) };
            shim.check(returned).is_ok() && takes != 0
        })
}

/// What [`document_attention`] is to know beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct DocumentAttention<'a> {
    /// Where each document begins among all tokens of the batch, one row behind the other, and where the
    /// last ends, `[documents + 1]`, Int; documents may be empty.
    pub bounds: &'a Tensor,
    /// Multiplies every score; 1 / √size if not given.
    pub scale: Option<f64>,
    /// Dropout of attention weights; 0 outside training.
    pub dropout: f64,
    /// How many tokens a query sees, itself included; all of its document before it if not given.
    pub window: Option<i64>,
}

/// Causal attention within documents, by libtorch's flash attention over texts of any lengths: no matrix of a
/// row's tokens, and no work between documents. `query` `[batch, heads, length, size]`, `key` and
/// `value` of as many heads or fewer; `[batch, length, heads · size]`.
///
/// Takes bf16 and heads of at most 256 numbers, a multiple of eight, from compute capability 8.0 on; the largest not on all
/// of those. Bounds must be of these very tokens: they are not looked at.
pub fn document_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    of: &DocumentAttention,
) -> Option<Tensor> {
    run(query, |shim, out| {
        // SAFETY: tensors that live through the call.
        unsafe {
            (shim.document_attention)(
                out,
                query.as_ptr(),
                key.as_ptr(),
                value.as_ptr(),
                of.bounds.as_ptr(),
                of.scale.unwrap_or(1.0 / (query.size()[3] as f64).sqrt()),
                of.dropout,
                of.window.unwrap_or(0),
            )
        }
    })
}

/// A frozen weight, `[out_features, in_features]`.
#[derive(Debug, Clone, Copy)]
pub enum Frozen<'a> {
    /// Its numbers.
    Dense(&'a Tensor),
    /// Its codes.
    Quantised(Quantised<'a>),
}

/// A frozen weight in few bits, of [`shape`](Self::shape), in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct Quantised<'a> {
    /// With a map two codes of four bits a byte, the upper half first, `[⌈numbers / 2⌉]` of u8;
    /// without one a number each, `[rows, columns]` of i8 or e4m3; or [blocks](Self::blocks), of u8.
    pub codes: &'a Tensor,
    /// What blocks the codes are, if they are such, with their scales in them.
    pub blocks: Option<BlockFormat>,
    /// What the codes of four bits stand for, `[16]`, fp32.
    pub map: Option<&'a Tensor>,
    /// Of each block of numbers, `[⌈numbers / block⌉]`, fp32, or u8 if they are
    /// [codes themselves](Self::nested); without a map of each row, `[rows]`, fp32: of codes of i8 in
    /// 127ths, of e4m3 powers of two.
    pub scales: Option<&'a Tensor>,
    /// What codes of scales stand for.
    pub nested: Option<Nested<'a>>,
    /// Numbers that share a scale: an even count.
    pub block: i64,
    /// Rows and columns.
    pub shape: [i64; 2],
    /// Whether, on a CPU, codes of i8 are multiplied by whole numbers, to which `x` is rounded row by row, and for the
    /// gradient its other operand.
    pub dynamic: bool,
}

/// Scales that are codes: `map[code] · scale of the block + offset`.
#[derive(Debug, Clone, Copy)]
pub struct Nested<'a> {
    /// `[256]`, fp32.
    pub map: &'a Tensor,
    /// Of each block of scales, `[⌈scales / block⌉]`, fp32.
    pub scales: &'a Tensor,
    /// Added to every scale.
    pub offset: f64,
    /// Scales that share a scale.
    pub block: i64,
}

impl Quantised<'_> {
    fn as_raw(&self) -> RawQuantised {
        RawQuantised {
            codes: self.codes.as_ptr(),
            map: raw(self.map),
            scales: raw(self.scales),
            nested_map: raw(self.nested.map(|nested| nested.map)),
            nested_scales: raw(self.nested.map(|nested| nested.scales)),
            offset: self.nested.map_or(0.0, |nested| nested.offset),
            block: self.block,
            nested_block: self.nested.map_or(1, |nested| nested.block),
            rows: self.shape[0],
            columns: self.shape[1],
            format: self.blocks.map_or(0, |format| format as i64),
            dynamic: i64::from(self.dynamic),
        }
    }
}

/// The weight in fp32 or bf16, `[rows, columns]`: each number rounded once. On a CPU all of
/// libtorch's threads share it.
pub fn restore(weight: &Quantised, kind: Kind) -> Option<Tensor> {
    let bf16 = match kind {
        Kind::Float => false,
        Kind::BFloat16 => true,
        _ => return None,
    };
    let raw = weight.as_raw();
    match weight.codes.device() {
        Device::Cpu => on_host(|out| host::restore(out, &raw, bf16)),
        // SAFETY: tensors that live through the call.
        _ => run(weight.codes, |shim, out| unsafe { (shim.restore)(out, &raw, c_int::from(bf16)) }),
    }
}

/// `x Wᵀ + bias` in the kind of `x`, for which the weight is restored, and again for the gradient
/// of `x`; neither keeps it. On a GPU, of up to eight rows of `x` it is not restored but read where
/// it lies.
///
/// With a weight in e4m3 `x`, and its gradient's other operand, are rounded to e4m3 row by row, on every
/// device; a GPU of compute capability 8.9 or later multiplies in fp8 what is of bf16 and has more than
/// eight rows, where both sides of the weight divide by 16.
///
/// `x`: `[.., columns]`, `bias`: `[rows]`; gives `[.., rows]`.
pub fn quantised_linear(x: &Tensor, weight: &Quantised, bias: Option<&Tensor>) -> Option<Tensor> {
    let (raw_weight, bias) = (weight.as_raw(), raw(bias));
    match x.device() {
        Device::Cpu => on_host(|out| host::quantised_linear(out, x.as_ptr(), &raw_weight, bias)),
        _ => run(x, |shim, out| {
            // SAFETY: tensors that live through the call.
            unsafe { (shim.quantised_linear)(out, x.as_ptr(), &raw_weight, bias) }
        }),
    }
}

/// What is called before a gradient goes on; why it failed, if it did.
pub type BeforeGradient = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

thread_local! {
    /// Why the thread's last call before a gradient failed.
    static FAILED: RefCell<CString> = RefCell::default();
}

/// `x`, of any shape `[..]` on any device, in its memory: in a backward pass `call` is called first,
/// by whichever thread that runs in, then the gradient goes on as it is. A call that fails, fails
/// the backward pass. What was computed right before, down to what `x` was made of, has its gradient
/// computed right behind the call.
///
/// # Errors
/// The crate was built without libtorch's headers, or libtorch refuses.
pub fn before_backward(x: &Tensor, call: BeforeGradient) -> Result<Tensor, Error> {
    unsafe extern "C" fn call_it(data: *mut c_void) -> *const c_char {
        // SAFETY: `data` is the box below, which the node owns.
        let call = unsafe { &*data.cast::<BeforeGradient>() };
        // No panic may go on into C++.
        let called = catch_unwind(AssertUnwindSafe(|| call()));
        match called.unwrap_or_else(|_| Err("what is called before a gradient panicked".into())) {
            Ok(()) => std::ptr::null(),
            Err(words) => {
                FAILED.replace(CString::new(words.replace('\0', " ")).unwrap_or_default());
                FAILED.with_borrow(|words| words.as_ptr())
            }
        }
    }
    unsafe extern "C" fn free_it(data: *mut c_void) {
        // SAFETY: the box below, freed once.
        drop(unsafe { Box::from_raw(data.cast::<BeforeGradient>()) });
    }
    let mut out = std::ptr::null_mut();
    let data = Box::into_raw(Box::new(call)).cast();
    host::before_backward(&mut out, x.as_ptr(), (call_it, free_it), data)?;
    // SAFETY: a new tensor, ours alone.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Runs an operation of the CPU's.
fn on_host(operation: impl FnOnce(Out) -> Result<(), Error>) -> Option<Tensor> {
    let mut out = std::ptr::null_mut();
    if let Err(error) = operation(&mut out) {
        let _ = FAILURE.set(error);
        return None;
    }
    // SAFETY: a new tensor, ours alone.
    (!out.is_null()).then(|| unsafe { Tensor::from_ptr(out) })
}

/// A copy of a host tensor, `[..]` of any kind, on the GPU `index`, by way of pinned memory: the
/// host does not wait for it. None where CUDA is not loaded.
pub fn to_gpu(t: &Tensor, index: usize) -> Option<Tensor> {
    let (shim, mut out) = (shim().ok()?, std::ptr::null_mut());
    // SAFETY: a tensor that lives through the call.
    shim.check(unsafe { (shim.to_gpu)(&mut out, t.as_ptr(), c_int::try_from(index).ok()?) })
        .ok()?;
    // SAFETY: a new tensor, ours alone.
    Some(unsafe { Tensor::from_ptr(out) })
}

/// Whether operations on `x`, of any shape `[..]`, may be fused at all: it lies on a GPU, and no
/// kernel has failed.
pub fn fuses(x: &Tensor) -> bool {
    let gpu = matches!(x.device(), tch::Device::Cuda(_));
    gpu && FAILURE.get().is_none() && shim().is_ok()
}

fn raw(tensor: Option<&Tensor>) -> Raw {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

/// Runs an operation on tensors that lie where `x` lies.
fn run(x: &Tensor, operation: impl FnOnce(&Shim, Out) -> c_int) -> Option<Tensor> {
    run_for(x, operation).map(|[made]| made)
}

/// As [`run`], one that makes `N` tensors, or none of them.
fn run_for<const N: usize>(
    x: &Tensor,
    operation: impl FnOnce(&Shim, Out) -> c_int,
) -> Option<[Tensor; N]> {
    if !fuses(x) {
        return None;
    }
    let shim = shim().ok()?;
    let mut out = [std::ptr::null_mut(); N];
    match shim.check(operation(shim, out.as_mut_ptr())) {
        Ok(()) => {
            let all = out.iter().all(|made| !made.is_null());
            // SAFETY: new tensors, ours alone.
            all.then(|| out.map(|made| unsafe { Tensor::from_ptr(made) }))
        }
        Err(error) => {
            let _ = FAILURE.set(error);
            None
        }
    }
}
