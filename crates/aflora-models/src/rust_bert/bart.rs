//! BART for writing text from text.

use super::writer::{About, Context, Model, Output, RustBertWriter};
use crate::backbone::{Backbone, WriterOptions};
use crate::config_file::ConfigFile;
use crate::generate::SpecialTokens;
use crate::{Error, Result};
use ::rust_bert::bart::{BartConfig, BartModel, LayerState};
use aflora_core::Block;
use serde_json::Value;
use std::path::Path;
use tch::{Kind, Tensor};

/// BART from its `config.json`.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    let mut file = ConfigFile::read(path, "bart", &["bart"])?;
    for key in ["vocab_size", "d_model", "encoder_layers", "decoder_layers"] {
        file.size(key)?;
    }
    for side in ["encoder", "decoder"] {
        let (heads, key) = (file.size(&format!("{side}_attention_heads"))?, "d_model");
        file.size(&format!("{side}_ffn_dim"))?;
        if file.size(key)? % heads != 0 {
            return Err(file.problem(format!("d_model is no multiple of {side}_attention_heads")));
        }
    }
    for (key, built) in [("normalize_before", false), ("static_position_embeddings", false)] {
        if file.flag(key, built)? != built {
            return Err(file.problem(format!("`{key}` is {}, which is not built", !built)));
        }
    }
    let tokens = SpecialTokens::read(path, file.keys())?;
    if tokens.decoder_start.is_none() {
        return Err(file.problem("`decoder_start_token_id` is missing".into()));
    }
    for key in ["dropout", "attention_dropout", "activation_dropout"] {
        file.default(key, file.number(key, 0.0)?.into());
    }
    for key in ["encoder_layerdrop", "decoder_layerdrop"] {
        if file.number(key, 0.0)? != 0.0 {
            return Err(file.problem(format!("`{key}` is not 0, which is not built")));
        }
        file.default(key, 0.0.into());
    }
    file.default("init_std", 0.02.into());
    file.set("num_hidden_layers", file.size("encoder_layers")?.into());
    // Sizes of what is decoded are none of the model's: some files have them as lists.
    for key in ["id2label", "label2id", "min_length", "no_repeat_ngram_size"] {
        file.remove(key);
    }
    file.set("output_past", true.into());
    file.set("output_attentions", Value::Bool(false));
    file.set("output_hidden_states", Value::Bool(false));
    let config: BartConfig = file.parse()?;
    let about = About {
        block,
        prefix: "model.",
        tied: &[(
            "model.shared.weight",
            &[
                "model.encoder.embed_tokens.weight",
                "model.decoder.embed_tokens.weight",
                "lm_head.weight",
            ],
        )],
        optional: &["final_logits_bias"],
        tokens,
        max_positions: config.max_position_embeddings,
        vocab_size: config.vocab_size,
    };
    let writer = RustBertWriter::new(options, about, |root| {
        let model = BartModel::new(root / "model", &config);
        let shared = (root / "model" / "shared").get("weight");
        let shared = shared.ok_or_else(|| Error::Forward("BART has no embeddings".into()))?;
        let bias = root.zeros_no_train("final_logits_bias", &[1, config.vocab_size]);
        Ok(Bart { model, shared, bias })
    })?;
    Ok(Box::new(writer))
}

fn block(name: &str) -> Option<Block> {
    if name.contains("_attn.") {
        Some(Block::Attention)
    } else if name.ends_with(".fc1") || name.ends_with(".fc2") {
        Some(Block::Ffn)
    } else {
        None
    }
}

struct Bart {
    model: BartModel,
    /// The embeddings, which are the head too.
    shared: Tensor,
    bias: Tensor,
}

/// bf16 counts to 256 one by one, and rust-bert builds the causal mask in the kind of the
/// embeddings.
const COUNTS_TO: i64 = 256;

impl Model for Bart {
    fn read(&self, ids: &Tensor, context: &Context) -> Result<Output> {
        let length = ids.size()[1];
        if length > COUNTS_TO && self.shared.kind() != Kind::Float {
            return Err(Error::Forward(format!(
                "a target of {length} tokens: rust-bert's BART masks at most {COUNTS_TO} rightly \
                 in bf16; cut targets shorter, or set precision=fp32"
            )));
        }
        let states = context.memory.map(|memory| memory.iter().map(|m| layer(m)).collect());
        let Context { mask, source, encoded, train, .. } = *context;
        let out = self.model.forward_t(source, mask, Some(ids), encoded, None, states, train);
        let memory = out.cache.unwrap_or_default().into_iter().map(|(own, cross)| {
            let states = [own, cross].into_iter().flatten();
            states.flat_map(|state| [state.prev_key, state.prev_value]).collect()
        });
        let (hidden, encoded) = (out.decoder_output, out.encoder_hidden_state);
        Ok(Output { hidden, memory: memory.collect(), encoded })
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.shared, None::<&Tensor>) + &self.bias
    }
}

fn layer(memory: &[Tensor]) -> (Option<LayerState>, Option<LayerState>) {
    let state = |i: usize| {
        let [key, value] = [memory.get(i)?, memory.get(i + 1)?];
        Some(LayerState { prev_key: key.shallow_clone(), prev_value: value.shallow_clone() })
    };
    (state(0), state(2))
}
