//! GPT-J for writing text, in single precision.

use super::writer::{About, Context, Model, Output, RustBertWriter};
use crate::backbone::{Backbone, WriterOptions};
use crate::config_file::ConfigFile;
use crate::generate::SpecialTokens;
use crate::{Error, Result};
use ::rust_bert::gpt_j::{GptJConfig, GptJModel, LayerState};
use aflora_core::Block;
use serde_json::Value;
use std::path::Path;
use tch::{Kind, Tensor};
use tch_facade::nn::{self, Module};

/// GPT-J from its `config.json`.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    if options.base != Kind::Float {
        return Err(Error::Unbuilt(
            "rust-bert's GPT-J computes its rotary angles in the weights' precision, which in bf16 \
             cannot tell positions apart: set precision=fp32"
                .into(),
        ));
    }
    let mut file = ConfigFile::read(path, "gptj", &["gptj"])?;
    let (hidden, heads) = (file.size("n_embd")?, file.size("n_head")?);
    if hidden % heads != 0 {
        return Err(file.problem(format!("n_embd {hidden} is no multiple of n_head {heads}")));
    }
    file.default("initializer_range", 0.02.into());
    file.default("layer_norm_epsilon", 1e-5.into());
    // rust-bert looks for the activation under another name.
    let activation: String = file.parse_or("activation_function", "gelu_new".to_string())?;
    file.set("afn", activation.into());
    file.set("use_cache", Value::Bool(true));
    file.set("output_attentions", Value::Bool(false));
    file.set("output_hidden_states", Value::Bool(false));
    let config: GptJConfig = file.parse()?;
    let about = About {
        block,
        prefix: "transformer.",
        tied: &[],
        optional: &[],
        tokens: SpecialTokens::read(path, file.keys())?,
        max_positions: config.n_positions,
        vocab_size: config.vocab_size,
    };
    let writer = RustBertWriter::new(options, about, |root| {
        let model = GptJModel::new(root, &config);
        let head = nn::linear(root / "lm_head", hidden, config.vocab_size, Default::default());
        Ok(GptJ { model, head })
    })?;
    Ok(Box::new(writer))
}

fn block(name: &str) -> Option<Block> {
    if name.contains(".attn.") {
        Some(Block::Attention)
    } else if name.contains(".mlp.") {
        Some(Block::Ffn)
    } else {
        None
    }
}

struct GptJ {
    model: GptJModel,
    head: nn::Linear,
}

impl Model for GptJ {
    fn read(&self, ids: &Tensor, context: &Context) -> Result<Output> {
        let states = context.memory.map(|memory| {
            let state = |layer: &Vec<Tensor>| {
                let [key, value] = [layer.first()?, layer.get(1)?].map(Tensor::shallow_clone);
                Some(LayerState { prev_key: key, prev_value: value })
            };
            memory.iter().map(state).collect()
        });
        // Positions are relative: padding before a text shifts all of them alike.
        let Context { mask, train, .. } = *context;
        let out = self
            .model
            .forward_t(Some(ids), states, mask, None, None, None, train)
            .map_err(|e| Error::Forward(e.to_string()))?;
        let memory = out.cache.unwrap_or_default().into_iter().map(|state| {
            let state = state.map(|s| vec![s.prev_key, s.prev_value]);
            state.unwrap_or_default()
        });
        Ok(Output { hidden: out.output, memory: memory.collect(), encoded: None })
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        self.head.forward(hidden)
    }
}
