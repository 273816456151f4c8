//! LLaMA, 1 to 3.
//!
//! Ours, as rust-bert has none. Written from the papers (Touvron et al. 2023; Grattafiori et al.
//! 2024) and the released configs, and held to the logits, gradients and texts of transformers
//! by tests.

mod config;

use crate::backbone::Backbone;
use crate::bodies::decoder::{self, DecoderBlock, DecoderBody, DecoderSpec, LmHead};
use crate::config_file::ConfigFile;
use crate::heads::each_token::TokenHead;
use crate::heads::Head;
use crate::nn::attention::{split_heads, Attention, ForwardContext, KeyValues};
use crate::nn::mlp::GatedMlp;
use crate::nn::norm::RmsNorm;
use crate::nn::rotary::{rotate, Rotary};
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::nn::{self, Module};
use aflora_core::Block::{Attention as InAttention, Ffn};
use config::LlamaConfig;
use std::rc::Rc;
use tch::{Kind, Tensor};

/// LLaMA from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let config = LlamaConfig::read(&file)?;
    let spec = DecoderSpec {
        prefix: "model.",
        hidden: config.hidden_size,
        max_positions: config.max_positions,
        vocab_size: config.vocab_size,
        lm_head: match config.tied {
            true => LmHead::Tied(&[("model.embed_tokens.weight", &["lm_head.weight"])]),
            false => LmHead::Untied { bias: false },
        },
        token_head: Some(TokenHead {
            name: "score",
            modules: &["score"],
            dropout: decoder::token_dropout(&file, "hidden_dropout")?,
        }),
    };
    decoder::build(&file, head, options, spec, |root| Llama::new(root, &config))
}

#[derive(Debug)]
struct Llama {
    embeddings: nn::Embedding,
    layers: Vec<Rc<dyn DecoderBlock>>,
    norm: RmsNorm,
    rotary: Rotary,
}

impl Llama {
    fn new(root: &Scope, config: &LlamaConfig) -> Self {
        let model = root / "model";
        let hidden = config.hidden_size;
        let layers = &model / "layers";
        let layer = |i| Rc::new(Layer::new(&layers / i, config)) as Rc<dyn DecoderBlock>;
        Llama {
            embeddings: model.embedding("embed_tokens", config.vocab_size, hidden),
            layers: (0..config.layers).map(layer).collect(),
            norm: model.rms_norm("norm", hidden, config.rms_norm_eps),
            rotary: Rotary::new(&config.frequencies, root.path().device()),
        }
    }
}

impl DecoderBody for Llama {
    fn embed(&self, ids: &Tensor, _positions: &Tensor, _train: bool) -> Tensor {
        self.embeddings.forward(ids)
    }

    fn blocks(&self) -> &[Rc<dyn DecoderBlock>] {
        &self.layers
    }

    fn norm(&self, x: &Tensor) -> Tensor {
        self.norm.forward(x)
    }

    fn rotation(&self, positions: &Tensor, kind: Kind) -> Option<(Tensor, Tensor)> {
        Some(self.rotary.at(positions, kind))
    }

    fn words(&self) -> &nn::Embedding {
        &self.embeddings
    }
}

#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    attention: SelfAttention,
    post_attention_norm: RmsNorm,
    mlp: GatedMlp,
}

impl Layer {
    fn new(scope: Scope, config: &LlamaConfig) -> Self {
        let norm = |name| scope.rms_norm(name, config.hidden_size, config.rms_norm_eps);
        Layer {
            input_norm: norm("input_layernorm"),
            attention: SelfAttention::new(&scope / "self_attn", config),
            post_attention_norm: norm("post_attention_layernorm"),
            mlp: mlp(&scope / "mlp", config),
        }
    }
}

impl DecoderBlock for Layer {
    fn forward(
        &self,
        x: &Tensor,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let x = x + self.attention.forward(&self.input_norm.forward(x), context, keys);
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
    fn new(scope: Scope, config: &LlamaConfig) -> Self {
        let linear =
            |name, from, to| scope.adaptable(InAttention, name, (from, to), config.attention_bias);
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

    fn forward(
        &self,
        x: &Tensor,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let query = split_heads(&self.q_proj.forward(x), self.heads);
        let key = split_heads(&self.k_proj.forward(x), self.key_value_heads);
        let value = split_heads(&self.v_proj.forward(x), self.key_value_heads);
        let (query, key) = match &context.rotation {
            Some(rotation) => (rotate(&query, rotation), rotate(&key, rotation)),
            None => (query, key),
        };
        self.o_proj.forward(&self.attention.attend(&query, key, value, context, keys))
    }
}

fn mlp(scope: Scope, config: &LlamaConfig) -> GatedMlp {
    let linear = |name, shape| scope.adaptable(Ffn, name, shape, config.mlp_bias);
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    GatedMlp {
        gate: linear("gate_proj", (hidden, wide)),
        up: linear("up_proj", (hidden, wide)),
        down: linear("down_proj", (wide, hidden)),
        activation: config.activation,
    }
}
