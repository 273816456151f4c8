//! What an update is set to.

use crate::adapter::Role;
use crate::error::check;
use crate::optim::{AdamW, AdamWConfig, LrSchedule, Parameter, Schedule};
use crate::{Result, RunLength, Span};
use serde::{Deserialize, Serialize};

/// Settings of the update; the defaults are the paper's GLUE settings for MRPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TunerConfig {
    /// Peak rate of projection matrices and vectors: higher is quicker until it diverges.
    #[cfg_attr(feature = "schema", schemars(extend("section" = "The update")))]
    pub lr: f64,
    /// Peak rate of the vectors alone, where they should move at another pace.
    pub vector_lr: Option<f64>,
    /// Peak rate of the up-projections B as a multiple of that of A, as LoRA+ has it: 16, say, with a
    /// smaller lr; null: one rate.
    pub lr_ratio: Option<f64>,
    /// Peak rate of the task head, which starts from nothing.
    pub head_lr: f64,
    /// Decoupled decay of matrices and vectors: more holds them nearer to zero.
    pub weight_decay: f64,
    /// Decoupled decay of the vectors alone; null: as the matrices.
    pub vector_weight_decay: Option<f64>,
    /// Decoupled decay of the head's weights.
    ///
    /// Its biases have none.
    pub head_weight_decay: f64,
    /// Gradients are clipped to this joint norm: less is steadier and slower; null: off.
    pub max_grad_norm: Option<f64>,
    /// The rates rise over this span: longer is steadier, and later.
    ///
    /// Linearly, from zero; then they go as `lr_schedule` says.
    pub warmup: Span,
    /// How the rates fall behind the warm-up: linear and cosine to the end of the run, polynomial
    /// by a power, inverse_sqrt with the steps; constant not at all.
    ///
    /// The names are those of transformers' `lr_scheduler_type`; all have the warm-up.
    pub lr_schedule: LrSchedule,
    /// The power of the polynomial schedule; 1 is the linear one.
    pub lr_power: f64,
    /// The rates fall to this share of their peaks instead of zero.
    ///
    /// A share, since groups have peaks of their own.
    pub min_lr_ratio: f64,
    /// AdamW's constants.
    pub adamw: AdamWConfig,
}

impl Default for TunerConfig {
    fn default() -> Self {
        TunerConfig {
            lr: 1e-2,
            vector_lr: None,
            lr_ratio: None,
            head_lr: 8e-2,
            weight_decay: 0.1,
            vector_weight_decay: None,
            head_weight_decay: 0.1,
            max_grad_norm: Some(0.1),
            warmup: Span::Share(0.06),
            lr_schedule: LrSchedule::default(),
            lr_power: 1.0,
            min_lr_ratio: 0.0,
            adamw: AdamWConfig::default(),
        }
    }
}

impl TunerConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
    pub fn validate(&self) -> Result<()> {
        let rate = |field, lr: f64| {
            check(field, lr, lr.is_finite() && lr >= 0.0, "a finite number, at least 0")
        };
        rate("lr", self.lr)?;
        rate("vector_lr", self.vector_lr.unwrap_or(0.0))?;
        rate("head_lr", self.head_lr)?;
        let ratio = self.lr_ratio.unwrap_or(1.0);
        check("lr_ratio", ratio, ratio.is_finite() && ratio > 0.0, "positive, or null")?;
        rate("weight_decay", self.weight_decay)?;
        rate("vector_weight_decay", self.vector_weight_decay.unwrap_or(0.0))?;
        rate("head_weight_decay", self.head_weight_decay)?;
        if let Some(norm) = self.max_grad_norm {
            check("max_grad_norm", norm, norm > 0.0, "positive, or null for no clipping")?;
        }
        let (power, least) = (self.lr_power, self.min_lr_ratio);
        check("lr_power", power, power.is_finite() && power > 0.0, "positive")?;
        check("min_lr_ratio", least, (0.0..1.0).contains(&least), "at least 0 and below 1")?;
        AdamW::new(self.adamw).map(|_| ())
    }

    /// The rates' factor over a run of that length.
    pub(super) fn schedule(&self, length: RunLength) -> Schedule {
        let RunLength { steps_per_epoch, total_steps } = length;
        Schedule {
            decay: self.lr_schedule,
            warmup: self.warmup.steps(steps_per_epoch, total_steps),
            total: total_steps,
            power: self.lr_power,
            least: self.min_lr_ratio,
        }
    }

    /// Gives up-projections their multiple of the rate, and puts them behind the others: what has one
    /// rate lies together, and is updated together.
    ///
    /// # Errors
    /// There is a multiple, and no up-projection trains.
    pub(super) fn set_rates(&self, parameters: &mut [Parameter]) -> Result<()> {
        let Some(ratio) = self.lr_ratio else { return Ok(()) };
        let any = parameters.iter().any(Parameter::is_up);
        check("lr_ratio", ratio, any, "left out: the method trains no matrix B")?;
        for parameter in parameters.iter_mut().filter(|p| p.is_up()) {
            parameter.rate = ratio;
        }
        parameters.sort_by_key(Parameter::is_up);
        Ok(())
    }

    /// Peak rate and weight decay of a group.
    pub(super) fn rates(&self, role: Role) -> (f64, f64) {
        match role {
            Role::Projection => (self.lr, self.weight_decay),
            Role::Vector => (
                self.vector_lr.unwrap_or(self.lr),
                self.vector_weight_decay.unwrap_or(self.weight_decay),
            ),
            Role::SingularValue | Role::Weight => (self.lr, self.weight_decay),
            Role::Gate | Role::WeightBias => (self.lr, 0.0),
            Role::Head => (self.head_lr, self.head_weight_decay),
            Role::HeadBias => (self.head_lr, 0.0),
        }
    }
}
