//! The table of all methods: what configuration files and adapter folders call them, and the
//! settings of each, whose file says all else.

use super::traits::{Method, MethodSettings};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Makes the table of the methods' names, further names after `|`, and settings.
macro_rules! methods {
    ($(
        #[doc = $about:literal]
        $name:literal $(| $also:literal)* => $variant:ident($settings:ty),
    )*) => {
        /// A method and its settings.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(tag = "method")]
        #[non_exhaustive]
        pub enum MethodConfig {
            $(
                #[doc = $about]
                #[serde(rename = $name $(, alias = $also)*)]
                $variant($settings),
            )*
        }

        impl MethodConfig {
            /// The names of all methods.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The method of that name with its defaults.
            pub fn defaults(name: &str) -> Option<MethodConfig> {
                match name {
                    $( $name $(| $also)* => Some(MethodConfig::$variant(Default::default())), )*
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(&self) -> &'static str {
                match self {
                    $( MethodConfig::$variant(_) => $name, )*
                }
            }

            /// Its settings.
            pub fn settings(&self) -> &dyn MethodSettings {
                match self {
                    $( MethodConfig::$variant(settings) => settings, )*
                }
            }
        }
    };
}

methods! {
    /// Adaptive freezing of low-rank adaptation.
    "aflora" => Aflora(super::aflora::AfloraConfig),
    /// Low-rank adaptation.
    "lora" => Lora(super::lora::LoraConfig),
    /// LoRA that turns the rows of a weight, and a vector of their lengths.
    "dora" => Dora(super::dora::DoraConfig),
    /// Vectors beside one shared random pair.
    "elora" | "vera" => Elora(super::elora::EloraConfig),
    /// A singular value decomposition, to a rank budget.
    "adalora" => AdaLora(super::adalora::AdaLoraConfig),
    /// Low-rank matrices behind a sparse gate.
    "sora" => Sora(super::sora::SoraConfig),
    /// AFLoRA by components, to a rank budget.
    "aflora_rank" => AfloraRank(super::aflora_rank::AfloraRankConfig),
    /// All of the model's weights.
    "full" => Full(super::plain::FullConfig),
    /// The model's biases.
    "bitfit" => BitFit(super::plain::BitFitConfig),
    /// Only the head trains.
    "head" => Head(super::plain::HeadConfig),
}

impl MethodConfig {
    /// All methods, with their defaults.
    pub fn all() -> impl Iterator<Item = MethodConfig> {
        Self::NAMES.iter().filter_map(|name| Self::defaults(name))
    }

    /// The method.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn build(&self) -> Result<Box<dyn Method>> {
        self.settings().build()
    }
}
