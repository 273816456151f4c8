//! BERT for sequence classification (and regression, with one label).

use super::{
    absolute_positions, id2label, labels, transformer_block, ConfigFile, RustBert, Wrapper,
};
use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;
use ::rust_bert::bert::{BertConfig, BertForSequenceClassification};
use aflora_core::nn;
use tch::Tensor;

/// BERT from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let labels = labels("bert", head, options)?;
    let mut keys = file;
    absolute_positions(&keys)?;
    check_sizes(&keys)?;
    adapt(&mut keys, labels);
    let config: BertConfig = keys.parse()?;
    let wrapper = Wrapper {
        forward,
        block: transformer_block,
        head_modules: &["classifier"],
        class_rows: "classifier",
        prefix: "bert.",
        max_positions: config.max_position_embeddings,
        vocab_size: config.vocab_size,
        layer_norm_eps: keys.number("layer_norm_eps", 1e-12)?,
    };
    let build = |root: &nn::Path<'_>| BertForSequenceClassification::new(root, &config);
    Ok(Box::new(RustBert::new(&keys, head, options, wrapper, build)?))
}

/// Sizes without which rust-bert would panic, or build something else.
pub(super) fn check_sizes(keys: &ConfigFile) -> Result<()> {
    for key in [
        "vocab_size",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "num_hidden_layers",
    ] {
        keys.size(key)?;
    }
    let (hidden, heads) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?);
    if hidden % heads != 0 {
        return Err(keys.problem(format!(
            "hidden_size {hidden} is no multiple of num_attention_heads {heads}"
        )));
    }
    Ok(())
}

/// Sets the keys that rust-bert reads in another form than checkpoints write them.
pub(super) fn adapt(keys: &mut ConfigFile, labels: i64) {
    keys.set("id2label", id2label(labels));
    keys.remove("label2id");
    keys.set("is_decoder", false.into());
}

fn forward(model: &BertForSequenceClassification, batch: &Batch, train: bool) -> Result<Tensor> {
    let Batch { input_ids, attention_mask, token_type_ids, .. } = batch;
    let (ids, mask, types) = (Some(input_ids), Some(attention_mask), token_type_ids.as_ref());
    Ok(model.forward_t(ids, mask, types, None, None, train).logits)
}
