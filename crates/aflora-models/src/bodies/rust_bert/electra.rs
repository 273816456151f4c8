//! ELECTRA's discriminator. rust-bert has its encoder but no head for sequences: that is here.

use super::bert::check_sizes;
use super::{absolute_positions, transformer_block, ConfigFile, RustBert, Wrapper};
use crate::backbone::{Backbone, Batch};
use crate::{Error, Result};
use ::rust_bert::electra::{ElectraConfig, ElectraModel};
use std::path::Path;
use tch::{Device, Tensor};
use tch_facade::nn::{self, Module};

struct Electra {
    encoder: ElectraModel,
    dense: nn::Linear,
    out_proj: nn::Linear,
    dropout: f64,
}

/// ELECTRA from its `config.json`.
pub(crate) fn build(path: &Path, labels: i64, device: Device) -> Result<Box<dyn Backbone>> {
    let mut keys = ConfigFile::read(path, "electra", &["electra"])?;
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
        head: &["classifier"],
        prefix: "electra.",
        max_positions: config.max_position_embeddings,
        vocab_size: config.vocab_size,
        layer_norm_eps: keys.number("layer_norm_eps", 1e-12)?,
    };
    let build = |root: &nn::Path<'_>| {
        let (classifier, hidden) = (root / "classifier", config.hidden_size);
        Ok(Electra {
            encoder: ElectraModel::new(root / "electra", &config),
            dense: nn::linear(&classifier / "dense", hidden, hidden, Default::default()),
            out_proj: nn::linear(&classifier / "out_proj", hidden, labels, Default::default()),
            dropout,
        })
    };
    Ok(Box::new(RustBert::new(device, wrapper, build)?))
}

fn forward(model: &Electra, batch: &Batch, train: bool) -> Result<Tensor> {
    // rust-bert adds this model's mask to the scores as it is: a mask of ones and zeros would
    // hide nothing. One of three dimensions goes through unchanged.
    let kind = model.dense.ws.kind();
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
    let drop = |x: Tensor| x.dropout(model.dropout, train);
    let x = model.dense.forward(&drop(output.hidden_state.select(1, 0))).gelu("none");
    Ok(model.out_proj.forward(&drop(x)))
}
