//! What a decoder of LLaMA's kind is made of: the choices by which the families differ.

use super::rope::{self, RopeKeys};
use crate::backbone::Tied;
use crate::bodies::decoder;
use crate::config_file::ConfigFile;
use crate::heads::each_token::TokenHead;
use crate::heads::language;
use crate::nn::activation::Activation;
use crate::nn::norm::NormKind;
use crate::nn::rotary::Rope;
use crate::Result;

/// A decoder of LLaMA's kind.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub names: &'static Names,
    pub vocab_size: i64,
    pub max_positions: i64,
    pub hidden: i64,
    pub wide: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_dim: i64,
    /// One for each layer.
    pub layers: Vec<LayerChoice>,
    /// The ways in which layers turn queries and keys.
    pub ropes: Vec<Rope>,
    pub norm: NormKind,
    pub eps: f64,
    pub residual: Residual,
    pub projections: Projections,
    /// Queries and keys are normalised, each head by itself, before they are turned.
    pub normed_heads: bool,
    pub feed_forward: FeedForward,
    pub activation: Activation,
    pub bias: Bias,
    /// What scores are multiplied by; 1 / √(head size) if not given.
    pub scale: Option<f64>,
    pub softcaps: Softcaps,
    /// What words are multiplied by.
    pub embedding_scale: Option<f64>,
    /// Whether the head is the word embeddings.
    pub tied: bool,
    pub dropout: Dropout,
    /// How it makes classes of a token's state, where transformers has a class for that.
    pub token_head: Option<TokenHead>,
}

/// How a layer differs from another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerChoice {
    /// Which of the ropes it turns by; none where positions do not count.
    pub rope: Option<usize>,
    /// How many tokens a query sees, itself included.
    pub window: Option<i64>,
}

/// How a block's two parts are added to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residual {
    /// Each part reads its norm of what is there.
    Pre,
    /// So, and what each gives is normalised before it is added.
    Sandwich,
    /// Both read what came into the block, each by its own norm.
    Parallel,
}

/// How queries, keys and values are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Projections {
    /// By a layer each: q_proj, k_proj, v_proj.
    Apart,
    /// By one of this name, whose outputs are all queries, then keys, then values.
    Joined(&'static str),
    /// By one of this name, whose outputs are a head's query, key and value, head by head.
    JoinedByHead(&'static str),
}

/// A block's second part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedForward {
    /// gate_proj, up_proj and down_proj.
    Gated,
    /// gate_up_proj and down_proj.
    JoinedGated,
    /// Two layers, of these names.
    Plain { up: &'static str, down: &'static str },
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bias {
    pub queries_keys_values: bool,
    pub attention_out: bool,
    pub feed_forward: bool,
}

/// What is bent below a bound c, x to c · tanh(x / c).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Softcaps {
    pub attention: Option<f64>,
    pub logits: Option<f64>,
}

/// Shares that dropouts leave out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dropout {
    pub embeddings: f64,
    pub attention: f64,
    pub residual: f64,
}

/// The names of modules in checkpoints.
#[derive(Debug)]
pub(super) struct Names {
    pub model: &'static str,
    /// `model` with a dot behind it.
    pub prefix: &'static str,
    pub words: &'static str,
    pub attention: &'static str,
    pub attention_out: &'static str,
    pub norm: &'static str,
    pub head: &'static str,
    /// The words' weight with the head's, which may be the same.
    pub tied: &'static [Tied],
}

const LLAMA: Names = Names {
    model: "model",
    prefix: "model.",
    words: "embed_tokens",
    attention: "self_attn",
    attention_out: "o_proj",
    norm: "norm",
    head: language::NAME,
    tied: &[("model.embed_tokens.weight", &["lm_head.weight"])],
};

/// What a family's config.json means where it is silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual {
    /// As many as there are heads if not given.
    pub key_value_heads: Option<i64>,
    /// A head's share of the hidden size if not given.
    pub head_dim: Option<i64>,
    pub max_positions: i64,
    pub eps_key: &'static str,
    pub eps: f64,
    pub activation: (&'static str, Activation),
    pub tied: bool,
    pub rope: RopeKeys,
    /// Whether all layers turn by one rope; otherwise the family reads them.
    pub one_rope: bool,
}

impl Usual {
    pub const LLAMA: Usual = Usual {
        key_value_heads: None,
        head_dim: None,
        max_positions: 2048,
        eps_key: "rms_norm_eps",
        eps: 1e-6,
        activation: ("hidden_act", Activation::Silu),
        tied: false,
        rope: RopeKeys::LLAMA,
        one_rope: true,
    };
}

impl Bias {
    /// Biases of all layers of attention, if `attention_bias` asks for them.
    ///
    /// # Errors
    /// It is neither true nor false.
    pub fn of_attention(file: &ConfigFile) -> Result<Self> {
        let attention = file.flag("attention_bias", false)?;
        Ok(Bias { queries_keys_values: attention, attention_out: attention, feed_forward: false })
    }
}

impl Description {
    /// What LLaMA and most of its kin have in common, of their common keys: every layer turns by
    /// one rope and sees all that was before, and no layer has a bias.
    ///
    /// # Errors
    /// A key is missing or of another type, asks for what is not built, or sizes do not fit each
    /// other.
    pub fn read(file: &ConfigFile, usual: &Usual) -> Result<Self> {
        let sizes = Sizes::read(file, usual)?;
        let max_positions = file.integer("max_position_embeddings", usual.max_positions)?;
        let mut ropes = Vec::new();
        if usual.one_rope {
            let keys = rope::keys(file)?;
            ropes.push(rope::read(file, keys, &usual.rope, sizes.head_dim, max_positions)?);
        }
        let layers = file.size("num_hidden_layers")?;
        Ok(Description {
            names: &LLAMA,
            vocab_size: file.size("vocab_size")?,
            max_positions: rope::reach(&ropes, max_positions),
            hidden: sizes.hidden,
            wide: file.size("intermediate_size")?,
            heads: sizes.heads,
            key_value_heads: sizes.key_value_heads,
            head_dim: sizes.head_dim,
            layers: vec![LayerChoice { rope: Some(0), window: None }; layers as usize],
            ropes,
            norm: NormKind::Rms,
            eps: file.number(usual.eps_key, usual.eps)?,
            residual: Residual::Pre,
            projections: Projections::Apart,
            normed_heads: false,
            feed_forward: FeedForward::Gated,
            activation: file.parse_or(usual.activation.0, usual.activation.1)?,
            bias: Bias::default(),
            scale: None,
            softcaps: Softcaps::default(),
            embedding_scale: None,
            tied: file.flag("tie_word_embeddings", usual.tied)?,
            dropout: Dropout {
                attention: file.number("attention_dropout", 0.0)?,
                ..Default::default()
            },
            token_head: Some(TokenHead {
                name: "score",
                modules: &["score"],
                dropout: decoder::token_dropout(file, "hidden_dropout")?,
            }),
        })
    }
}

/// How the hidden size is split into heads.
struct Sizes {
    hidden: i64,
    heads: i64,
    key_value_heads: i64,
    head_dim: i64,
}

impl Sizes {
    fn read(file: &ConfigFile, usual: &Usual) -> Result<Self> {
        let (hidden, heads) = (file.size("hidden_size")?, file.size("num_attention_heads")?);
        let key_value_heads = match file.keys().contains_key("num_key_value_heads") {
            true => file.integer("num_key_value_heads", heads)?,
            false => usual.key_value_heads.unwrap_or(heads),
        };
        if key_value_heads < 1 || heads % key_value_heads != 0 {
            return Err(file.problem(format!(
                "num_attention_heads {heads} is no multiple of num_key_value_heads \
                 {key_value_heads}"
            )));
        }
        let head_dim = file.integer("head_dim", usual.head_dim.unwrap_or(hidden / heads))?;
        if head_dim < 2 || head_dim % 2 != 0 {
            return Err(file.problem(format!("a head has the size {head_dim}; it must be even")));
        }
        Ok(Sizes { hidden, heads, key_value_heads, head_dim })
    }
}
