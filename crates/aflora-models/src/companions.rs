//! The files that come with a model's weights and that its users need as well.

use crate::chat::{self, ChatFormat};
use crate::generate::GENERATION_CONFIG;
use crate::{json, model_file, tokenizer, Error, Result};
use serde_json::{json, Map, Value};
use std::fs;
use std::path::Path;

/// Where a model is from.
#[derive(Debug, Clone, Copy)]
pub struct ModelSource<'a> {
    /// The folder, or the GGUF file, of the model.
    pub model: &'a Path,
    /// The folder of its tokenizer, which may have come with an adapter.
    pub tokenizer: &'a Path,
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for ModelSource<'a> {
    /// A model with its tokenizer.
    fn from(folder: &'a P) -> Self {
        ModelSource { model: folder.as_ref(), tokenizer: folder.as_ref() }
    }
}

/// What says of a tokenizer how it is used.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// What transformers and others write beside the files that a tokenizer is made of here.
const TOKENIZER: [&str; 8] = [
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "bpe.codes",
];

/// Chat templates for further uses, a file each.
const TEMPLATES: &str = "additional_chat_templates";

/// How the names of a model's terms begin, in small letters: they go wherever its weights go.
const TERMS: [&str; 4] = ["license", "licence", "notice", "copying"];

/// Copies everything of a model's tokenizer from the folder `source` to the folder `target`.
///
/// # Errors
/// A file cannot be copied.
pub(crate) fn copy_tokenizer(source: &Path, target: &Path) -> Result<()> {
    for name in tokenizer::FILES.iter().chain(&TOKENIZER) {
        copy(source, target, name)?;
    }
    let templates = source.join(TEMPLATES);
    if templates.is_dir() {
        let to = target.join(TEMPLATES);
        fs::create_dir(&to).map_err(Error::io(&to))?;
        for entry in fs::read_dir(&templates).map_err(Error::io(&templates))? {
            let entry = entry.map_err(Error::io(&templates))?;
            if let Some(name) = entry.file_name().to_str().filter(|n| n.ends_with(".jinja")) {
                copy(&templates, &to, name)?;
            }
        }
    }
    Ok(())
}

/// [`copy_tokenizer`], for a folder that will have no config.json: without one, and without a
/// tokenizer_config.json, transformers knows no model whose tokenizer it is, and leaves the types of
/// tokens out. Where the model reads them, it is said that they are wanted.
///
/// # Errors
/// A file cannot be copied or written.
pub(crate) fn copy_tokenizer_alone(source: ModelSource, target: &Path) -> Result<()> {
    copy_tokenizer(source.tokenizer, target)?;
    let config = source.model.join("config.json");
    if !model_file::is_there(&config) {
        return Ok(());
    }
    let config = model_file::read_text(&config)?;
    let config: Value = serde_json::from_str(&config).unwrap_or_default();
    let mut settings = Map::new();
    if config["type_vocab_size"].as_u64().is_some_and(|types| types > 1) {
        let names = json!(["input_ids", "token_type_ids", "attention_mask"]);
        settings.insert("model_input_names".into(), names);
    }
    describe_tokenizer(target, &config, settings)
}

/// Writes a tokenizer_config.json of these `settings` beside a folder's tokenizer.json, where there is
/// none. Where nothing else names the special tokens, it names those that `config` has the ids of: by
/// these alone transformers' tokenizer does not know them.
fn describe_tokenizer(
    folder: &Path,
    config: &Value,
    mut settings: Map<String, Value>,
) -> Result<()> {
    let (path, vocabulary) = (folder.join(TOKENIZER_CONFIG), folder.join("tokenizer.json"));
    if path.exists() || !vocabulary.is_file() {
        return Ok(());
    }
    let bytes = fs::read(&vocabulary).map_err(Error::io(&vocabulary))?;
    // What is damaged is told by whoever makes a tokenizer of it.
    let vocabulary: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let content = |id: &Value| {
        let id = id.as_array().map_or(Some(id), |ids| ids.first()).filter(|id| id.is_u64())?;
        let mut added = vocabulary["added_tokens"].as_array()?.iter();
        Some(added.find(|token| token["id"] == *id)?["content"].clone())
    };
    if !tokenizer::SETTINGS.iter().any(|name| folder.join(name).exists()) {
        let names = ["bos_token", "eos_token", "pad_token"].into_iter();
        settings.extend(
            names.filter_map(|name| Some((name.into(), content(&config[format!("{name}_id")])?))),
        );
    }
    if settings.is_empty() {
        return Ok(());
    }
    fs::write(&path, json::to_text(&settings) + "\n").map_err(Error::io(&path))
}

/// [`copy_tokenizer`], how the model writes, and the terms that it comes under.
///
/// # Errors
/// A file cannot be copied.
pub(crate) fn copy_all(source: ModelSource, target: &Path) -> Result<()> {
    copy_tokenizer(source.tokenizer, target)?;
    let config = target.join("config.json");
    let text = fs::read(&config).map_err(Error::io(&config))?;
    let config = serde_json::from_slice(&text).unwrap_or_default();
    describe_tokenizer(target, &config, Map::new())?;
    let source = source.model;
    if !source.is_dir() {
        return copy(source, target, GENERATION_CONFIG);
    }
    for entry in fs::read_dir(source).map_err(Error::io(source))? {
        let entry = entry.map_err(Error::io(source))?;
        let is_terms = |name: &&str| {
            let name = name.to_lowercase();
            TERMS.iter().any(|start| name.starts_with(start))
        };
        if let Some(name) = entry.file_name().to_str().filter(is_terms) {
            copy(source, target, name)?;
        }
    }
    copy(source, target, GENERATION_CONFIG)
}

/// Writes the template of conversations, where it is not that of the model's files: over theirs, which
/// all readers take this file before.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_template(chat: &ChatFormat, target: &Path) -> Result<()> {
    let Some(template) = &chat.template else { return Ok(()) };
    let path = target.join(chat::JINJA);
    fs::write(&path, template).map_err(Error::io(&path))
}

/// Copies a file, where there is one.
fn copy(source: &Path, target: &Path, name: &str) -> Result<()> {
    let (from, to) = (source.join(name), target.join(name));
    match model_file::is_there(&from) {
        true => model_file::copy(&from, &to),
        false => Ok(()),
    }
}
