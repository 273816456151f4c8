//! LoRA (Hu et al. 2022), the reference of every comparison: y = W0 x + s · B (A x), with
//! s = alpha / rank, or alpha / √rank as rsLoRA has it (Kalajdzievski 2023).

use super::checks::{check_dropout, check_layers};
use super::factored::Factored;
use super::init::{constant, lora_uniform};
use super::peft::{Allowed, AllowedKeys, Peft, PeftSetting, PeftType, PeftValue};
use super::site::{Layer, Site};
use super::tensor::{Role, TensorSpec};
use super::traits::{Adapter, Method, MethodSettings};
use crate::error::check;
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
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig { rank: 8, alpha: 8.0, rslora: false, dropout: 0.0 }
    }
}

impl LoraConfig {
    /// s, by which the product B A x is multiplied: α / r, or α / √r with `rslora`.
    pub(super) fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }
}

impl MethodSettings for LoraConfig {
    fn build(&self) -> Result<Box<dyn Method>> {
        Ok(Box::new(Lora::new(self.clone())?))
    }

    fn rank(&self) -> Option<i64> {
        Some(self.rank)
    }

    fn peft(&self) -> Option<&'static Peft> {
        Some(&PEFT)
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
        let LoraConfig { rank, alpha, dropout, .. } = config;
        check("rank", rank, rank > 0, "a positive number")?;
        check("alpha", alpha, alpha.is_finite() && alpha > 0.0, "a positive number")?;
        check_dropout(dropout)?;
        Ok(Lora(config))
    }
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn attach(&self, layers: &[Layer], seed: u64, device: Device) -> Result<Vec<Box<dyn Adapter>>> {
        let LoraConfig { rank, dropout, .. } = self.0;
        check_layers(layers, rank, 1)?;
        let adapter = |Layer { site, .. }: &Layer| -> Box<dyn Adapter> {
            let a = lora_uniform([rank, site.in_features], seed, &site.name, device);
            let b = constant([site.out_features, rank], 0.0, device);
            Box::new(Factored::new(site, &TENSORS, [a, b], None, self.0.scale(), dropout))
        };
        Ok(layers.iter().map(adapter).collect())
    }

    fn tensors(&self) -> &'static [TensorSpec] {
        &TENSORS
    }

    fn trainable_count(&self, site: &Site) -> i64 {
        self.0.rank * (site.in_features + site.out_features)
    }
}
