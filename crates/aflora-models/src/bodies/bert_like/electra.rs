//! ELECTRA's discriminator (Clark et al. 2020): a BERT whose embeddings may be narrower than its
//! blocks.

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

/// ELECTRA from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let sizes = Sizes::read(&file, Activation::Gelu, 0.1)?;
    let size = file.size("embedding_size")?;
    let embeddings = EmbeddingsConfig {
        size,
        projection: (size != sizes.hidden).then_some("embeddings_project"),
        ..EmbeddingsConfig::read(&file, &sizes)?
    };
    let dropout = file.dropout("classifier_dropout", sizes.dropout)?;
    let config = BertConfig {
        name: "electra",
        prefix: "electra.",
        max_positions: embeddings.positions,
        embeddings,
        block: sizes.block(),
        block_names: &BERT_BLOCK,
        blocks: numbered("encoder.layer", sizes.layers),
        bias: None,
        head: TextHead {
            shape: HeadShape::default(),
            dense: "classifier.dense",
            activation: Activation::Gelu,
            out: "classifier.out_proj",
            dropout: [dropout; 2],
            token_dropout: dropout,
            modules: &["classifier"],
            new_modules: &["classifier"],
            may_lack: &[],
        },
    };
    super::build(config, head, options)
}
