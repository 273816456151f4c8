//! RoBERTa, and XLM-RoBERTa, which is the same network with another vocabulary.

use super::bert::{adapt, check_sizes};
use super::{absolute_positions, transformer_block, ConfigFile, RustBert, Wrapper};
use crate::backbone::{Backbone, Batch};
use crate::Result;
use ::rust_bert::roberta::{RobertaConfig, RobertaForSequenceClassification};
use std::path::Path;
use tch::{Device, Tensor};
use tch_facade::nn;

/// Positions are counted from the padding token's id plus one.
const PAD: i64 = 1;

/// RoBERTa from its `config.json`.
pub(crate) fn build(path: &Path, labels: i64, device: Device) -> Result<Box<dyn Backbone>> {
    let mut keys = ConfigFile::read(path, "roberta", &["roberta", "xlm-roberta", "camembert"])?;
    absolute_positions(&keys)?;
    check_sizes(&keys)?;
    let pad = keys.integer("pad_token_id", PAD)?;
    if pad != PAD {
        // rust-bert has the 1 in its code.
        return Err(keys.problem(format!("pad_token_id is {pad}; only {PAD} is built")));
    }
    adapt(&mut keys, labels);
    let config: RobertaConfig = keys.parse()?;
    let wrapper = Wrapper {
        forward,
        block: transformer_block,
        head: &["classifier"],
        prefix: "roberta.",
        max_positions: config.max_position_embeddings - PAD - 1,
        vocab_size: config.vocab_size,
        layer_norm_eps: keys.number("layer_norm_eps", 1e-12)?,
    };
    let build = |root: &nn::Path<'_>| RobertaForSequenceClassification::new(root, &config);
    Ok(Box::new(RustBert::new(device, wrapper, build)?))
}

fn forward(model: &RobertaForSequenceClassification, batch: &Batch, train: bool) -> Result<Tensor> {
    // One token type: the separator alone tells the texts of a pair apart.
    let (ids, mask) = (Some(&batch.input_ids), Some(&batch.attention_mask));
    Ok(model.forward_t(ids, mask, None, None, None, train).logits)
}
