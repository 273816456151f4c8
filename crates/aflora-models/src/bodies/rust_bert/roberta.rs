//! RoBERTa, and XLM-RoBERTa, which is the same network with another vocabulary.

use super::bert::{adapt, check_sizes};
use super::{absolute_positions, labels, transformer_block, ConfigFile, RustBert, Wrapper};
use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;
use ::rust_bert::roberta::{RobertaConfig, RobertaForSequenceClassification};
use aflora_core::nn;
use tch::{Kind, Tensor};

/// The padding token's id where the config has none.
const PAD: i64 = 1;

/// The network, and the padding token's id, from which positions are counted.
struct Roberta {
    model: RobertaForSequenceClassification,
    pad: i64,
}

/// RoBERTa from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let labels = labels("roberta", head, options)?;
    let mut keys = file;
    absolute_positions(&keys)?;
    check_sizes(&keys)?;
    let pad = keys.integer("pad_token_id", PAD)?;
    adapt(&mut keys, labels);
    let config: RobertaConfig = keys.parse()?;
    let rows = config.vocab_size.min(config.max_position_embeddings - 1);
    if !(0..rows).contains(&pad) {
        return Err(keys.problem(format!(
            "pad_token_id is {pad}, but must be a token, and leave positions behind it: below {rows}"
        )));
    }
    let wrapper = Wrapper {
        forward,
        block: transformer_block,
        head_modules: &["classifier"],
        class_rows: "classifier.out_proj",
        prefix: "roberta.",
        max_positions: config.max_position_embeddings - pad - 1,
        vocab_size: config.vocab_size,
        layer_norm_eps: keys.number("layer_norm_eps", 1e-12)?,
    };
    let build = |root: &nn::Path<'_>| {
        RobertaForSequenceClassification::new(root, &config).map(|model| Roberta { model, pad })
    };
    Ok(Box::new(RustBert::new(&keys, head, options, wrapper, build)?))
}

fn forward(roberta: &Roberta, batch: &Batch, train: bool) -> Result<Tensor> {
    // One token type: the separator alone tells the texts of a pair apart.
    let (ids, mask) = (Some(&batch.input_ids), Some(&batch.attention_mask));
    // rust-bert itself counts from 1, whatever the config says.
    let positions = positions(&batch.input_ids, roberta.pad);
    Ok(roberta.model.forward_t(ids, mask, None, Some(&positions), None, train).logits)
}

/// Positions of tokens, `[batch, length]`: padding has its own id's, and the tokens that follow
/// count on from there.
fn positions(ids: &Tensor, pad: i64) -> Tensor {
    let counts = ids.ne(pad).to_kind(Kind::Int64);
    counts.cumsum(1, Kind::Int64) * counts + pad
}
