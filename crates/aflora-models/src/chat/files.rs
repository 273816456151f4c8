//! Where a folder has its chat templates.

use super::limits::LONGEST_TEMPLATE;
use super::DEFAULT;
use crate::{json, Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// A template alone.
pub(crate) const JINJA: &str = "chat_template.jinja";
/// Templates for further uses, a file each.
const FURTHER: &str = "additional_chat_templates";
/// The files with a key `chat_template`; the second is that of models which read more than text.
const KEYED: [&str; 2] = ["tokenizer_config.json", "chat_template.json"];
const KEY: &str = "chat_template";

/// More templates than any model has.
const MOST: usize = 100;

/// The templates of a folder by their names: those of files of their own or, without any, those
/// within another.
///
/// # Errors
/// A file cannot be read, or has something else where a template should be.
pub(crate) fn sources(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut sources = BTreeMap::new();
    if let Some(source) = text(&folder.join(JINJA))? {
        sources.insert(DEFAULT.to_string(), source);
    }
    let further = folder.join(FURTHER);
    if further.is_dir() {
        for entry in fs::read_dir(&further).map_err(Error::io(&further))?.take(MOST) {
            let name = entry.map_err(Error::io(&further))?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".jinja"));
            let Some(name) = name else { continue };
            if let Some(source) = text(&further.join(format!("{name}.jinja")))? {
                sources.insert(name.to_string(), source);
            }
        }
    }
    for file in KEYED {
        if sources.is_empty() {
            sources = keyed(&folder.join(file))?;
        }
    }
    Ok(sources)
}

/// A file's text; none without the file.
fn text(path: &Path) -> Result<Option<String>> {
    match aflora_files::read_text_at_most(path, LONGEST_TEMPLATE as u64) {
        Ok(text) => Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(&text).to_string())),
        // In a GGUF file there are no others than those of its header.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// The key `chat_template` of a JSON file: a text, or a list of objects with `name` and `template`.
fn keyed(path: &Path) -> Result<BTreeMap<String, String>> {
    let keys = json::read_if_any(path, "a tokenizer's settings")?;
    let problem = || Error::ChatTemplate {
        path: path.to_path_buf(),
        problem: format!(
            "`{KEY}` must be a text, or a list of at most {MOST} objects with `name` and `template`"
        ),
    };
    match keys.get(KEY) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::String(source)) => Ok(BTreeMap::from([(DEFAULT.to_string(), source.clone())])),
        Some(Value::Array(list)) if list.len() <= MOST => list
            .iter()
            .map(|named| {
                let text = |key: &str| named.get(key)?.as_str().map(str::to_string);
                text("name").zip(text("template")).ok_or_else(problem)
            })
            .collect(),
        Some(_) => Err(problem()),
    }
}
