//! What a GPT's config.json says.

use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::Result;

/// Keys of GPT-2 and GPT-J that transformers reads as others.
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

/// What every GPT's config.json says, whatever the keys' names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub vocab_size: i64,
    pub max_positions: i64,
    pub layers: i64,
    pub hidden: i64,
    pub heads: i64,
    pub wide: i64,
    pub activation: Activation,
    pub eps: f64,
    pub embedding_dropout: f64,
    pub attention_dropout: f64,
    pub residual_dropout: f64,
}

impl Sizes {
    /// From the keys of GPT-2 and GPT-J, whose dropouts are `usual_dropout` if not given.
    ///
    /// # Errors
    /// A key is missing or of another type, or the sizes do not fit each other.
    pub fn read(file: &ConfigFile, usual_dropout: f64) -> Result<Self> {
        let hidden = file.size("n_embd")?;
        Sizes {
            vocab_size: file.size("vocab_size")?,
            max_positions: file.size("n_positions")?,
            layers: file.size("n_layer")?,
            hidden,
            heads: file.size("n_head")?,
            wide: file.integer("n_inner", 4 * hidden)?,
            activation: file.parse_or("activation_function", Activation::GeluTanh)?,
            eps: file.number("layer_norm_epsilon", 1e-5)?,
            embedding_dropout: file.number("embd_pdrop", usual_dropout)?,
            attention_dropout: file.number("attn_pdrop", usual_dropout)?,
            residual_dropout: file.number("resid_pdrop", usual_dropout)?,
        }
        .checked(file)
    }

    /// The sizes, once they are known to fit each other.
    ///
    /// # Errors
    /// The hidden size cannot be split into that many heads.
    pub fn checked(self, file: &ConfigFile) -> Result<Self> {
        let Sizes { hidden, heads, .. } = self;
        if hidden % heads != 0 {
            let words = format!("the hidden size {hidden} is no multiple of {heads} heads");
            return Err(file.problem(words));
        }
        Ok(self)
    }
}
