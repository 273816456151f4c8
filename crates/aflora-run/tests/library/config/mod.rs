//! The configuration: shipped files, overrides, layers, errors, and no panic on anything.

use aflora_core::adapter::MethodConfig;
use aflora_core::freeze::{FreezeMode, Rule};
use aflora_core::Span;
use aflora_models::Pattern;
use aflora_run::config::{load, ConfigErrors, Resolved};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

mod errors;
mod layers;
mod no_panic;
mod overrides;
mod shipped_files;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

/// The shipped run file with overrides.
fn shipped(overrides: &[&str]) -> Result<Resolved, ConfigErrors> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    load(&configs().join("experiment.yaml"), &overrides)
}

fn good(overrides: &[&str]) -> Resolved {
    shipped(overrides).unwrap_or_else(|errors| panic!("{overrides:?}: {errors}"))
}

/// What is wrong, all of it as it is printed.
fn bad(overrides: &[&str]) -> String {
    match shipped(overrides) {
        Ok(resolved) => panic!("{overrides:?} passed as {}", resolved.name()),
        Err(errors) => errors.to_string(),
    }
}

fn names(kind: &str) -> Vec<String> {
    let files = fs::read_dir(configs().join(kind)).unwrap();
    let paths = files.map(|f| f.unwrap().path()).filter(|p| p.extension() == Some("yaml".as_ref()));
    let stem = |p: PathBuf| p.file_stem().unwrap().to_str().unwrap().to_string();
    let mut names: Vec<String> = paths.map(stem).collect();
    names.sort();
    names
}

/// Copies the shipped blocks into `folder`.
fn copy_blocks(folder: &Path) {
    for kind in ["tasks", "models", "methods"] {
        fs::create_dir_all(folder.join(kind)).unwrap();
        for name in names(kind) {
            let file = format!("{kind}/{name}.yaml");
            fs::copy(configs().join(&file), folder.join(&file)).unwrap();
        }
    }
}

/// A folder with a run file, and with blocks as they are shipped but for those given.
fn folder(run_file: &str, blocks: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    copy_blocks(folder.path());
    for (file, text) in blocks {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let path = folder.path().join("run.yaml");
    fs::write(&path, run_file).unwrap();
    (folder, path)
}
