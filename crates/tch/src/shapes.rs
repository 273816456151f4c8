//! Models of which only the shapes are there.

use crate::restore::Restore;
use std::cell::Cell;
use tch24::nn::{Init, Path};
use tch24::Tensor;

thread_local! {
    static WITHOUT_WEIGHTS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `build`; the weights of every [`Linear`](crate::nn::Linear) and embedding made on the way
/// have a shape and take no memory. The model can be looked at, but neither loaded nor run.
pub fn without_weights<T>(build: impl FnOnce() -> T) -> T {
    let _restore = Restore::after(&WITHOUT_WEIGHTS, true);
    build()
}

/// Whether that is so at the moment.
pub(crate) fn without_weights_now() -> bool {
    WITHOUT_WEIGHTS.get()
}

/// A variable that repeats one zero in every place.
pub(crate) fn shape_only(vs: &Path, name: &str, shape: &[i64]) -> Tensor {
    let mut variable = vs.var(name, &vec![1; shape.len()], Init::Const(0.0));
    expand(&mut variable, shape);
    variable
}

/// Makes a variable of one row or number repeat it in every place of `shape`.
pub(crate) fn expand(variable: &mut Tensor, shape: &[i64]) {
    let place = variable.detach().expand(shape, false);
    variable.set_data(&place);
}
