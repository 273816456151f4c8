//! A model that is named by the folder of its files, as Hugging Face lays them out, or by its GGUF
//! file: its config.json, or the file's header, says all that a block of `configs/models` would.

use super::problem::{Problem, SourceSpan};
use super::tree::Setting;
use aflora_models::model_file;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};

/// The settings of the model in `folder`, which was named at `span`.
///
/// # Errors
/// It holds no config.json, or one of a model that is not built.
pub(super) fn settings(folder: &Path, span: &SourceSpan) -> Result<Vec<Setting>, Problem> {
    let problem = |message: String| Problem::at(Some(span.clone()), message);
    // With its own name, even if it was named as `.`.
    let whole = folder.canonicalize();
    let folder = whole.map_err(|error| problem(format!("{}: {error}", folder.display())))?;
    let config = folder.join("config.json");
    if !model_file::is_there(&config) {
        let message = format!("{} holds no model: there is no config.json in it", folder.display());
        let problem = problem(message);
        return Err(match gguf_in(&folder) {
            Some(file) => problem.help(format!("name the GGUF file in it: {}", file.display())),
            None => problem,
        });
    }
    let usual = aflora_models::kind_of(&config).map_err(|error| problem(error.to_string()))?;
    let name = match folder.is_dir() {
        true => folder.file_name(),
        false => folder.file_stem(),
    };
    let name = name.unwrap_or_default().to_string_lossy();
    let setting = |key: &str, value: Value| Setting {
        path: vec![key.to_string()],
        keys: vec![span.clone()],
        value,
        span: span.clone(),
    };
    Ok(vec![
        setting("model", json!(name)),
        setting("backbone", json!(usual.kind)),
        setting("path", json!(folder)),
        setting("target_modules", json!(usual.targets)),
    ])
}

/// The GGUF file in a folder, if there is one.
fn gguf_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| model_file::is_gguf(path)).collect();
    files.sort();
    files.into_iter().next()
}
