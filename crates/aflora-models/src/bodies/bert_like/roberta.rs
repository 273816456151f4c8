//! RoBERTa (Liu et al. 2019), and XLM-RoBERTa and CamemBERT, which are the same network with
//! other vocabularies.

use super::embeddings::{Counted, EmbeddingsConfig, TokenTypes};
use super::sizes::Sizes;
use super::{numbered, BertConfig, BERT_BLOCK};
use crate::backbone::Backbone;
use crate::bodies::encoder::{HeadShape, TextHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::options::Options;
use crate::Result;

/// The padding token's id where the config has none.
const PAD: i64 = 1;

/// RoBERTa from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let sizes = Sizes::read(&file, Activation::Gelu, 0.1)?;
    let pad = file.integer("pad_token_id", PAD)?;
    let embeddings = EmbeddingsConfig {
        counted: Counted::Tokens { pad },
        types: TokenTypes::First(file.size("type_vocab_size")?),
        ..EmbeddingsConfig::read(&file, &sizes)?
    };
    let rows = embeddings.vocab_size.min(embeddings.positions - 1);
    if !(0..rows).contains(&pad) {
        return Err(file.problem(format!(
            "pad_token_id is {pad}, but must be a token, and leave positions behind it: below {rows}"
        )));
    }
    let dropout = file.dropout("classifier_dropout", sizes.dropout)?;
    let config = BertConfig {
        name: "roberta",
        prefix: "roberta.",
        max_positions: embeddings.positions - pad - 1,
        embeddings,
        block: sizes.block(),
        block_names: &BERT_BLOCK,
        blocks: numbered("encoder.layer", sizes.layers),
        bias: None,
        head: TextHead {
            shape: HeadShape::default(),
            dense: "classifier.dense",
            activation: Activation::Tanh,
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
