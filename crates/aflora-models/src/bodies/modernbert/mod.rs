//! ModernBERT (Warner et al. 2024): an encoder whose blocks normalise before they add, with rotary
//! positions and gated feed-forward layers. Some blocks attend to all tokens, most to near ones.

mod config;

use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::bodies::encoder::{
    self, EncoderBody, EncoderSpec, HeadNorm, HeadShape, Pooling, TextHead,
};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::attention::{split_heads, Attention, ForwardContext, Seen};
use crate::nn::chain::chain;
use crate::nn::linear::dropout;
use crate::nn::noise::NoisyEmbedding;
use crate::nn::norm::ScaleNorm;
use crate::nn::rotary::{powers, rotate, Rope, Rotary, RotaryPairs};
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::nn::{self, Module};
use aflora_core::{Block, Checkpoints};
use config::{ModernBertConfig, Reach};
use std::rc::Rc;
use tch::{Kind, Tensor};

/// ModernBERT from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let config = ModernBertConfig::read(&file)?;
    let spec = EncoderSpec {
        prefix: "model.",
        hidden: config.hidden,
        max_positions: config.max_positions,
        head: TextHead {
            shape: HeadShape {
                pooling: file.parse_or("classifier_pooling", Pooling::First)?,
                dense_bias: file.flag("classifier_bias", false)?,
                norm: Some(HeadNorm {
                    name: "head.norm",
                    eps: config.eps,
                    shift: config.norm_bias,
                }),
                for_tokens: true,
            },
            dense: "head.dense",
            activation: file.parse_or("classifier_activation", Activation::Gelu)?,
            out: "classifier",
            dropout: [0.0, file.dropout("classifier_dropout", 0.0)?],
            token_dropout: 0.0,
            modules: &["classifier"],
            new_modules: &["classifier"],
            // The head of the pretraining's words, which a bare body has not.
            may_lack: &["head"],
        },
    };
    encoder::build(head, options, spec, |root| ModernBert::new(root, &config))
}

#[derive(Debug)]
struct ModernBert {
    words: NoisyEmbedding,
    norm: ScaleNorm,
    dropout: f64,
    layers: Vec<Rc<Layer>>,
    final_norm: ScaleNorm,
    /// Of blocks that attend to all, and of the others.
    rotary: [Rotary; 2],
    /// How far away the farthest near token is.
    near: i64,
}

/// What the blocks that attend to all read of a batch, and what the others do.
type Contexts = [ForwardContext; 2];

impl ModernBert {
    fn new(root: &Scope, config: &ModernBertConfig) -> Self {
        let model = root / "model";
        let embeddings = &model / "embeddings";
        let norm = |scope: &Scope, name: &str| {
            scope.scale_norm(name, config.hidden, config.eps, config.norm_bias)
        };
        let size = config.hidden / config.heads;
        let rotary =
            |theta: f64| Rotary::new(Rope::fixed(powers(theta, size)), root.path().device());
        let words = embeddings.words("tok_embeddings", config.vocab_size, config.hidden);
        let layers = config.reaches.iter().enumerate().map(|(i, &reach)| {
            let scope = &model / "layers" / i;
            // The embeddings are normalised already.
            let before = (i > 0).then(|| norm(&scope, "attn_norm"));
            let between = norm(&scope, "mlp_norm");
            Rc::new(Layer::new(&scope, config, reach, before, between))
        });
        ModernBert {
            words,
            norm: norm(&embeddings, "norm"),
            dropout: config.embedding_dropout,
            layers: layers.collect(),
            final_norm: norm(&model, "final_norm"),
            rotary: config.thetas.map(rotary),
            near: config.near,
        }
    }

    fn contexts(&self, batch: &Batch, kind: Kind, train: bool) -> Contexts {
        let (length, device) = (batch.input_ids.size()[1], batch.input_ids.device());
        let positions = Tensor::arange(length, (Kind::Int64, device)).unsqueeze(0);
        let mask = &batch.attention_mask;
        let near = match length > self.near + 1 {
            true => Seen::All(Some(near(mask, self.near, kind))),
            false => Seen::tokens(mask),
        };
        let [all, local] = &self.rotary;
        [(all, Seen::tokens(mask)), (local, near)].map(|(rotary, seen)| ForwardContext {
            rotations: vec![rotary.at(&positions, kind)],
            seen,
            train,
        })
    }
}

/// What is added to the scores of tokens that attend to near ones, `[batch, 1, length, length]`, by
/// `attention_mask`, `[batch, length]`: numbers, as libtorch would make them of a mask anew for every
/// block. Padding sees itself, so that no row is empty.
fn near(attention_mask: &Tensor, near: i64, kind: Kind) -> Tensor {
    let length = attention_mask.size()[1];
    let tokens = attention_mask.to_kind(Kind::Bool).unsqueeze(1).unsqueeze(1);
    let square = Tensor::ones([length, length], (Kind::Bool, tokens.device()));
    let band = square.tril(near).logical_and(&square.triu(-near));
    let itself = square.tril(0).logical_and(&square.triu(0));
    let seen = tokens.logical_and(&band).logical_or(&itself);
    let scores = Tensor::zeros(seen.size(), (kind, tokens.device()));
    scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY)
}

impl EncoderBody for ModernBert {
    fn forward(&self, batch: &Batch, train: bool, checkpointing: bool) -> (Tensor, Checkpoints) {
        let embedded = self.norm.forward(&self.words.forward(&batch.input_ids));
        let x = dropout(embedded, self.dropout, train);
        let contexts = Rc::new(self.contexts(batch, x.kind(), train));
        let blocks = self.layers.iter().map(|layer| {
            let (layer, contexts) = (layer.clone(), contexts.clone());
            move |x: &Tensor| layer.forward(x, &contexts)
        });
        let (x, checkpoints) = chain(x, blocks, checkpointing);
        (self.final_norm.forward(&x), checkpoints)
    }
}

#[derive(Debug)]
struct Layer {
    reach: Reach,
    before_attention: Option<ScaleNorm>,
    /// Queries, keys and values.
    projection: nn::Linear,
    out: nn::Linear,
    heads: i64,
    attention: Attention,
    before_mlp: ScaleNorm,
    /// What is activated, and what gates it.
    up: nn::Linear,
    down: nn::Linear,
    activation: Activation,
    mlp_dropout: f64,
}

impl Layer {
    fn new(
        scope: &Scope,
        config: &ModernBertConfig,
        reach: Reach,
        before_attention: Option<ScaleNorm>,
        before_mlp: ScaleNorm,
    ) -> Self {
        let (hidden, wide) = (config.hidden, config.wide);
        let attention = |name: &str, to| {
            scope.adaptable(Block::Attention, name, (hidden, to), config.attention_bias)
        };
        let mlp = |name: &str, shape| scope.adaptable(Block::Ffn, name, shape, config.mlp_bias);
        Layer {
            reach,
            before_attention,
            projection: attention("attn.Wqkv", 3 * hidden),
            out: attention("attn.Wo", hidden),
            heads: config.heads,
            attention: Attention { dropout: config.attention_dropout, ..Default::default() },
            before_mlp,
            up: mlp("mlp.Wi", (hidden, 2 * wide)),
            down: mlp("mlp.Wo", (wide, hidden)),
            activation: config.activation,
            mlp_dropout: config.mlp_dropout,
        }
    }

    /// `[batch, length, hidden]` to the same.
    fn forward(&self, x: &Tensor, [all, near]: &Contexts) -> Tensor {
        let context = match self.reach {
            Reach::All => all,
            Reach::Near => near,
        };
        let x = x + self.attend(x, context);
        let wide = self.activation.gate_halves(&self.up.forward(&self.before_mlp.forward(&x)));
        x + self.down.forward(&dropout(wide, self.mlp_dropout, context.train))
    }

    fn attend(&self, x: &Tensor, context: &ForwardContext) -> Tensor {
        let normed = self.before_attention.as_ref().map(|norm| norm.forward(x));
        let parts = self.projection.forward(normed.as_ref().unwrap_or(x)).chunk(3, -1);
        let split = |i: usize| split_heads(&parts[i], self.heads);
        let [query, key] = rotate(&split(0), &split(1), &context.rotations[0], RotaryPairs::Halves);
        let attended = self.attention.attend(&query, key, split(2), context, None);
        dropout(self.out.forward(&attended), self.attention.dropout, context.train)
    }
}
