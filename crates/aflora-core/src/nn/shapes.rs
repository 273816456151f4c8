//! Models and adapters of which only the shapes are there: to look at, in no memory and no time.

use std::cell::Cell;
use tch::nn::{Init, Path};
use tch::Tensor;

thread_local! {
    static SHAPES_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `build`. What it makes on this thread (each [`Linear`](super::Linear), each embedding, each
/// adapter) has a shape, and repeats one value in every place, which takes neither memory nor time
/// to draw. It can be looked at, but neither loaded nor run.
pub fn shapes_only<T>(build: impl FnOnce() -> T) -> T {
    /// Sets it back even where `build` panics and someone above goes on.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            SHAPES_ONLY.set(self.0);
        }
    }
    let _before = Before(SHAPES_ONLY.replace(true));
    build()
}

/// Whether that is so at the moment.
pub(crate) fn shapes_suffice() -> bool {
    SHAPES_ONLY.get()
}

/// A variable that repeats one zero in every place.
pub(super) fn shape_only(vs: &Path, name: &str, shape: &[i64]) -> Tensor {
    place(vs, name, shape, 0.0)
}

/// A variable that repeats one number in every place.
pub(super) fn place(vs: &Path, name: &str, shape: &[i64], number: f64) -> Tensor {
    let mut variable = vs.var(name, &vec![1; shape.len()], Init::Const(number));
    expand(&mut variable, shape);
    variable
}

/// Whether a variable repeats one value in every place.
pub(super) fn is_shape_only(variable: &Tensor) -> bool {
    variable.numel() > 1 && variable.stride().iter().all(|&step| step == 0)
}

/// Makes a variable of one row or number repeat it in every place of `shape`.
pub(super) fn expand(variable: &mut Tensor, shape: &[i64]) {
    let place = variable.detach().expand(shape, false);
    variable.set_data(&place);
}
