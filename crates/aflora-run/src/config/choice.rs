//! Settings that choose from a closed set.

use aflora_core::weight::WeightFormat;
use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU where there is one, and the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, the first or that of the given number.
    Cuda(Option<u32>),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => write!(f, "auto"),
            DeviceChoice::Cpu => write!(f, "cpu"),
            DeviceChoice::Cuda(None) => write!(f, "cuda"),
            DeviceChoice::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

/// A text that names no device.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no device; write `auto`, `cpu`, `cuda` or `cuda:N`")]
pub struct NoDevice(String);

impl FromStr for DeviceChoice {
    type Err = NoDevice;

    fn from_str(text: &str) -> Result<Self, NoDevice> {
        Ok(match text {
            "auto" => DeviceChoice::Auto,
            "cpu" => DeviceChoice::Cpu,
            "cuda" => DeviceChoice::Cuda(None),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(index) => DeviceChoice::Cuda(Some(index)),
                None => return Err(NoDevice(text.to_string())),
            },
        })
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = NoDevice;
    fn try_from(text: String) -> Result<Self, NoDevice> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        choice.to_string()
    }
}

impl JsonSchema for DeviceChoice {
    fn schema_name() -> Cow<'static, str> {
        "DeviceChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["auto", "cpu", "cuda", "cuda:N"] })
    }
}

/// The numbers that the frozen weights are held in.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 where the machine multiplies it and where it pays, which is on every GPU and, for
    /// large products, on a CPU with AVX512-BF16 or AMX; else fp32.
    #[default]
    Auto,
    /// Single precision.
    Fp32,
    /// Single precision whose products on a GPU take 10 bits of mantissa.
    Tf32,
    /// Eight bits of mantissa.
    Bf16,
    /// The linear layers of the blocks in four bits, which are restored for each product; all else
    /// as auto has it.
    Nf4,
    /// As nf4, whose scales are held in eight bits.
    #[serde(rename = "nf4_nested")]
    #[value(name = "nf4_nested")]
    Nf4Nested,
    /// As nf4, in eight bits.
    Int8,
    /// As int8, on a CPU: what a layer reads is rounded to whole numbers, too, and multiplied as such.
    #[serde(rename = "int8_dynamic")]
    #[value(name = "int8_dynamic")]
    Int8Dynamic,
    /// As nf4, in floating point numbers of eight bits, to which what a layer reads is rounded, too: a GPU
    /// of compute capability 8.9 or later multiplies these.
    Fp8,
}

impl Precision {
    /// What the linear layers are quantised to.
    pub fn format(self) -> Option<WeightFormat> {
        match self {
            Precision::Auto | Precision::Fp32 | Precision::Tf32 | Precision::Bf16 => None,
            Precision::Nf4 => Some(WeightFormat::Nf4),
            Precision::Nf4Nested => Some(WeightFormat::Nf4Nested),
            Precision::Int8 => Some(WeightFormat::Int8),
            Precision::Int8Dynamic => Some(WeightFormat::Int8Dynamic),
            Precision::Fp8 => Some(WeightFormat::Fp8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_as_it_is_written() {
        for text in ["auto", "cpu", "cuda", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("`cuda:N`"), "{text:?}: {error}");
        }
    }
}
