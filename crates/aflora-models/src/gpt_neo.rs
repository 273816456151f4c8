//! GPT-Neo for writing text.
//!
//! Ours, and not rust-bert's, which lets its local layers see the whole text: from the window's
//! width (256 tokens) on, its answers are others than the released models' (see
//! `docs/backbones.md`).

use crate::activation::Activation;
use crate::backbone::{name_linears, Backbone, WriterOptions};
use crate::causal::{split_heads, Attention, Block, Causal, KeyValues, Network, View};
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
    window: i64,
    attention_dropout: f64,
    residual_dropout: f64,
}

/// GPT-Neo from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    let file = ConfigFile::read(path, "gpt_neo", &["gpt_neo"])?;
    let (hidden, heads) = (file.size("hidden_size")?, file.size("num_heads")?);
    if hidden % heads != 0 {
        return Err(file.problem(format!("hidden_size {hidden} is no multiple of {heads} heads")));
    }
    let config = Config {
        hidden,
        heads,
        wide: file.integer("intermediate_size", 4 * hidden)?,
        activation: file.parse_or("activation_function", Activation::GeluTanh)?,
        eps: file.number("layer_norm_epsilon", 1e-5)?,
        window: file.integer("window_size", 256)?,
        attention_dropout: file.number("attention_dropout", 0.0)?,
        residual_dropout: file.number("resid_dropout", 0.0)?,
    };
    let local = local_layers(&file)?;
    let embedding_dropout = file.number("embed_dropout", 0.0)?;
    let max_positions = file.integer("max_position_embeddings", 2048)?;
    let vocab_size = file.size("vocab_size")?;
    let mut vs = options.var_store();
    let (network, captured) = tch_facade::capture(|| {
        let root = vs.root() / "transformer";
        let blocks = &root / "h";
        let layer = |(i, local)| Rc::new(Layer::new(&blocks / i, &config, local)) as Rc<dyn Block>;
        GptNeo {
            words: embedding(&root / "wte", vocab_size, hidden),
            positions: embedding(&root / "wpe", max_positions, hidden),
            blocks: (0..).zip(local).map(layer).collect(),
            norm: layer_norm(&root / "ln_f", &config),
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
        tied: &[("transformer.wte.weight", &["lm_head.weight"])],
        max_positions,
        vocab_size,
        checkpoints: options.checkpoints(),
    }))
}

/// Whether each layer sees a window only. Some files only have `attention_types`: patterns, with
/// how often each is repeated.
fn local_layers(file: &ConfigFile) -> Result<Vec<bool>> {
    let layers = file.size("num_layers")?;
    let mut list: Vec<String> = file.parse_or("attention_layers", Vec::new())?;
    if list.is_empty() {
        let types: Vec<(Vec<String>, u16)> = file.parse_or("attention_types", Vec::new())?;
        let repeated = |(kinds, times)| vec![kinds; usize::from(times)];
        list = types.into_iter().flat_map(repeated).flatten().collect();
    }
    let known = |kind: &String| matches!(kind.as_str(), "global" | "local");
    if list.len() as i64 != layers || !list.iter().all(known) {
        return Err(file.problem(format!(
            "attention_layers must say `global` or `local` for each of the {layers} layers"
        )));
    }
    Ok(list.iter().map(|kind| kind == "local").collect())
}

fn part(name: &str) -> Option<Part> {
    if name.contains(".attention.") {
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
struct GptNeo {
    words: nn::Embedding,
    positions: nn::Embedding,
    blocks: Vec<Rc<dyn Block>>,
    norm: nn::LayerNorm,
    dropout: f64,
}

impl Network for GptNeo {
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
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    out_proj: nn::Linear,
    ln_2: nn::LayerNorm,
    c_fc: nn::Linear,
    c_proj: nn::Linear,
    activation: Activation,
    heads: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(path: nn::Path, config: &Config, local: bool) -> Self {
        let (hidden, wide) = (config.hidden, config.wide);
        let attention = &path / "attn" / "attention";
        let mlp = &path / "mlp";
        Layer {
            ln_1: layer_norm(&path / "ln_1", config),
            q_proj: bare_linear(&attention / "q_proj", hidden, hidden),
            k_proj: bare_linear(&attention / "k_proj", hidden, hidden),
            v_proj: bare_linear(&attention / "v_proj", hidden, hidden),
            out_proj: linear(&attention / "out_proj", hidden, hidden),
            ln_2: layer_norm(&path / "ln_2", config),
            c_fc: linear(&mlp / "c_fc", hidden, wide),
            c_proj: linear(&mlp / "c_proj", wide, hidden),
            activation: config.activation,
            heads: config.heads,
            attention: Attention {
                dropout: config.attention_dropout,
                // GPT-Neo does not divide scores by √size.
                scale: Some(1.0),
                window: local.then_some(config.window),
            },
            residual_dropout: config.residual_dropout,
        }
    }
}

impl Block for Layer {
    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor {
        let residual = |out: Tensor| dropout(out, self.residual_dropout, view.train);
        let normed = self.ln_1.forward(x);
        let [query, key, value] = [&self.q_proj, &self.k_proj, &self.v_proj]
            .map(|projection| split_heads(&projection.forward(&normed), self.heads));
        let attended = self.attention.attend(&query, key, value, view, keys);
        let x = x + residual(self.out_proj.forward(&attended));
        let wide = self.activation.apply(&self.c_fc.forward(&self.ln_2.forward(&x)));
        x + residual(self.c_proj.forward(&wide))
    }
}
