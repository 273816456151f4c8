//! The keys of a config.json that BERT's kin share.

use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::nn::post_norm::{BlockConfig, BlockDropout};
use crate::Result;

/// What BERT, and most of its kin under the same keys, have of sizes, dropouts and the like.
pub(super) struct Sizes {
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    pub wide: i64,
    pub activation: Activation,
    pub eps: f64,
    pub dropout: f64,
    pub attention_dropout: f64,
}

impl Sizes {
    /// With the activation and the dropout of a file that names none.
    ///
    /// # Errors
    /// A size is missing or does not fit another, or the file says something that is not built.
    pub fn read(file: &ConfigFile, activation: Activation, dropout: f64) -> Result<Self> {
        absolute_positions(file)?;
        for key in ["is_decoder", "add_cross_attention"] {
            if file.flag(key, false)? {
                return Err(file.problem(format!("`{key}` is true, which is not built")));
            }
        }
        let (hidden, heads) = file.divided("hidden_size", "num_attention_heads")?;
        Ok(Sizes {
            hidden,
            layers: file.size("num_hidden_layers")?,
            heads,
            wide: file.size("intermediate_size")?,
            activation: file.parse_or("hidden_act", activation)?,
            eps: file.number("layer_norm_eps", 1e-12)?,
            dropout: file.dropout("hidden_dropout_prob", dropout)?,
            attention_dropout: file.dropout("attention_probs_dropout_prob", dropout)?,
        })
    }

    /// The blocks: the same dropout behind attention and behind the feed-forward layers.
    pub fn block(&self) -> BlockConfig {
        BlockConfig {
            hidden: self.hidden,
            heads: self.heads,
            wide: self.wide,
            activation: self.activation,
            eps: self.eps,
            dropout: BlockDropout {
                weights: self.attention_dropout,
                attended: self.dropout,
                between: 0.0,
                fed: self.dropout,
            },
        }
    }
}

fn absolute_positions(file: &ConfigFile) -> Result<()> {
    match file.parse_or("position_embedding_type", "absolute".to_string())?.as_str() {
        "absolute" => Ok(()),
        other => Err(file.problem(format!(
            "position_embedding_type is `{other}`; only `absolute` positions are built"
        ))),
    }
}
