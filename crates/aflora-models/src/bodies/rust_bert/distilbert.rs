//! DistilBERT: half of BERT's layers, no token types, and other names.

use super::{id2label, labels, ConfigFile, RustBert, Wrapper};
use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::heads::Head;
use crate::options::Options;
use crate::{Error, Result};
use ::rust_bert::distilbert::{DistilBertConfig, DistilBertModelClassifier};
use aflora_core::nn;
use aflora_core::Block;
use tch::Tensor;

/// Keys that transformers reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "dim"),
    ("num_attention_heads", "n_heads"),
    ("num_hidden_layers", "n_layers"),
];

/// DistilBERT from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let labels = labels("distilbert", head, options)?;
    let mut keys = file.rename(ALIASES);
    for key in ["vocab_size", "hidden_dim", "max_position_embeddings", "n_layers"] {
        keys.size(key)?;
    }
    let (dim, heads) = (keys.size("dim")?, keys.size("n_heads")?);
    if dim % heads != 0 {
        return Err(keys.problem(format!("dim {dim} is no multiple of n_heads {heads}")));
    }
    keys.set("id2label", id2label(labels));
    keys.remove("label2id");
    // Sinusoids are in the checkpoint like learned positions, so they need not be made.
    keys.set("sinusoidal_pos_embds", false.into());
    keys.set("tie_weights_", false.into());
    keys.default("qa_dropout", 0.1.into());
    keys.default("seq_classif_dropout", 0.2.into());
    keys.default("initializer_range", 0.02.into());
    let config: DistilBertConfig = keys.parse()?;
    let wrapper = Wrapper {
        forward,
        block,
        head_modules: &["pre_classifier", "classifier"],
        class_rows: "classifier",
        prefix: "distilbert.",
        max_positions: config.max_position_embeddings,
        vocab_size: config.vocab_size,
        layer_norm_eps: 1e-12,
    };
    let build = |root: &nn::Path<'_>| DistilBertModelClassifier::new(root, &config);
    Ok(Box::new(RustBert::new(&keys, head, options, wrapper, build)?))
}

fn forward(model: &DistilBertModelClassifier, batch: &Batch, train: bool) -> Result<Tensor> {
    let (ids, mask) = (Some(&batch.input_ids), Some(&batch.attention_mask));
    let output = model.forward_t(ids, mask, None, train);
    Ok(output.map_err(|e| Error::Forward(e.to_string()))?.logits)
}

fn block(name: &str) -> Option<Block> {
    if !name.contains(".transformer.layer.") {
        None
    } else if name.contains(".attention.") {
        Some(Block::Attention)
    } else {
        Some(Block::Ffn)
    }
}
