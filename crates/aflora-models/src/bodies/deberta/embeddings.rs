//! The input of the first block.

use super::config::DebertaConfig;
use crate::batch::Batch;
use crate::nn::linear::dropout;
use crate::nn::noise::NoisyEmbedding;
use crate::nn::scope::Scope;
use aflora_core::nn::{self, Module};
use tch::{Kind, Tensor};

#[derive(Debug)]
pub(super) struct Embeddings {
    word: NoisyEmbedding,
    position: Option<nn::Embedding>,
    token_type: Option<nn::Embedding>,
    projection: Option<nn::Linear>,
    norm: nn::LayerNorm,
    dropout: f64,
}

impl Embeddings {
    pub fn new(scope: Scope, config: &DebertaConfig) -> Self {
        let (size, hidden) = (config.embedding_size(), config.hidden_size);
        let table = |name: &str, rows| scope.embedding(name, rows, size);
        Embeddings {
            word: scope.words("word_embeddings", config.vocab_size, size),
            position: config
                .position_biased_input
                .then(|| table("position_embeddings", config.max_position_embeddings)),
            token_type: (config.type_vocab_size > 0)
                .then(|| table("token_type_embeddings", config.type_vocab_size)),
            projection: (size != hidden).then(|| scope.bare_linear("embed_proj", size, hidden)),
            norm: scope.layer_norm("LayerNorm", hidden, config.layer_norm_eps),
            dropout: config.hidden_dropout_prob,
        }
    }

    /// The kind that the encoder computes in.
    pub fn kind(&self) -> Kind {
        self.norm.ws.as_ref().map_or(Kind::Float, Tensor::kind)
    }

    /// `tokens`: 1 for a token and 0 for padding, `[batch, length]` of [`kind`](Self::kind). Gives
    /// `[batch, length, hidden]`.
    pub fn forward(&self, batch: &Batch, tokens: &Tensor, train: bool) -> Tensor {
        let mut x = self.word.forward(&batch.input_ids);
        if let Some(position) = &self.position {
            x += position.ws.narrow(0, 0, batch.input_ids.size()[1]);
        }
        if let Some(token_type) = &self.token_type {
            x += token_type.forward(&batch.types());
        }
        if let Some(projection) = &self.projection {
            x = projection.forward(&x);
        }
        dropout(self.norm.forward(&x) * tokens.unsqueeze(2), self.dropout, train)
    }
}
