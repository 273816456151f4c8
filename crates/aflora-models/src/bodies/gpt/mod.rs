//! The GPTs, for writing text: GPT-2, GPT-Neo and GPT-J.
//!
//! They differ in their blocks, each of which has a file; what stands before and behind these is
//! here. Held to the logits, gradients and texts of transformers by tests.

pub(crate) mod gpt2;
pub(crate) mod gpt_j;
pub(crate) mod gpt_neo;

use crate::backbone::{name_linears, Backbone, WriterOptions};
use crate::bodies::decoder::{Block, Causal, Network, Rotary};
use crate::config_file::ConfigFile;
use crate::generate::SpecialTokens;
use crate::nn::activation::Activation;
use crate::nn::linear::{bare_linear, dropout, embedding, linear, untie};
use crate::Result;
use aflora_core::Block as Part;
use std::cell::OnceCell;
use std::path::Path;
use std::rc::Rc;
use tch::{Kind, Tensor};
use tch_facade::nn::{self, Module};

/// Keys of GPT-2 and GPT-J that transformers reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

/// What every GPT's config.json says, whatever the keys' names.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    vocab_size: i64,
    max_positions: i64,
    layers: i64,
    hidden: i64,
    heads: i64,
    wide: i64,
    activation: Activation,
    eps: f64,
    embedding_dropout: f64,
    attention_dropout: f64,
    residual_dropout: f64,
}

impl Sizes {
    /// From the keys of GPT-2 and GPT-J, whose dropouts are this if not given.
    fn read(file: &ConfigFile, usual_dropout: f64) -> Result<Self> {
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

    fn checked(self, file: &ConfigFile) -> Result<Self> {
        let Sizes { hidden, heads, .. } = self;
        if hidden % heads != 0 {
            let words = format!("the hidden size {hidden} is no multiple of {heads} heads");
            return Err(file.problem(words));
        }
        Ok(self)
    }
}

/// What a GPT has beside its blocks.
#[derive(Default)]
struct Around {
    /// Learned positions, added to the words.
    positions: bool,
    /// Positions by which blocks turn queries and keys.
    rotary: Option<Rotary>,
    head: Head,
}

/// What makes logits of the last block's output.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// The words.
    #[default]
    Tied,
    /// A weight of its own.
    Own,
    /// One with a bias.
    Biased,
}

impl Head {
    /// What `tie_word_embeddings` asks for, which is `true` if not given.
    fn read(file: &ConfigFile) -> Result<Self> {
        Ok(if file.flag("tie_word_embeddings", true)? { Head::Tied } else { Head::Own })
    }
}

/// A GPT whose blocks `block` makes at a path, by their number. Weights are zero until loaded or
/// initialised.
fn build<B: Block + 'static>(
    (path, file): (&Path, &ConfigFile),
    options: &WriterOptions,
    sizes: Sizes,
    around: Around,
    block: impl Fn(nn::Path, usize) -> B,
) -> Result<Box<dyn Backbone>> {
    let mut vs = options.var_store();
    let (network, captured) = tch_facade::capture(|| {
        let root = vs.root();
        let model = &root / "transformer";
        let blocks = &model / "h";
        let block = |i: i64| Rc::new(block(&blocks / i, i as usize)) as Rc<dyn Block>;
        let (hidden, words) = (sizes.hidden, sizes.vocab_size);
        let head = match around.head {
            Head::Tied => OnceCell::new(),
            Head::Own => bare_linear(&root / "lm_head", hidden, words).into(),
            Head::Biased => linear(&root / "lm_head", hidden, words).into(),
        };
        let table = |name: &str, rows| embedding(&model / name, rows, sizes.hidden);
        Gpt {
            words: table("wte", sizes.vocab_size),
            positions: around.positions.then(|| table("wpe", sizes.max_positions)),
            blocks: (0..sizes.layers).map(block).collect(),
            norm: layer_norm(&model / "ln_f", &sizes),
            head,
            rotary: around.rotary,
            dropout: sizes.embedding_dropout,
        }
    });
    let linears = name_linears(&vs, captured, part);
    vs.freeze();
    Ok(Box::new(Causal {
        vs,
        network,
        linears,
        tokens: SpecialTokens::read(path, file.keys(), sizes.vocab_size, false)?,
        prefix: "transformer.",
        tied: match around.head {
            Head::Tied => &[("transformer.wte.weight", &["lm_head.weight"])],
            Head::Own | Head::Biased => &[],
        },
        max_positions: sizes.max_positions,
        vocab_size: sizes.vocab_size,
        checkpoints: options.checkpoints(),
    }))
}

fn part(name: &str) -> Option<Part> {
    if name.contains(".attn.") {
        Some(Part::Attention)
    } else if name.contains(".mlp.") {
        Some(Part::Ffn)
    } else {
        None
    }
}

fn layer_norm(path: nn::Path, sizes: &Sizes) -> nn::LayerNorm {
    let norm = nn::LayerNormConfig { eps: sizes.eps, ..Default::default() };
    nn::layer_norm(path, vec![sizes.hidden], norm)
}

#[derive(Debug)]
struct Gpt {
    words: nn::Embedding,
    positions: Option<nn::Embedding>,
    blocks: Vec<Rc<dyn Block>>,
    norm: nn::LayerNorm,
    /// Empty where the words are the head too.
    head: OnceCell<nn::Linear>,
    rotary: Option<Rotary>,
    dropout: f64,
}

impl Network for Gpt {
    fn embed(&self, ids: &Tensor, positions: &Tensor, train: bool) -> Tensor {
        let mut x = self.words.forward(ids);
        if let Some(table) = &self.positions {
            x += table.forward(positions);
        }
        dropout(x, self.dropout, train)
    }

    fn blocks(&self) -> &[Rc<dyn Block>] {
        &self.blocks
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let x = self.norm.forward(x);
        match self.head.get() {
            Some(head) => head.forward(&x),
            None => x.linear(&self.words.ws, None::<&Tensor>),
        }
    }

    fn untie(&self, root: nn::Path) -> Option<Tensor> {
        untie(&self.head, root, &self.words.ws)
    }

    fn rotation(&self, positions: &Tensor, kind: Kind) -> Option<(Tensor, Tensor)> {
        self.rotary.as_ref().map(|rotary| rotary.at(positions, kind))
    }
}
