//! BERT (Devlin et al. 2019). Its head reads what the pooler makes of the first token's state.

use super::embeddings::EmbeddingsConfig;
use super::sizes::Sizes;
use super::{numbered, BertConfig, BERT_BLOCK};
use crate::backbone::Backbone;
use crate::bodies::encoder::{HeadShape, TextHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::options::Options;
use crate::Result;

/// BERT from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let sizes = Sizes::read(&file, Activation::Gelu, 0.1)?;
    let embeddings = EmbeddingsConfig::read(&file, &sizes)?;
    let config = BertConfig {
        name: "bert",
        prefix: "bert.",
        max_positions: embeddings.positions,
        embeddings,
        block: sizes.block(),
        block_names: &BERT_BLOCK,
        blocks: numbered("encoder.layer", sizes.layers),
        bias: None,
        head: TextHead {
            shape: HeadShape::default(),
            dense: "bert.pooler.dense",
            activation: Activation::Tanh,
            out: "classifier",
            dropout: [0.0, file.dropout("classifier_dropout", sizes.dropout)?],
            token_dropout: file.dropout("classifier_dropout", sizes.dropout)?,
            modules: &["classifier"],
            new_modules: &["classifier"],
            may_lack: &["bert.pooler"],
        },
    };
    super::build(config, head, options)
}
