//! BERT and its kin: one network, and what each kind of it makes of its config.json.
//!
//! RoBERTa counts positions from the padding token and has a head of its own, ELECTRA and ALBERT
//! have narrow embeddings, ALBERT runs one block many times, DistilBERT has no token types, and
//! other names and dropouts, MPNet adds a bias to the scores of attention. Each is a [`BertConfig`], in a file of its own.

pub(crate) mod albert;
pub(crate) mod bert;
pub(crate) mod distilbert;
pub(crate) mod electra;
mod embeddings;
pub(crate) mod mpnet;
pub(crate) mod roberta;
mod sizes;

use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::bodies::encoder::{self, EncoderBody, EncoderSpec, TextHead};
use crate::heads::Head;
use crate::nn::attention::{ForwardContext, Seen};
use crate::nn::chain::chain;
use crate::nn::post_norm::{BlockConfig, BlockNames, FeedForwardNames, PostNormBlock};
use crate::nn::relative::RelativeBias;
use crate::options::Options;
use crate::Result;
use aflora_core::Checkpoints;
use embeddings::{Embeddings, EmbeddingsConfig};
use std::collections::HashMap;
use std::rc::Rc;
use tch::{Kind, Tensor};

/// A BERT or one of its kin.
struct BertConfig {
    /// The module that all of it but the head is in.
    name: &'static str,
    prefix: &'static str,
    embeddings: EmbeddingsConfig,
    block: BlockConfig,
    block_names: &'static BlockNames,
    /// The names of the blocks in the order in which they run; the same name is the same block.
    blocks: Vec<String>,
    /// The name of the table of distances that attention adds to its scores, where there is one.
    bias: Option<&'static str>,
    /// The longest text.
    max_positions: i64,
    head: TextHead,
}

/// The blocks `name.0`, `name.1`, … of so many layers.
fn numbered(name: &str, layers: i64) -> Vec<String> {
    (0..layers).map(|i| format!("{name}.{i}")).collect()
}

/// The names that BERT has for the layers of a block, and most of its kin.
const BERT_BLOCK: BlockNames = BlockNames {
    attention: [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ],
    attention_norm: "attention.output.LayerNorm",
    feed_forward: FeedForwardNames {
        up: "intermediate.dense",
        down: "output.dense",
        norm: "output.LayerNorm",
    },
};

/// The encoder of `config`. Weights are zero until loaded or initialised.
fn build(config: BertConfig, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let BertConfig { name, prefix, embeddings, block, block_names, blocks, bias, .. } = config;
    let spec = EncoderSpec {
        prefix,
        hidden: block.hidden,
        max_positions: config.max_positions,
        head: config.head,
    };
    encoder::build(head, options, spec, |root| {
        let scope = root / name;
        let embeddings = Embeddings::new(&scope, &embeddings, block.hidden);
        let mut made = HashMap::new();
        let blocks = blocks.iter().map(|name| {
            let new = || Rc::new(PostNormBlock::new(&(&scope / name), block_names, &block));
            made.entry(name).or_insert_with(new).clone()
        });
        let blocks = blocks.collect();
        let bias =
            bias.map(|name| Rc::new(RelativeBias::new(&scope, name, block.heads, mpnet::BUCKETS)));
        BertBody { embeddings, blocks, bias }
    })
}

#[derive(Debug)]
struct BertBody {
    embeddings: Embeddings,
    /// In the order in which they run; one may be there several times.
    blocks: Vec<Rc<PostNormBlock>>,
    bias: Option<Rc<RelativeBias>>,
}

/// What all blocks read of a batch with this attention mask, `[batch, length]`.
fn context(bias: Option<&RelativeBias>, attention_mask: &Tensor, train: bool) -> ForwardContext {
    let seen = match bias {
        Some(bias) => {
            let length = attention_mask.size()[1];
            let tokens = attention_mask.to_kind(Kind::Bool).unsqueeze(1).unsqueeze(1);
            Seen::All(Some(bias.forward(length, length, &tokens)))
        }
        None => Seen::tokens(attention_mask),
    };
    ForwardContext { rotations: Vec::new(), seen, train }
}

impl EncoderBody for BertBody {
    fn forward(&self, batch: &Batch, train: bool, checkpointing: bool) -> (Tensor, Checkpoints) {
        let mask = &batch.attention_mask;
        // A block that runs twice makes the bias itself: the graph behind that is its own.
        let shared = (!checkpointing || self.bias.is_none())
            .then(|| Rc::new(context(self.bias.as_deref(), mask, train)));
        let blocks = self.blocks.iter().map(|block| {
            let (block, bias, shared) = (block.clone(), self.bias.clone(), shared.clone());
            let mask = mask.shallow_clone();
            move |x: &Tensor| match &shared {
                Some(shared) => block.forward(x, shared),
                None => block.forward(x, &context(bias.as_deref(), &mask, train)),
            }
        });
        chain(self.embeddings.forward(batch, train), blocks, checkpointing)
    }
}
