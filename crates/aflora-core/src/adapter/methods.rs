//! Every method by its name, with its settings: what configuration files and adapter folders say.

use super::{
    AdaLora, AdaLoraConfig, Aflora, AfloraConfig, AfloraRank, AfloraRankConfig, Elora, EloraConfig,
    Lora, LoraConfig, Method, Plain, Sora, SoraConfig,
};
use crate::Result;
use serde::{Deserialize, Serialize};

/// A method and its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum MethodConfig {
    /// Adaptive freezing of low-rank adaptation.
    Aflora(AfloraConfig),
    /// Low-rank adaptation.
    Lora(LoraConfig),
    /// Vectors beside one shared random pair.
    #[serde(alias = "vera")]
    Elora(EloraConfig),
    /// A singular value decomposition, to a rank budget.
    #[serde(rename = "adalora")]
    AdaLora(AdaLoraConfig),
    /// Low-rank matrices behind a sparse gate.
    Sora(SoraConfig),
    /// AFLoRA by components, to a rank budget.
    AfloraRank(AfloraRankConfig),
    /// All of the model's weights.
    Full {},
    /// The model's biases.
    #[serde(rename = "bitfit")]
    BitFit {},
    /// Only the head trains.
    Head {},
}

impl MethodConfig {
    /// The names of all methods.
    pub const NAMES: [&'static str; 9] =
        ["aflora", "lora", "elora", "adalora", "sora", "aflora_rank", "full", "bitfit", "head"];

    /// The method of that name with its defaults.
    pub fn defaults(name: &str) -> Option<MethodConfig> {
        Some(match name {
            "aflora" => MethodConfig::Aflora(AfloraConfig::default()),
            "lora" => MethodConfig::Lora(LoraConfig::default()),
            "elora" | "vera" => MethodConfig::Elora(EloraConfig::default()),
            "adalora" => MethodConfig::AdaLora(AdaLoraConfig::default()),
            "sora" => MethodConfig::Sora(SoraConfig::default()),
            "aflora_rank" => MethodConfig::AfloraRank(AfloraRankConfig::default()),
            "full" => MethodConfig::Full {},
            "bitfit" => MethodConfig::BitFit {},
            "head" => MethodConfig::Head {},
            _ => return None,
        })
    }

    /// The method.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn build(&self) -> Result<Box<dyn Method>> {
        Ok(match self.clone() {
            MethodConfig::Aflora(config) => Box::new(Aflora::new(config)?),
            MethodConfig::Lora(config) => Box::new(Lora::new(config)?),
            MethodConfig::Elora(config) => Box::new(Elora::new(config)?),
            MethodConfig::AdaLora(config) => Box::new(AdaLora::new(config)?),
            MethodConfig::Sora(config) => Box::new(Sora::new(config)?),
            MethodConfig::AfloraRank(config) => Box::new(AfloraRank::new(config)?),
            MethodConfig::Full {} => Box::new(Plain::Full),
            MethodConfig::BitFit {} => Box::new(Plain::BitFit),
            MethodConfig::Head {} => Box::new(Plain::Head),
        })
    }
}
