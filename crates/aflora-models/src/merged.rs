//! A fine-tuned model as a plain Hugging Face folder, its adapters merged into its weights.
//!
//! `transformers` opens it with `AutoModelForSequenceClassification` (or the class for causal or
//! sequence-to-sequence models), rust-bert with the model's own type; neither needs to know of adapters.

use crate::adapted::AdaptedModel;
use crate::adapter_folder::{write_safetensors, write_whole};
use crate::generate::GENERATION_CONFIG;
use crate::tokenizer;
use crate::{Error, Result};
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tch::{Kind, Tensor};

/// What a model answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers<'a> {
    /// One of these classes.
    Classes(&'a [&'a str]),
    /// One score.
    Score,
    /// Text.
    Text,
}

/// Writes `model`, made of the files in `source`, to `folder`, in single precision.
///
/// # Errors
/// The source's config.json cannot be read, or the folder cannot be written. The folder appears
/// whole or not at all; one that was there is replaced.
pub fn save(
    model: &AdaptedModel,
    source: &Path,
    folder: &Path,
    answers: Answers<'_>,
) -> Result<()> {
    let config = source.join("config.json");
    let text = aflora_files::read_text(&config).map_err(Error::io(&config))?;
    let mut keys: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|e| Error::Config { path: config, problem: e.to_string() })?;
    match answers {
        Answers::Classes(names) => describe_labels(&mut keys, names),
        Answers::Score => describe_labels(&mut keys, &[]),
        Answers::Text => {}
    }
    for key in ["dtype", "torch_dtype"] {
        if let Some(kind) = keys.get_mut(key) {
            *kind = json!("float32");
        }
    }
    let weights = weights(model);
    write_whole(folder, |folder| {
        let path = folder.join("config.json");
        let text = serde_json::to_string_pretty(&keys).unwrap_or_default();
        fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        write_safetensors(&folder.join("model.safetensors"), weights)?;
        for name in tokenizer::FILES.iter().chain(&[GENERATION_CONFIG]) {
            let (from, to) = (source.join(name), folder.join(name));
            if from.is_file() {
                fs::copy(&from, &to).map_err(Error::io(&to))?;
            }
        }
        Ok(())
    })
}

fn describe_labels(keys: &mut Map<String, Value>, labels: &[&str]) {
    let names: Vec<&str> = if labels.is_empty() { vec!["LABEL_0"] } else { labels.to_vec() };
    let id2label: Map<String, Value> =
        names.iter().enumerate().map(|(i, name)| (i.to_string(), (*name).into())).collect();
    let label2id: Map<String, Value> =
        names.iter().enumerate().map(|(i, name)| (name.to_string(), i.into())).collect();
    keys.insert("id2label".into(), id2label.into());
    keys.insert("label2id".into(), label2id.into());
    keys.remove("num_labels");
    let kind = if labels.is_empty() { "regression" } else { "single_label_classification" };
    keys.insert("problem_type".into(), json!(kind));
}

/// Every weight of the model, adapted layers with their delta on them.
fn weights(model: &AdaptedModel) -> BTreeMap<String, Tensor> {
    tch::no_grad(|| {
        let mut weights: BTreeMap<String, Tensor> = model
            .backbone()
            .var_store()
            .variables()
            .into_iter()
            .map(|(name, t)| (name, t.detach().to_kind(Kind::Float)))
            .collect();
        for adapter in model.adapters() {
            let site = &adapter.site().name;
            let layer = model.backbone().linears().iter().find(|l| l.site.name == *site);
            let delta = match layer.is_some_and(|l| l.layer.transposed) {
                true => adapter.delta().tr(),
                false => adapter.delta(),
            };
            if let Some(weight) = weights.get_mut(&format!("{site}.weight")) {
                *weight = &*weight + delta;
            }
        }
        weights
    })
}
