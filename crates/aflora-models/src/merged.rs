//! A fine-tuned model as a plain Hugging Face folder, its adapters merged into its weights.
//!
//! `transformers` opens it with `AutoModelForSequenceClassification` (or the class for causal or
//! sequence-to-sequence models), rust-bert with the model's own type; neither needs to know of adapters.

use crate::adapted::AdaptedModel;
use crate::registry::class_in_transformers;
use crate::written::{write_safetensors, write_whole};
use crate::{companions, json, Error, Result};
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tch::{Kind, Tensor};

/// What a model answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind<'a> {
    /// One of these classes.
    Classes(Vec<&'a str>),
    /// So many scores.
    Scores(usize),
    /// Text.
    Text,
}

/// Keys of a config.json that tell of the folder it came from: the version that wrote that one,
/// its name, and code beside it, which is not copied.
const NOT_COPIED: [&str; 3] = ["transformers_version", "_name_or_path", "auto_map"];

/// Writes `model`, of the kind `kind` and made of the files in `source`, to `folder`, in single
/// precision, with its tokenizer, its generation settings and its licence.
///
/// # Errors
/// The source's config.json cannot be read, or the folder cannot be written. The folder appears
/// whole or not at all; one that was there is replaced.
pub fn save(
    model: &AdaptedModel,
    kind: &str,
    source: &Path,
    folder: &Path,
    answers: OutputKind<'_>,
) -> Result<()> {
    let config = source.join("config.json");
    let mut keys = json::read_object(&config, "a Hugging Face config.json")?;
    match answers {
        OutputKind::Classes(names) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            describe_labels(&mut keys, &names, "single_label_classification");
        }
        OutputKind::Scores(n) => {
            let names: Vec<String> = (0..n).map(|i| format!("LABEL_{i}")).collect();
            describe_labels(&mut keys, &names, "regression");
        }
        OutputKind::Text => {}
    }
    keys.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    // Without it nobody knows what the folder holds.
    let model_type = keys.entry("model_type").or_insert_with(|| kind.into()).clone();
    let model_type = model_type.as_str().unwrap_or_default();
    match class_in_transformers(model_type, model.backbone().about().head) {
        Some(class) => keys.insert("architectures".into(), json!([class])),
        None => keys.remove("architectures"),
    };
    for key in ["dtype", "torch_dtype"] {
        if let Some(kind) = keys.get_mut(key) {
            *kind = json!("float32");
        }
    }
    let mut weights = weights(model);
    // A reader that is told that they are not one starts those anew that it does not find.
    if keys.get("tie_word_embeddings") == Some(&json!(false)) {
        for (name, others) in model.backbone().about().tied {
            for other in *others {
                let shared = weights[*name].shallow_clone();
                weights.entry(other.to_string()).or_insert(shared);
            }
        }
    }
    write_whole(folder, |folder| {
        let path = folder.join("config.json");
        fs::write(&path, json::to_text(&keys) + "\n").map_err(Error::io(&path))?;
        write_safetensors(&folder.join("model.safetensors"), weights)?;
        companions::copy_all(source, folder)
    })
}

fn describe_labels(keys: &mut Map<String, Value>, names: &[String], problem_type: &str) {
    let numbers = || names.iter().zip(0..);
    let id2label: Map<String, Value> =
        numbers().map(|(name, i): (_, usize)| (i.to_string(), name.clone().into())).collect();
    let label2id: Map<String, Value> =
        numbers().map(|(name, i): (_, usize)| (name.clone(), i.into())).collect();
    keys.insert("id2label".into(), id2label.into());
    keys.insert("label2id".into(), label2id.into());
    keys.remove("num_labels");
    keys.insert("problem_type".into(), json!(problem_type));
}

/// Every weight of the model, those of adapted layers as their adapters make them.
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
            if let Some(weight) = weights.get_mut(&format!("{site}.weight")) {
                *weight = match layer.is_some_and(|l| l.layer.transposed) {
                    true => adapter.merged(&weight.tr()).tr(),
                    false => adapter.merged(weight),
                };
            }
        }
        weights
    })
}
