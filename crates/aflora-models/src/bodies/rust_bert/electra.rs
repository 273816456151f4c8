//! ELECTRA's discriminator. rust-bert has its encoder but no head for sequences: that is here.

use super::bert::check_sizes;
use super::{absolute_positions, labels, transformer_block, ConfigFile, RustBert, Wrapper};
use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::heads::dense::DenseHead;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::options::Options;
use crate::{Error, Result};
use ::rust_bert::electra::{ElectraConfig, ElectraModel};
use aflora_core::nn;
use tch::Tensor;

struct Electra {
    encoder: ElectraModel,
    /// One of the encoder's weights, of the kind that it computes in.
    weight: Tensor,
    head: DenseHead,
}

/// ELECTRA from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let labels = labels("electra", head, options)?;
    let mut keys = file;
    absolute_positions(&keys)?;
    check_sizes(&keys)?;
    keys.size("embedding_size")?;
    for key in ["id2label", "label2id"] {
        keys.remove(key);
    }
    keys.default("pad_token_id", 0.into());
    keys.default("initializer_range", 0.02.into());
    let config: ElectraConfig = keys.parse()?;
    let dropout = keys.number("classifier_dropout", config.hidden_dropout_prob)?;
    let wrapper = Wrapper {
        forward,
        block: transformer_block,
        head_modules: &["classifier"],
        class_rows: "classifier.out_proj",
        prefix: "electra.",
        max_positions: config.max_position_embeddings,
        vocab_size: config.vocab_size,
        layer_norm_eps: keys.number("layer_norm_eps", 1e-12)?,
    };
    let build = |root: &nn::Path<'_>| {
        let (classifier, hidden) = (root / "classifier", config.hidden_size);
        let encoder = ElectraModel::new(root / "electra", &config);
        let norm = root / "electra" / "embeddings" / "LayerNorm";
        Ok(Electra {
            encoder,
            weight: norm.get("weight").unwrap_or_default(),
            head: DenseHead {
                dense: nn::linear(&classifier / "dense", hidden, hidden, Default::default()),
                activation: Activation::Gelu,
                out: nn::linear(&classifier / "out_proj", hidden, labels, Default::default()),
                dropout: [dropout; 2],
            },
        })
    };
    Ok(Box::new(RustBert::new(&keys, head, options, wrapper, build)?))
}

fn forward(model: &Electra, batch: &Batch, train: bool) -> Result<Tensor> {
    // rust-bert adds this model's mask to the scores as it is: a mask of ones and zeros would
    // hide nothing. One of three dimensions goes through unchanged.
    let kind = model.weight.kind();
    let hidden = (&batch.attention_mask - 1).to_kind(kind) * 1e30;
    let output = model
        .encoder
        .forward_t(
            Some(&batch.input_ids),
            Some(&hidden.unsqueeze(1)),
            batch.token_type_ids.as_ref(),
            None,
            None,
            train,
        )
        .map_err(|e| Error::Forward(e.to_string()))?;
    Ok(model.head.forward(output.hidden_state.select(1, 0), train))
}
