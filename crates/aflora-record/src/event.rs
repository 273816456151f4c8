//! One line of `events.jsonl`.
//!
//! What a later version adds does no harm; a kind of event that it adds is passed over.

use crate::evaluation::{Evaluation, Selection};
use crate::json::{nan, null_is_nan};
use serde::{Deserialize, Serialize};

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run begins.
    Begin {
        /// Optimiser steps of the whole run.
        total_steps: u64,
        /// Optimiser steps of an epoch.
        steps_per_epoch: u64,
        /// What decides which epoch is best.
        #[serde(flatten)]
        selection: Option<Selection>,
        /// Optimiser steps from one evaluation to the next; an epoch's where it does not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eval_every: Option<u64>,
    },
    /// Optimiser steps since the last such event.
    Step(Step),
    /// A test of which matrices freeze.
    Freeze(FreezeTest),
    /// An evaluation.
    Evaluation(Evaluation),
    /// What the best adapter came to on the split that is judged at the end.
    Test(Evaluation),
    /// The run ends before its last step, since evaluations became no better.
    EarlyStop {
        /// Completed optimiser steps.
        step: u64,
        /// Evaluations in a row that were no better than the best before them.
        patience: u64,
    },
    /// The run ended early.
    Failed {
        /// Why it did.
        error: String,
    },
}

/// Optimiser steps, up to one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Completed steps.
    pub step: u64,
    /// Mean training loss since the last event; NaN where no step was finite.
    #[serde(default = "nan", deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Learning rate of the projection matrices.
    #[serde(default = "nan", deserialize_with = "null_is_nan")]
    pub lr: f64,
    /// Joint gradient norm before clipping, of the last step.
    #[serde(default = "nan", deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Adapter parameters that train.
    pub trainable: i64,
    /// Rank components in use, where the method changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<i64>,
}

/// A test of which matrices freeze.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FreezeTest {
    /// Completed optimiser steps before this one.
    pub step: u64,
    /// The share r(t) of the elements or matrices that should be frozen.
    #[serde(default = "nan", deserialize_with = "null_is_nan")]
    pub ratio: f64,
    /// The score that decided, where one did.
    pub threshold: Option<f64>,
    /// Every matrix that trained up to now.
    pub matrices: Vec<MatrixScore>,
    /// The names of those that were frozen and train again from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thawed: Vec<String>,
}

/// What a test says of one matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatrixScore {
    /// The parameter's name.
    #[serde(default)]
    pub name: String,
    /// Mean of its elements' scores s(t).
    #[serde(default = "nan", deserialize_with = "null_is_nan")]
    pub score: f64,
    /// Whether it freezes now.
    pub frozen: bool,
}
