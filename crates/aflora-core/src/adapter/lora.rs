//! LoRA (Hu et al. 2022), the reference of every comparison: y = W0 x + s · B (A x), with
//! s = alpha / rank, or alpha / √rank as rsLoRA has it (Kalajdzievski 2023).
//!
//! With `freeze`, A and B freeze as AFLoRA's do, by the same scores, schedule and rule, which ask
//! for nothing but matrices and their gradients. Without `train_a`, A stays as it started, as in
//! LoRA-FA (Zhang et al. 2023): fewer parameters and optimiser states, and an input that no backward
//! pass has to keep. (PEFT's LoRA-FA optimiser also divides the gradient of B by A Aᵀ, which the
//! paper's later versions have; here it is the gradient.)

use super::checks::{check_dropout, check_layers};
use super::factored::Factored;
use super::init::{constant, lora_uniform};
use super::peft::{Allowed, AllowedKeys, Peft, PeftSetting, PeftType, PeftValue, WrittenAdapters};
use super::site::{Layer, Site};
use super::start::Init;
use super::tensor::{Role, TensorSpec};
use super::traits::{Adapter, Method, MethodSettings};
use crate::error::check;
use crate::freeze::FreezeConfig;
use crate::hook::Hook;
use crate::optim::Parameter;
use crate::span::RunLength;
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::Device;

/// A and B.
pub(super) const TENSORS: [TensorSpec; 2] = [
    TensorSpec::new("lora_A", "lora_A.weight", Role::Projection, Some(0)),
    TensorSpec::new("lora_B", "lora_B.weight", Role::Projection, Some(1)),
];

/// LoRA's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Of A and B: more can learn more, and is more to train and to store.
    pub rank: i64,
    /// The path is scaled by alpha / rank: more acts like a higher rate.
    pub alpha: f64,
    /// Scales by alpha / √rank instead, which lets high ranks learn.
    ///
    /// rsLoRA.
    pub rslora: bool,
    /// Share of the adapter's input that is dropped out: against overfitting, at the cost of speed.
    pub dropout: f64,
    /// What A and B start as: random and zero; the weight's largest singular values (PiSSA); or the
    /// first part of its QR decomposition (OLoRA). The model starts unchanged all the same.
    pub init: Init,
    /// Rounds of an approximation of PiSSA's singular values, quicker on wide layers: 4, or 16 for
    /// more precision; null: the exact ones.
    pub pissa_niter: Option<u32>,
    /// Whether A trains: false leaves it as it started, as LoRA-FA has it.
    pub train_a: bool,
    /// How A and B freeze, if they do: as AFLoRA's.
    pub freeze: FreezeConfig,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let freeze = FreezeConfig::never();
        LoraConfig {
            rank: 8,
            alpha: 8.0,
            rslora: false,
            dropout: 0.0,
            init: Init::Standard,
            pissa_niter: None,
            train_a: true,
            freeze,
        }
    }
}

impl LoraConfig {
    /// s, by which the product B A x is multiplied: α / r, or α / √r with `rslora`.
    pub(super) fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// A fresh path on a layer, with the tensors `specs`.
    pub(super) fn path(
        &self,
        layer: &Layer,
        specs: &'static [TensorSpec],
        seed: u64,
        device: Device,
    ) -> Result<Factored> {
        let LoraConfig { rank, dropout, init, pissa_niter, train_a, .. } = *self;
        let (site, scale) = (&layer.site, self.scale());
        let path = |pair| Factored::new(site, specs, pair, None, scale, dropout);
        let path = match init.of_weight(layer, rank, scale, pissa_niter, seed, device)? {
            Some(pair) => path(pair).starting_within(),
            None => {
                let a = lora_uniform([rank, site.in_features], seed, &site.name, device);
                path([a, constant([site.out_features, rank], 0.0, device)])
            }
        };
        Ok(if train_a { path } else { path.without_a() })
    }

    /// Parameters of A and B that train at the start on `site`.
    pub(super) fn trainable_count(&self, site: &Site) -> i64 {
        self.rank * (site.out_features + if self.train_a { site.in_features } else { 0 })
    }

    /// Checks every range.
    pub(super) fn validate(&self) -> Result<()> {
        let LoraConfig { rank, alpha, dropout, ref freeze, .. } = *self;
        check("rank", rank, rank > 0, "a positive number")?;
        check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        check_dropout(dropout)?;
        if let Some(niter) = self.pissa_niter {
            let pissa = self.init == Init::Pissa;
            check("pissa_niter", niter, pissa, "left out: `init` is not `pissa`")?;
            check("pissa_niter", niter, niter <= 1000, "at most 1000, or null")?;
        }
        let start = "adaptive or never: B starts at 0, and would stay there";
        check("freeze.mode", "start", freeze.trains_at_start(), start)?;
        let unused = freeze.is_adaptive() || *freeze == FreezeConfig::never();
        check("freeze.mode", "never", unused, "adaptive, for its other settings to have a say")?;
        freeze.validate()
    }
}

impl MethodSettings for LoraConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        Ok(Box::new(Lora::new(self.clone())?))
    }

    fn rank(&self) -> Option<i64> {
        Some(self.rank)
    }

    fn freezing(&self) -> Option<&FreezeConfig> {
        Some(&self.freeze)
    }

    fn peft(&self) -> Option<&'static Peft> {
        Some(&PEFT)
    }

    /// What started as part of the weight is written as plain LoRA beside the untouched one, as
    /// PEFT converts it: of twice the rank, and of the same scale.
    fn peft_of_run(&self, _: WrittenAdapters<'_>) -> Vec<(&'static str, PeftValue)> {
        if self.init == Init::Standard {
            return Vec::new();
        }
        let wider = if self.rslora { 2f64.sqrt() } else { 2.0 };
        vec![
            ("r", PeftValue::Whole(2 * self.rank)),
            ("lora_alpha", PeftValue::Number(wider * self.alpha)),
        ]
    }
}

/// LoRA as PEFT has it.
pub(super) const PEFT: Peft = Peft {
    peft_type: "LORA",
    switches: &[],
    settings: &[
        PeftSetting::new("r", "rank", PeftType::Whole(8)),
        PeftSetting::new("lora_alpha", "alpha", PeftType::Number(8.0)),
        PeftSetting::new("lora_dropout", "dropout", PeftType::Number(0.0)),
        PeftSetting::new("use_rslora", "rslora", PeftType::Switch),
    ],
    fixed: &[],
    written: &[
        ("bias", PeftValue::Text("none")),
        ("fan_in_fan_out", PeftValue::Flag(false)),
        ("init_lora_weights", PeftValue::Flag(true)),
    ],
    allowed: &[STARTS],
};

/// What folders of LoRA and of what PEFT derives from it may say beside their settings.
pub(super) const STARTS: AllowedKeys = &[
    // Read with the matrices, as the words that trained.
    ("rank_pattern", Allowed::Anything),
    ("alpha_pattern", Allowed::Anything),
    ("trainable_token_indices", Allowed::Anything),
    // Those that leave the base model's weights alone, for the file's own values replace the start;
    // and those that take out of them what only they decide.
    (
        "init_lora_weights",
        Allowed::Unless(
            &[
                "true",
                r#""gaussian""#,
                r#""eva""#,
                r#""orthogonal""#,
                r#""mica""#,
                r#""pissa""#,
                r#""olora""#,
            ],
            "which changes the base model's weights by more than the folder tells when the adapter is \
             attached; PEFT's `save_pretrained(…, path_initial_model_for_weight_conversion=…)` makes plain LoRA of it",
        ),
    ),
    // Settings of a start: they count where `init_lora_weights` asks for it.
    ("loftq_config", Allowed::Anything),
    ("eva_config", Allowed::Anything),
    ("corda_config", Allowed::Anything),
    ("lora_ga_config", Allowed::Anything),
    // Settings of switches that must be off: `megatron_config`, `use_qalora`.
    ("megatron_core", Allowed::Anything),
    ("qalora_group_size", Allowed::Anything),
];

/// The method: puts LoRA paths on layers.
#[derive(Debug, Clone)]
pub struct Lora(LoraConfig);

impl Lora {
    /// The method with these settings.
    ///
    /// # Errors
    /// A setting is out of its range: which, and what it must be.
    pub fn new(config: LoraConfig) -> Result<Self> {
        config.validate()?;
        Ok(Lora(config))
    }
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        check_layers(layers, self.0.rank, 1)?;
        let path = |layer| -> Result<Box<dyn Adapter>> {
            Ok(Box::new(self.0.path(layer, &TENSORS, seed, device)?))
        };
        layers.iter().map(path).collect()
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &TENSORS
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.trainable_count(site)
    }

    fn freezes(&self) -> bool {
        self.0.freeze.is_adaptive()
    }

    fn starts_from_weights(&self) -> bool {
        self.0.init != Init::Standard
    }

    fn hook(&self, length: RunLength, parameters: &[Parameter]) -> Result<Option<Box<dyn Hook>>> {
        self.0.freeze.hook(length, parameters)
    }
}
