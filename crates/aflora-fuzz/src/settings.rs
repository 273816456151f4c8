//! Run files, overrides, experiment files, target patterns.

use crate::files;
use aflora_core::{Block, Site};
use aflora_models::Targets;
use aflora_run::experiment::definition::Definition;
use std::fs;
use std::path::Path;

/// A run file, then overrides, one a line.
pub fn config(bytes: &[u8]) {
    let [file, overrides] = files::split(bytes);
    let folder = files::scratch().join("config");
    if !folder.exists() {
        copy_blocks(&folder);
    }
    let path = folder.join("run.yaml");
    if fs::write(&path, file).is_err() {
        return;
    }
    let overrides = String::from_utf8_lossy(overrides);
    let overrides: Vec<String> = overrides.lines().map(String::from).collect();
    match aflora_run::config::load(&path, &overrides) {
        Ok(resolved) => drop(resolved.to_yaml()),
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

fn copy_blocks(folder: &Path) {
    for kind in ["tasks", "models", "methods"] {
        let _ = fs::create_dir_all(folder.join(kind));
        let files = fs::read_dir(files::project().join("configs").join(kind));
        for file in files.into_iter().flatten().flatten() {
            let _ = fs::copy(file.path(), folder.join(kind).join(file.file_name()));
        }
    }
}

pub fn config_seeds() -> Vec<Vec<u8>> {
    let experiments = files::project().join("experiments");
    let mut paths = vec![files::project().join("configs/experiment.yaml")];
    paths.extend(fs::read_dir(experiments).into_iter().flatten().flatten().map(|f| f.path()));
    paths.sort();
    let overrides =
        b"task=mrpc\nmodel=minilm\nmethod=lora\nmethod.rank=16\nlr=2e-3\nmodel.layers=[0]";
    paths
        .into_iter()
        .filter(|p| p.is_file())
        .map(|p| files::join(&[fs::read(p).unwrap_or_default(), overrides.to_vec()]))
        .collect()
}

/// An experiment file and a profile.
pub fn experiment(bytes: &[u8]) {
    let [file, profile] = files::split(bytes);
    let folder = files::scratch().join("experiment");
    let path = folder.join("experiment.yaml");
    let _ = fs::create_dir_all(folder.join("profiles"));
    if fs::write(&path, file).and(fs::write(folder.join("profiles/p.yaml"), profile)).is_err() {
        return;
    }
    let mut problems = Vec::new();
    let definition = Definition::read(&path, &mut problems);
    Definition::profile(&path, "p", &mut problems);
    assert!(!problems.is_empty() || !definition.methods.is_empty());
    assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
}

pub fn experiment_seeds() -> Vec<Vec<u8>> {
    let folder = files::project().join("experiments");
    let profile = fs::read(folder.join("profiles/small.yaml")).unwrap_or_default();
    ["table1.yaml", "figure4.yaml", "tuning.yaml"]
        .map(|name| {
            files::join(&[fs::read(folder.join(name)).unwrap_or_default(), profile.clone()])
        })
        .to_vec()
}

/// `target_modules`, `exclude_modules` and `layers`, as JSON.
pub fn targets(bytes: &[u8]) {
    let Ok(targets) = serde_json::from_slice::<Targets>(bytes) else { return };
    let site = |i: i64, tail: &str, block| {
        Site::new(format!("bert.encoder.layer.{i}.{tail}"), 4, 4, block)
    };
    let sites: Vec<Site> = (0..3)
        .flat_map(|i| {
            [site(i, "attention.self.query", Block::Attention), site(i, "output.dense", Block::Ffn)]
        })
        .collect();
    let all: Vec<&Site> = sites.iter().collect();
    match targets.select(&all) {
        Ok(chosen) => assert!(!chosen.is_empty() && chosen.len() <= all.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub fn targets_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"target_modules": ["query", "output.dense"], "layers": [0, 2]}"#,
        r#"{"target_modules": "bert\\.encoder\\.layer\\.\\d+\\.(output\\.dense|.*query)"}"#,
        r#"{"target_modules": ["dense"], "exclude_modules": ".*layer\\.[01].*"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
