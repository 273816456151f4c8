//! BERT for sequence classification (and regression, with one label).

use super::{label_map, read_config, RustBert, Wrapper};
use crate::backbone::{Backbone, Batch};
use crate::Result;
use ::rust_bert::bert::{BertConfig, BertForSequenceClassification};
use aflora_core::Block;
use serde_json::{Map, Value};
use std::path::Path;
use tch::{Device, Tensor};
use tch_facade::nn;

/// BERT from its `config.json`, with random weights.
pub(crate) fn build(path: &Path, labels: i64, device: Device) -> Result<Box<dyn Backbone>> {
    let config: BertConfig = read_config(path, |keys| adapt(keys, labels))?;
    let wrapper = Wrapper {
        forward,
        block,
        head: &["classifier"],
        prefix: "bert.",
        max_positions: config.max_position_embeddings,
        vocab_size: config.vocab_size,
    };
    let build = |root: &nn::Path<'_>| BertForSequenceClassification::new(root, &config);
    Ok(Box::new(RustBert::new(device, wrapper, build)?))
}

/// Sets the labels and refuses what rust-bert would build wrongly without a word.
fn adapt(keys: &mut Map<String, Value>, labels: i64) -> std::result::Result<(), String> {
    if let Some(found) = keys.get("model_type").and_then(Value::as_str).filter(|t| *t != "bert") {
        return Err(format!("model_type is `{found}`, but the backbone `bert` wants `bert`"));
    }
    match keys.get("position_embedding_type").and_then(Value::as_str) {
        None | Some("absolute") => {}
        Some(other) => {
            return Err(format!(
                "position_embedding_type is `{other}`; only `absolute` positions are built"
            ))
        }
    }
    let size = |key: &str| {
        let value = keys.get(key).and_then(Value::as_i64);
        value.filter(|n| *n > 0).ok_or_else(|| format!("`{key}` must be a positive whole number"))
    };
    for key in ["vocab_size", "intermediate_size", "max_position_embeddings", "type_vocab_size"] {
        size(key)?;
    }
    size("num_hidden_layers")?;
    let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
    if hidden % heads != 0 {
        return Err(format!("hidden_size {hidden} is no multiple of num_attention_heads {heads}"));
    }
    // Keys that rust-bert reads in another form than some checkpoints write them.
    keys.insert("id2label".into(), label_map(labels));
    keys.remove("label2id");
    keys.insert("is_decoder".into(), false.into());
    Ok(())
}

fn forward(model: &BertForSequenceClassification, batch: &Batch, train: bool) -> Result<Tensor> {
    let Batch { input_ids, attention_mask, token_type_ids } = batch;
    let output = model.forward_t(
        Some(input_ids),
        Some(attention_mask),
        Some(token_type_ids),
        None,
        None,
        train,
    );
    Ok(output.logits)
}

fn block(name: &str) -> Option<Block> {
    if !name.contains(".encoder.layer.") {
        None
    } else if name.contains(".attention.") {
        Some(Block::Attention)
    } else {
        Some(Block::Ffn)
    }
}
