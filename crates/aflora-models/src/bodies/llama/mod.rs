//! LLaMA, 1 to 3, for writing text.
//!
//! Ours, as rust-bert has none. Written from the papers (Touvron et al. 2023; Grattafiori et al.
//! 2024) and the released configs, and held to the logits, gradients and texts of transformers
//! by tests.

mod config;

use crate::backbone::{name_linears, Backbone, WriterOptions};
use crate::bodies::decoder::{
    rotate, split_heads, Attention, Block, Causal, KeyValues, Network, Rotary, View,
};
use crate::config_file::ConfigFile;
use crate::generate::SpecialTokens;
use crate::nn::activation::Activation;
use crate::nn::linear::{bare_linear, embedding, untie, with_bias, zeros};
use crate::Result;
use aflora_core::Block as Part;
use config::LlamaConfig;
use std::cell::OnceCell;
use std::path::Path;
use std::rc::Rc;
use tch::{Kind, Tensor};
use tch_facade::nn::{self, Module};

/// LLaMA from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    let file = ConfigFile::read(path, "llama", &["llama"])?;
    let config = LlamaConfig::read(&file)?;
    let tokens = SpecialTokens::read(path, file.keys(), config.vocab_size, false)?;
    let mut vs = options.var_store();
    let (network, captured) = tch_facade::capture(|| Llama::new(vs.root(), &config));
    let linears = name_linears(&vs, captured, part);
    vs.freeze();
    Ok(Box::new(Causal {
        vs,
        network,
        linears,
        tokens,
        prefix: "model.",
        tied: if config.tied { &[("model.embed_tokens.weight", &["lm_head.weight"])] } else { &[] },
        max_positions: config.max_positions,
        vocab_size: config.vocab_size,
        checkpoints: options.checkpoints(),
    }))
}

fn part(name: &str) -> Option<Part> {
    if name.contains(".self_attn.") {
        Some(Part::Attention)
    } else if name.contains(".mlp.") {
        Some(Part::Ffn)
    } else {
        None
    }
}

#[derive(Debug)]
struct Llama {
    embeddings: nn::Embedding,
    layers: Vec<Rc<dyn Block>>,
    norm: RmsNorm,
    /// Empty where the embeddings are the head too.
    head: OnceCell<nn::Linear>,
    rotary: Rotary,
}

impl Llama {
    fn new(root: nn::Path, config: &LlamaConfig) -> Self {
        let model = &root / "model";
        let hidden = config.hidden_size;
        let layers = &model / "layers";
        let layer = |i| Rc::new(Layer::new(&layers / i, config)) as Rc<dyn Block>;
        let head = || bare_linear(&root / "lm_head", hidden, config.vocab_size);
        Llama {
            embeddings: embedding(&model / "embed_tokens", config.vocab_size, hidden),
            layers: (0..config.layers).map(layer).collect(),
            norm: RmsNorm::new(&model / "norm", config),
            head: if config.tied { OnceCell::new() } else { head().into() },
            rotary: Rotary::new(&config.frequencies, root.device()),
        }
    }
}

impl Network for Llama {
    fn embed(&self, ids: &Tensor, _positions: &Tensor, _train: bool) -> Tensor {
        self.embeddings.forward(ids)
    }

    fn blocks(&self) -> &[Rc<dyn Block>] {
        &self.layers
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let x = self.norm.forward(x);
        match self.head.get() {
            Some(head) => head.forward(&x),
            None => x.linear(&self.embeddings.ws, None::<&Tensor>),
        }
    }

    fn untie(&self, root: nn::Path) -> Option<Tensor> {
        untie(&self.head, root, &self.embeddings.ws)
    }

    fn rotation(&self, positions: &Tensor, kind: Kind) -> Option<(Tensor, Tensor)> {
        Some(self.rotary.at(positions, kind))
    }
}

/// x / √(mean x² + ε) times a scale.
#[derive(Debug)]
struct RmsNorm {
    scale: Tensor,
    eps: f64,
}

impl RmsNorm {
    fn new(path: nn::Path, config: &LlamaConfig) -> Self {
        let scale = path.var("weight", &[config.hidden_size], nn::Init::Const(1.0));
        RmsNorm { scale, eps: config.rms_norm_eps }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.scale.size(), Some(&self.scale), self.eps)
    }
}

#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    attention: SelfAttention,
    post_attention_norm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(path: nn::Path, config: &LlamaConfig) -> Self {
        Layer {
            input_norm: RmsNorm::new(&path / "input_layernorm", config),
            attention: SelfAttention::new(&path / "self_attn", config),
            post_attention_norm: RmsNorm::new(&path / "post_attention_layernorm", config),
            mlp: Mlp::new(&path / "mlp", config),
        }
    }
}

impl Block for Layer {
    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor {
        let x = x + self.attention.forward(&self.input_norm.forward(x), view, keys);
        let wide = self.mlp.forward(&self.post_attention_norm.forward(&x));
        x + wide
    }
}

#[derive(Debug)]
struct SelfAttention {
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    o_proj: nn::Linear,
    heads: i64,
    key_value_heads: i64,
    attention: Attention,
}

impl SelfAttention {
    fn new(path: nn::Path, config: &LlamaConfig) -> Self {
        let linear = |name, from, to| {
            nn::linear(&path / name, from, to, with_bias(zeros(), config.attention_bias))
        };
        let (hidden, size) = (config.hidden_size, config.head_dim);
        SelfAttention {
            q_proj: linear("q_proj", hidden, config.heads * size),
            k_proj: linear("k_proj", hidden, config.key_value_heads * size),
            v_proj: linear("v_proj", hidden, config.key_value_heads * size),
            o_proj: linear("o_proj", config.heads * size, hidden),
            heads: config.heads,
            key_value_heads: config.key_value_heads,
            attention: Attention { dropout: config.attention_dropout, ..Default::default() },
        }
    }

    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor {
        let query = split_heads(&self.q_proj.forward(x), self.heads);
        let key = split_heads(&self.k_proj.forward(x), self.key_value_heads);
        let value = split_heads(&self.v_proj.forward(x), self.key_value_heads);
        let (query, key) = match &view.rotation {
            Some(rotation) => (rotate(&query, rotation), rotate(&key, rotation)),
            None => (query, key),
        };
        self.o_proj.forward(&self.attention.attend(&query, key, value, view, keys))
    }
}

/// SwiGLU: down(act(gate x) ⊙ up x).
#[derive(Debug)]
struct Mlp {
    gate_proj: nn::Linear,
    up_proj: nn::Linear,
    down_proj: nn::Linear,
    activation: Activation,
}

impl Mlp {
    fn new(path: nn::Path, config: &LlamaConfig) -> Self {
        let linear = |name, from, to| {
            nn::linear(&path / name, from, to, with_bias(zeros(), config.mlp_bias))
        };
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        Mlp {
            gate_proj: linear("gate_proj", hidden, wide),
            up_proj: linear("up_proj", hidden, wide),
            down_proj: linear("down_proj", wide, hidden),
            activation: config.activation,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let gate = self.activation.apply(&self.gate_proj.forward(x));
        self.down_proj.forward(&(gate * self.up_proj.forward(x)))
    }
}
