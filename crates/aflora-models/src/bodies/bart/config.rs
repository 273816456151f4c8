//! The config.json of BART.

use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::Result;

/// A BART.
#[derive(Debug, Clone)]
pub(super) struct BartConfig {
    pub vocab_size: i64,
    pub hidden: i64,
    pub encoder: Side,
    pub decoder: Side,
    pub activation: Activation,
    pub max_positions: i64,
    /// What word embeddings are multiplied by.
    pub scale: f64,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub activation_dropout: f64,
    /// The dropout of the classification head.
    pub classifier_dropout: f64,
}

/// The sizes in which encoder and decoder may differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    pub layers: i64,
    pub heads: i64,
    pub wide: i64,
}

impl BartConfig {
    pub(super) fn read(file: &ConfigFile) -> Result<Self> {
        let hidden = file.size("d_model")?;
        let side = |name: &str| {
            let size = |key: &str| file.size(&format!("{name}_{key}"));
            let heads = size("attention_heads")?;
            if hidden % heads != 0 {
                return Err(file.problem(format!(
                    "d_model {hidden} is no multiple of {name}_attention_heads"
                )));
            }
            if file.number(&format!("{name}_layerdrop"), 0.0)? != 0.0 {
                return Err(file.problem(format!("`{name}_layerdrop` is not 0: not built")));
            }
            Ok(Side { layers: size("layers")?, heads, wide: size("ffn_dim")? })
        };
        for (key, built) in [
            ("normalize_before", false),
            ("normalize_embedding", true),
            ("add_final_layer_norm", false),
            ("static_position_embeddings", false),
        ] {
            if file.flag(key, built)? != built {
                return Err(file.problem(format!("`{key}` is {}, which is not built", !built)));
            }
        }
        let scaled = file.flag("scale_embedding", false)?;
        Ok(BartConfig {
            vocab_size: file.size("vocab_size")?,
            hidden,
            encoder: side("encoder")?,
            decoder: side("decoder")?,
            activation: file.parse_or("activation_function", Activation::Gelu)?,
            max_positions: file.integer("max_position_embeddings", 1024)?,
            scale: if scaled { (hidden as f64).sqrt() } else { 1.0 },
            dropout: file.number("dropout", 0.1)?,
            attention_dropout: file.number("attention_dropout", 0.0)?,
            activation_dropout: file.number("activation_dropout", 0.0)?,
            classifier_dropout: file.number("classifier_dropout", 0.0)?,
        })
    }
}
