//! GPT-J for writing text.
//!
//! Ours, and not rust-bert's, which computes rotary angles in the precision of the weights: in
//! bf16, the usual one for a model of this size, most of them are off (see `docs/backbones.md`).

use crate::activation::Activation;
use crate::backbone::{name_linears, Backbone, WriterOptions};
use crate::causal::{
    split_heads, turn_pairs, Attention, Block, Causal, KeyValues, Network, Rotary, View,
};
use crate::config_file::ConfigFile;
use crate::generate::SpecialTokens;
use crate::layers::{bare_linear, dropout, embedding, linear};
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
    /// Elements of a head that turn with the position.
    rotary: i64,
    attention_dropout: f64,
    residual_dropout: f64,
}

/// GPT-J from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    let file = ConfigFile::read(path, "gptj", &["gptj"])?;
    let (hidden, heads) = (file.size("n_embd")?, file.size("n_head")?);
    if hidden % heads != 0 {
        return Err(file.problem(format!("n_embd {hidden} is no multiple of n_head {heads}")));
    }
    let rotary = file.integer("rotary_dim", hidden / heads)?;
    if rotary < 2 || rotary % 2 != 0 || rotary > hidden / heads {
        return Err(file.problem(format!(
            "`rotary_dim` is {rotary}, but must be even and at most the size of a head, {}",
            hidden / heads
        )));
    }
    if file.flag("tie_word_embeddings", false)? {
        return Err(file.problem("`tie_word_embeddings` is true, which is not built".into()));
    }
    let config = Config {
        hidden,
        heads,
        wide: file.integer("n_inner", 4 * hidden)?,
        activation: file.parse_or("activation_function", Activation::GeluTanh)?,
        eps: file.number("layer_norm_epsilon", 1e-5)?,
        rotary,
        attention_dropout: file.number("attn_pdrop", 0.0)?,
        residual_dropout: file.number("resid_pdrop", 0.0)?,
    };
    let embedding_dropout = file.number("embd_pdrop", 0.0)?;
    let max_positions = file.integer("n_positions", 2048)?;
    let vocab_size = file.size("vocab_size")?;
    let layers = file.size("n_layer")?;
    let mut vs = options.var_store();
    let (network, captured) = tch_facade::capture(|| {
        let root = vs.root();
        let model = &root / "transformer";
        let blocks = &model / "h";
        let block = |i| Rc::new(Layer::new(&blocks / i, &config)) as Rc<dyn Block>;
        let frequency = |i: i64| 10_000f64.powf(-2.0 * i as f64 / rotary as f64);
        let frequencies: Vec<f64> = (0..rotary / 2).map(frequency).collect();
        GptJ {
            words: embedding(&model / "wte", vocab_size, hidden),
            blocks: (0..layers).map(block).collect(),
            norm: layer_norm(&model / "ln_f", &config),
            head: linear(&root / "lm_head", hidden, vocab_size),
            rotary: Rotary::new(&frequencies, options.device),
            dropout: embedding_dropout,
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
        tied: &[],
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
struct GptJ {
    words: nn::Embedding,
    blocks: Vec<Rc<dyn Block>>,
    norm: nn::LayerNorm,
    head: nn::Linear,
    rotary: Rotary,
    dropout: f64,
}

impl Network for GptJ {
    fn embed(&self, ids: &Tensor, _positions: &Tensor, train: bool) -> Tensor {
        dropout(self.words.forward(ids), self.dropout, train)
    }

    fn blocks(&self) -> &[Rc<dyn Block>] {
        &self.blocks
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.head.forward(&self.norm.forward(x))
    }

    fn rotation(&self, positions: &Tensor, kind: Kind) -> Option<(Tensor, Tensor)> {
        Some(self.rotary.at(positions, kind))
    }
}

/// Attention and feed-forward side by side, on one norm.
#[derive(Debug)]
struct Layer {
    ln_1: nn::LayerNorm,
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    out_proj: nn::Linear,
    fc_in: nn::Linear,
    fc_out: nn::Linear,
    activation: Activation,
    heads: i64,
    rotary: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(path: nn::Path, config: &Config) -> Self {
        let (hidden, wide) = (config.hidden, config.wide);
        let (attn, mlp) = (&path / "attn", &path / "mlp");
        Layer {
            ln_1: layer_norm(&path / "ln_1", config),
            q_proj: bare_linear(&attn / "q_proj", hidden, hidden),
            k_proj: bare_linear(&attn / "k_proj", hidden, hidden),
            v_proj: bare_linear(&attn / "v_proj", hidden, hidden),
            out_proj: bare_linear(&attn / "out_proj", hidden, hidden),
            fc_in: linear(&mlp / "fc_in", hidden, wide),
            fc_out: linear(&mlp / "fc_out", wide, hidden),
            activation: config.activation,
            heads: config.heads,
            rotary: config.rotary,
            attention: Attention { dropout: config.attention_dropout, ..Default::default() },
            residual_dropout: config.residual_dropout,
        }
    }

    /// The first elements of every head turned by their position.
    fn turned(&self, x: Tensor, view: &View) -> Tensor {
        let Some(rotation) = &view.rotation else { return x };
        let rest = x.size()[3] - self.rotary;
        let turned = turn_pairs(&x.narrow(3, 0, self.rotary), rotation);
        match rest {
            0 => turned,
            _ => Tensor::cat(&[turned, x.narrow(3, self.rotary, rest)], 3),
        }
    }
}

impl Block for Layer {
    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor {
        let residual = |out: Tensor| dropout(out, self.residual_dropout, view.train);
        let normed = self.ln_1.forward(x);
        let [query, key, value] = [&self.q_proj, &self.k_proj, &self.v_proj]
            .map(|projection| split_heads(&projection.forward(&normed), self.heads));
        let (query, key) = (self.turned(query, view), self.turned(key, view));
        let attended = self.attention.attend(&query, key, value, view, keys);
        let attended = residual(self.out_proj.forward(&attended));
        let wide = self.activation.apply(&self.fc_in.forward(&normed));
        attended + residual(self.fc_out.forward(&wide)) + x
    }
}
