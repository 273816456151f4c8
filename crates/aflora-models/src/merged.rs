//! A fine-tuned model as a plain Hugging Face folder, its adapters merged into its weights.
//!
//! `transformers` opens it with `AutoModelForSequenceClassification` (or the class for causal or
//! sequence-to-sequence models), rust-bert with the model's own type; neither needs to know of adapters.

use crate::adapted::AdaptedModel;
use crate::backbone::Backbone;
use crate::chat::ChatFormat;
use crate::companions::ModelSource;
use crate::generate::{write_config, GenerationSettings};
use crate::registry::class_in_transformers;
use crate::written::{write_safetensors_as, write_whole};

pub use crate::written::StoredKind;
use crate::{companions, json, Error, Result};
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tch::Tensor;

/// What a model answers with.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputKind<'a> {
    /// One of these classes.
    Classes(Vec<&'a str>),
    /// Any of these labels.
    Multilabel(Vec<&'a str>),
    /// Scores of these names.
    Scores(Vec<&'a str>),
    /// One of these classes for every token.
    Tokens(Vec<&'a str>),
    /// Text, written so.
    Text(GenerationSettings),
    /// The next turn of a conversation, written so.
    Turns(GenerationSettings, ChatFormat),
}

/// Keys of a config.json that tell of the folder it came from: the version that wrote that one,
/// its name, in how many bits it holds its weights, and code beside it, which is not copied.
pub(crate) const NOT_COPIED: [&str; 4] =
    ["transformers_version", "_name_or_path", "auto_map", "quantization_config"];

/// Writes `model`, of the kind `kind` and made of the files of `source`, to `folder`, each weight as it
/// was merged rounded once to `stored`, with its tokenizer, its licence, and how it writes.
///
/// # Errors
/// The source's config.json cannot be read, or the folder cannot be written. The folder appears
/// whole or not at all; one that was there is replaced.
pub fn save<'a>(
    model: &AdaptedModel,
    kind: &str,
    source: impl Into<ModelSource<'a>>,
    folder: &Path,
    answers: OutputKind<'_>,
    stored: StoredKind,
) -> Result<()> {
    let source = source.into();
    let config = source.model.join("config.json");
    let mut keys = json::read_object(&config, "a Hugging Face config.json")?;
    match &answers {
        OutputKind::Classes(names) => {
            describe_labels(&mut keys, names, Some("single_label_classification"));
        }
        OutputKind::Multilabel(names) => {
            describe_labels(&mut keys, names, Some("multi_label_classification"));
        }
        OutputKind::Scores(names) => describe_labels(&mut keys, names, Some("regression")),
        OutputKind::Tokens(names) => describe_labels(&mut keys, names, None),
        OutputKind::Text(_) | OutputKind::Turns(..) => {}
    }
    keys.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    describe_words(&mut keys, model);
    // Without it nobody knows what the folder holds.
    let model_type = keys.entry("model_type").or_insert_with(|| kind.into()).clone();
    let model_type = model_type.as_str().unwrap_or_default();
    match class_in_transformers(model_type, model.backbone().about().head) {
        Some(class) => keys.insert("architectures".into(), json!([class])),
        None => keys.remove("architectures"),
    };
    let told: Vec<&str> =
        ["dtype", "torch_dtype"].into_iter().filter(|key| keys.contains_key(*key)).collect();
    // Where nothing is said, single precision is understood.
    let told = if told.is_empty() && stored != StoredKind::F32 { vec!["dtype"] } else { told };
    for key in told {
        keys.insert(key.into(), json!(stored.name()));
    }
    let mut weights = model.merged_weights();
    put_tied(&keys, model.backbone(), &mut weights);
    write_whole(folder, |folder| {
        let path = folder.join("config.json");
        fs::write(&path, json::to_text(&keys) + "\n").map_err(Error::io(&path))?;
        write_safetensors_as(&folder.join("model.safetensors"), weights, stored)?;
        companions::copy_all(source, folder)?;
        match (answers, model.backbone().text_generator()) {
            (OutputKind::Text(settings), Some(writer)) => {
                write_config(source.model, &settings, writer.tokens(), folder)
            }
            (OutputKind::Turns(settings, chat), Some(writer)) => {
                companions::write_template(&chat, folder)?;
                write_config(
                    source.model,
                    &settings,
                    &writer.tokens().with_ends(&chat.ends),
                    folder,
                )
            }
            _ => Ok(()),
        }
    })
}

/// Puts weights that are one under their further names, too, where config.json says that they are not:
/// a reader starts those anew that it does not find.
pub(crate) fn put_tied(
    keys: &Map<String, Value>,
    model: &dyn Backbone,
    weights: &mut BTreeMap<String, Tensor>,
) {
    if keys.get("tie_word_embeddings") != Some(&json!(false)) {
        return;
    }
    for (name, others) in model.about().tied {
        for other in *others {
            let Some(shared) = weights.get(*name).map(Tensor::shallow_clone) else { continue };
            weights.entry(other.to_string()).or_insert(shared);
        }
    }
}

/// Tells how many words the model has, which an adapter may have changed.
pub(crate) fn describe_words(keys: &mut Map<String, Value>, model: &AdaptedModel) {
    keys.insert("vocab_size".into(), model.backbone().vocab_size().into());
}

fn describe_labels(keys: &mut Map<String, Value>, names: &[&str], problem_type: Option<&str>) {
    let numbers = || names.iter().zip(0..);
    let id2label: Map<String, Value> =
        numbers().map(|(name, i): (_, usize)| (i.to_string(), (*name).into())).collect();
    let label2id: Map<String, Value> =
        numbers().map(|(name, i): (_, usize)| (name.to_string(), i.into())).collect();
    keys.insert("id2label".into(), id2label.into());
    keys.insert("label2id".into(), label2id.into());
    keys.remove("num_labels");
    match problem_type {
        Some(problem_type) => keys.insert("problem_type".into(), json!(problem_type)),
        None => keys.remove("problem_type"),
    };
}
