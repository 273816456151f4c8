//! What can go wrong in the core, and what would be right.

use std::borrow::Cow;
use tch::TchError;

/// The result of a fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range.
    #[error("`{field}` is {value}, but must be {expected}")]
    Setting {
        /// The setting's name, as in a configuration file.
        field: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        expected: Cow<'static, str>,
    },
    /// A layer and what should be put on it do not fit.
    #[error("`{site}`: {what} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The layer's name.
        site: String,
        /// The tensor.
        what: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that fits.
        expected: Vec<i64>,
    },
    /// Codes were given to a layer that holds its numbers.
    #[error(
        "the layer holds its weight as numbers, not in codes: make it with `quantised_linear`"
    )]
    NotQuantised,
    /// The numbers of a weight in few bits are needed as they are.
    #[error(
        "`{0}` is held in few bits, so it can neither train nor be saved: choose another precision"
    )]
    Quantised(String),
    /// A weight that is spread over ranks is needed whole.
    #[error("`{0}` is spread over the ranks, so it can neither train, nor be saved or replaced")]
    Sharded(String),
    /// A method starts from weights that are spread over ranks.
    #[error(
        "`{0}` starts from the frozen weights, of which each rank has a part: load them whole, or \
         choose another method"
    )]
    ShardedStart(&'static str),
    /// Weights are used before all of them are there.
    #[error("not all weights are loaded that are spread over the ranks")]
    NotLoaded,
    /// Weights that are spread over ranks are given a second time.
    #[error("the weights are spread over the ranks: each is loaded once")]
    LoadedTwice,
    /// Two parameters, or two layers, carry one name.
    #[error("the name `{0}` is used twice; every adapted layer and parameter needs its own")]
    DuplicateName(String),
    /// A module that is to train in full is none of the model's.
    #[error("`{0}` names no module of the model")]
    NoModule(String),
    /// Nothing to train was given.
    #[error("there is nothing to train: no adapter and no head parameter is trainable")]
    NothingToTrain,
    /// An update before any gradient.
    #[error("there is no gradient to update with: call `backward` on a loss first")]
    NoGradient,
    /// A tensor cannot be trained as it is.
    #[error("`{name}` cannot be trained: it has kind {kind:?} (leaf: {leaf}, requires_grad: {requires_grad}); a trained parameter is a Float leaf that requires a gradient")]
    NotTrainable {
        /// The parameter's name.
        name: String,
        /// Its kind.
        kind: tch::Kind,
        /// Whether it is a leaf of the graph.
        leaf: bool,
        /// Whether it requires a gradient.
        requires_grad: bool,
    },
    /// The loss cannot be differentiated.
    #[error("the loss has shape {shape:?} and requires_grad={requires_grad}; it must be one number that depends on the trained parameters")]
    Loss {
        /// The loss tensor's shape.
        shape: Vec<i64>,
        /// Whether it is connected to any trained parameter.
        requires_grad: bool,
    },
    /// Parameters came without what their method does during training.
    #[error("`{0}` only trains with its method's hook; make the tuner with the method that made the adapters")]
    MissingHook(String),
    /// A method that trains the model's own weights was asked for adapters.
    #[error("the method `{0}` puts no adapters on layers: it trains the model's own weights")]
    NoAdapters(&'static str),
    /// A text is no span of training.
    #[error("`{0}` is no span of training; write `1 epoch`, `14 epochs`, `70%` or `100 steps`")]
    Span(String),
    /// A state to take up again is of another model, method or run.
    #[error(
        "the state is of another model, method or run: `{what}` is {found}, expected {expected}"
    )]
    State {
        /// What differs.
        what: String,
        /// Its value in the state.
        found: String,
        /// Its value in the tuner that was to be restored.
        expected: String,
    },
    /// A loss and checkpointed segments are of two forward passes.
    #[error("the loss does not depend on what the last of its {segments} checkpointed segments gave: they are of another forward pass")]
    Checkpoints {
        /// How many segments there are.
        segments: usize,
    },
    /// Ranks that train together are not equal any more.
    #[error("behind step {step}, what trains on rank {} is not what trains on rank 0: they must be equal to the bit. Machines of several sorts compute otherwise, and so does a GPU that fails", list(.ranks))]
    Diverged {
        /// Completed steps.
        step: u64,
        /// The ranks that are not as rank 0.
        ranks: Vec<usize>,
    },
    /// The ranks that train together do not go on.
    #[error(transparent)]
    World(#[from] aflora_cuda::WorldError),
    /// The shim refused.
    #[error(transparent)]
    Shim(#[from] aflora_cuda::Error),
    /// libtorch refused an operation.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// `Ok` if `value` lies in the range that `ok` tells, an [`Error::Setting`] otherwise.
pub(crate) fn check<V: std::fmt::Display>(
    field: &'static str,
    value: V,
    ok: bool,
    expected: impl Into<Cow<'static, str>>,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Setting { field, value: value.to_string(), expected: expected.into() })
}

/// That a state, or a number in one, is not what it should be here: an [`Error::State`].
pub(crate) fn misfit(
    what: impl Into<String>,
    found: impl ToString,
    expected: impl ToString,
) -> Error {
    Error::State { what: what.into(), found: found.to_string(), expected: expected.to_string() }
}

fn list(ranks: &[usize]) -> String {
    ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
