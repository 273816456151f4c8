//! The input of the first block.

use super::sizes::Sizes;
use crate::batch::Batch;
use crate::config_file::ConfigFile;
use crate::nn::linear::dropout;
use crate::nn::noise::NoisyEmbedding;
use crate::nn::scope::Scope;
use crate::Result;
use aflora_core::nn::{self, Module};
use tch::{Kind, Tensor};

/// The embeddings of one model.
pub(super) struct EmbeddingsConfig {
    pub vocab_size: i64,
    /// The width of the embeddings.
    pub size: i64,
    /// Rows of the table of positions.
    pub positions: i64,
    pub counted: Counted,
    pub types: TokenTypes,
    /// What the LayerNorm adds to the variance.
    pub eps: f64,
    pub dropout: f64,
    /// The name of the layer from the width of the embeddings to that of the blocks; none where
    /// the first block reads the embeddings as they are.
    pub projection: Option<&'static str>,
}

/// How positions are counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    /// From 0, padding as well.
    All,
    /// Tokens alone, from the one after this token's id, which is that of padding.
    Tokens { pad: i64 },
}

/// The table of token types.
#[derive(Debug, Clone, Copy)]
pub(super) enum TokenTypes {
    /// None.
    No,
    /// So many rows, of which the batch says which is read.
    Read(i64),
    /// So many rows, of which the first is read: the separator alone tells the texts of a pair
    /// apart.
    First(i64),
}

impl EmbeddingsConfig {
    /// BERT's: as wide as the blocks, positions from 0, and token types as the batch has them.
    pub fn read(file: &ConfigFile, sizes: &Sizes) -> Result<Self> {
        Ok(EmbeddingsConfig {
            vocab_size: file.size("vocab_size")?,
            size: sizes.hidden,
            positions: file.size("max_position_embeddings")?,
            counted: Counted::All,
            types: TokenTypes::Read(file.size("type_vocab_size")?),
            eps: sizes.eps,
            dropout: sizes.dropout,
            projection: None,
        })
    }
}

#[derive(Debug)]
pub(super) struct Embeddings {
    word: NoisyEmbedding,
    position: nn::Embedding,
    counted: Counted,
    token_type: Option<nn::Embedding>,
    /// Whether the batch says which type is read.
    reads_types: bool,
    norm: nn::LayerNorm,
    dropout: f64,
    projection: Option<nn::Linear>,
}

impl Embeddings {
    /// Those of the body at `body`, for blocks of the width `hidden`.
    pub fn new(body: &Scope, config: &EmbeddingsConfig, hidden: i64) -> Self {
        let scope = body / "embeddings";
        let table = |name: &str, rows| scope.embedding(name, rows, config.size);
        let types = match config.types {
            TokenTypes::No => None,
            TokenTypes::Read(rows) | TokenTypes::First(rows) => Some(rows),
        };
        Embeddings {
            word: scope.words("word_embeddings", config.vocab_size, config.size),
            position: table("position_embeddings", config.positions),
            counted: config.counted,
            token_type: types.map(|rows| table("token_type_embeddings", rows)),
            reads_types: matches!(config.types, TokenTypes::Read(_)),
            norm: scope.layer_norm("LayerNorm", config.size, config.eps),
            dropout: config.dropout,
            projection: config.projection.map(|name| body.linear(name, config.size, hidden)),
        }
    }

    /// `[batch, length, hidden]`, of a batch that is not longer than the table of positions.
    pub fn forward(&self, batch: &Batch, train: bool) -> Tensor {
        let mut x = self.word.forward(&batch.input_ids);
        x += match self.counted {
            Counted::All => self.position.ws.narrow(0, 0, batch.input_ids.size()[1]),
            Counted::Tokens { pad } => self.position.forward(&positions(&batch.input_ids, pad)),
        };
        if let Some(token_type) = &self.token_type {
            x += match &batch.token_type_ids {
                Some(types) if self.reads_types => token_type.forward(types),
                _ => token_type.ws.narrow(0, 0, 1),
            };
        }
        let x = dropout(self.norm.forward(&x), self.dropout, train);
        match &self.projection {
            Some(projection) => projection.forward(&x),
            None => x,
        }
    }
}

/// Positions of tokens, `[batch, length]`: padding has its own id's, and the tokens that follow
/// count on from there.
fn positions(ids: &Tensor, pad: i64) -> Tensor {
    let counts = ids.ne(pad).to_kind(Kind::Int64);
    counts.cumsum(1, Kind::Int64) * counts + pad
}
