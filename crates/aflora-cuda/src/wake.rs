//! A GPU woken up while the host reads files.
//!
//! libtorch loads its kernels, and opens NVIDIA's libraries, when each is first called for: that is most of the time of
//! a program's first training step, half a second and more. [`wake`] calls for those that every model needs, on
//! small numbers and on threads of its own, and [`awake`] waits for them. Nothing is drawn at random, and no tensor stays.

use std::sync::{Mutex, Once};
use std::thread::{self, JoinHandle};
use tch::{Device, Kind, Reduction, TchError, Tensor};

static WAKING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

type Work = fn(Device) -> Result<(), TchError>;

/// What is done, a thread each, with the threads' names.
const WORKS: [(&str, Work); 3] =
    [("wake step", step), ("wake attention", attention), ("wake update", update)];

/// Begins to wake a GPU. CUDA must be [loaded](crate::load).
pub fn wake(device: usize) {
    static AT_EXIT: Once = Once::new();
    // A thread must not be inside libtorch when that takes itself apart.
    AT_EXIT.call_once(|| {
        // SAFETY: a function that lives as long as the process. It runs before what was registered earlier, libtorch's own.
        let _ = unsafe { libc::atexit(wait_at_exit) };
    });
    let mut waking = WAKING.lock().unwrap_or_else(|e| e.into_inner());
    for (name, work) in WORKS {
        // What fails here fails again where it is needed, and is told there.
        let work = move || drop(work(Device::Cuda(device)));
        waking.extend(thread::Builder::new().name(name.into()).spawn(work));
    }
}

/// Waits until what [`wake`] began is done, if it was called: then the libraries that its threads opened, and
/// their memory, are this thread's to use.
pub fn awake() {
    let waking = std::mem::take(&mut *WAKING.lock().unwrap_or_else(|e| e.into_inner()));
    waking.into_iter().for_each(|thread| drop(thread.join()));
}

extern "C" fn wait_at_exit() {
    awake();
}

/// A step of a small model, forward and backward.
fn step(device: Device) -> Result<(), TchError> {
    const WIDTH: i64 = 64;
    let ones = |shape: &[i64]| Tensor::f_ones(shape, (Kind::BFloat16, device));
    let zeros = |count| Tensor::f_zeros([count], (Kind::Int64, device));
    let none = None::<Tensor>;
    let weight = ones(&[WIDTH, WIDTH])?.f_set_requires_grad(true)?;
    let bias = ones(&[WIDTH])?;
    let x = Tensor::f_embedding(&weight, &zeros(WIDTH)?, -1, false, false)?;
    let x = x.f_layer_norm([WIDTH], Some(&bias), Some(&bias), 1e-5, true)?;
    let x = x.f_linear(&weight, Some(&bias))?.f_gelu("none")?.f_matmul(&weight)?;
    let several = x.f_view([8, 8, WIDTH])?;
    let x = several.f_matmul(&several.f_transpose(1, 2)?)?.f_softmax(-1, Kind::BFloat16)?;
    let x = Tensor::f_cat(&[&x, &x], 0)?.f_tanh()?.f_to_kind(Kind::Float)?.f_view([-1, WIDTH])?;
    let head = weight.f_to_kind(Kind::Float)?.f_narrow(0, 0, 2)?;
    let logits = x.f_linear(&head, none.as_ref())?;
    let labels = zeros(logits.size()[0])?;
    logits.f_cross_entropy_loss(&labels, none, Reduction::Sum, -100, 0.0)?.f_backward()
}

/// Attention as libtorch, or cuDNN, has it.
fn attention(device: Device) -> Result<(), TchError> {
    let x = Tensor::f_ones([1, 1, 64, 64], (Kind::BFloat16, device))?.f_set_requires_grad(true)?;
    let mask = None::<Tensor>;
    let y = Tensor::f_scaled_dot_product_attention(&x, &x, &x, mask, 0.0, false, None, false)?;
    y.f_sum(Kind::Float)?.f_backward()
}

/// What an update does beside its own kernels: scores.
fn update(device: Device) -> Result<(), TchError> {
    let x = Tensor::f_ones([64], (Kind::Float, device))?;
    x.f_sign()?.f_mul(&x)?.f_abs()?.f_lerp(&x, 0.5).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it fails on a GPU, that stays asleep without a word.
    #[test]
    fn what_wakes_a_gpu_is_computed_to_its_end() {
        for (name, work) in WORKS {
            work(Device::Cpu).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}
