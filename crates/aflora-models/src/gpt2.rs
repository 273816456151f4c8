//! GPT-2 for writing text.
//!
//! Ours, and not rust-bert's: its linear layers are a `Conv1D` of its own that no slot reaches,
//! and rewriting each weight in every step (W₀ + ΔW, the other way in) would cost a copy of the
//! whole model. Here they are adaptable layers whose weight lies transposed, as checkpoints have
//! it; attention is fused, and decoding keeps keys and values.

use crate::activation::Activation;
use crate::backbone::{name_linears, Backbone, WriterOptions};
use crate::causal::{split_heads, Attention, Block, Causal, KeyValues, Network, View};
use crate::config_file::ConfigFile;
use crate::generate::SpecialTokens;
use crate::layers::{dropout, embedding};
use crate::Result;
use aflora_core::Block as Part;
use std::path::Path;
use std::rc::Rc;
use tch::{Kind, Tensor};
use tch_facade::nn::{self, Module};

struct Config {
    hidden: i64,
    heads: i64,
    wide: i64,
    activation: Activation,
    eps: f64,
    embedding_dropout: f64,
    attention_dropout: f64,
    residual_dropout: f64,
}

/// GPT-2 from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    let file = ConfigFile::read(path, "gpt2", &["gpt2"])?;
    let (hidden, heads) = (file.size("n_embd")?, file.size("n_head")?);
    if hidden % heads != 0 {
        return Err(file.problem(format!("n_embd {hidden} is no multiple of n_head {heads}")));
    }
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if file.flag(key, usual)? != usual {
            return Err(file.problem(format!("`{key}` is {}, which is not built", !usual)));
        }
    }
    let config = Config {
        hidden,
        heads,
        wide: file.integer("n_inner", 4 * hidden)?,
        activation: file.parse_or("activation_function", Activation::GeluTanh)?,
        eps: file.number("layer_norm_epsilon", 1e-5)?,
        embedding_dropout: file.number("embd_pdrop", 0.1)?,
        attention_dropout: file.number("attn_pdrop", 0.1)?,
        residual_dropout: file.number("resid_pdrop", 0.1)?,
    };
    let max_positions = file.integer("n_positions", 1024)?;
    let vocab_size = file.size("vocab_size")?;
    let layers = file.size("n_layer")?;
    let mut vs = options.var_store();
    let (network, captured) = tch_facade::capture(|| {
        let root = vs.root() / "transformer";
        let blocks = &root / "h";
        let block = |i| Rc::new(Layer::new(&blocks / i, &config)) as Rc<dyn Block>;
        Gpt2 {
            words: embedding(&root / "wte", vocab_size, hidden),
            positions: embedding(&root / "wpe", max_positions, hidden),
            blocks: (0..layers).map(block).collect(),
            norm: layer_norm(&root / "ln_f", &config),
            dropout: config.embedding_dropout,
        }
    });
    let linears = name_linears(&vs, captured, part);
    vs.freeze();
    Ok(Box::new(Causal {
        vs,
        network,
        linears,
        tokens: SpecialTokens::read(path, file.keys())?,
        prefix: "transformer.",
        tied: &[("transformer.wte.weight", &["lm_head.weight"])],
        max_positions,
        vocab_size,
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

fn layer_norm(path: nn::Path, config: &Config) -> nn::LayerNorm {
    let norm = nn::LayerNormConfig { eps: config.eps, ..Default::default() };
    nn::layer_norm(path, vec![config.hidden], norm)
}

#[derive(Debug)]
struct Gpt2 {
    words: nn::Embedding,
    positions: nn::Embedding,
    blocks: Vec<Rc<dyn Block>>,
    norm: nn::LayerNorm,
    dropout: f64,
}

impl Network for Gpt2 {
    fn embed(&self, ids: &Tensor, positions: &Tensor, train: bool) -> Tensor {
        dropout(self.words.forward(ids) + self.positions.forward(positions), self.dropout, train)
    }

    fn blocks(&self) -> &[Rc<dyn Block>] {
        &self.blocks
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        // The embeddings are the head too.
        self.norm.forward(x).linear(&self.words.ws, None::<&Tensor>)
    }

    fn rotation(&self, _positions: &Tensor, _kind: Kind) -> Option<(Tensor, Tensor)> {
        None
    }
}

#[derive(Debug)]
struct Layer {
    ln_1: nn::LayerNorm,
    /// Queries, keys and values in one product.
    c_attn: nn::Linear,
    attn_c_proj: nn::Linear,
    ln_2: nn::LayerNorm,
    c_fc: nn::Linear,
    mlp_c_proj: nn::Linear,
    activation: Activation,
    heads: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(path: nn::Path, config: &Config) -> Self {
        let (hidden, wide) = (config.hidden, config.wide);
        let (attn, mlp) = (&path / "attn", &path / "mlp");
        Layer {
            ln_1: layer_norm(&path / "ln_1", config),
            c_attn: nn::conv1d_linear(&attn / "c_attn", hidden, 3 * hidden),
            attn_c_proj: nn::conv1d_linear(&attn / "c_proj", hidden, hidden),
            ln_2: layer_norm(&path / "ln_2", config),
            c_fc: nn::conv1d_linear(&mlp / "c_fc", hidden, wide),
            mlp_c_proj: nn::conv1d_linear(&mlp / "c_proj", wide, hidden),
            activation: config.activation,
            heads: config.heads,
            attention: Attention { dropout: config.attention_dropout, ..Default::default() },
            residual_dropout: config.residual_dropout,
        }
    }
}

impl Block for Layer {
    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor {
        let residual = |out: Tensor| dropout(out, self.residual_dropout, view.train);
        let together = self.c_attn.forward(&self.ln_1.forward(x)).chunk(3, 2);
        let [query, key, value] = [0, 1, 2].map(|i| split_heads(&together[i], self.heads));
        let attended = self.attention.attend(&query, key, value, view, keys);
        let x = x + residual(self.attn_c_proj.forward(&attended));
        let wide = self.activation.apply(&self.c_fc.forward(&self.ln_2.forward(&x)));
        x + residual(self.mlp_c_proj.forward(&wide))
    }
}
