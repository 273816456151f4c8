//! A workplace with a tiny model and small data, and the `aflora` command in it.

// Each test program uses some of it.
#![allow(dead_code)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder with a tiny model under the name `minilm`, and small data for MRPC and STS-B.
pub fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("minilm");
    fs::create_dir(&model).unwrap();
    let fixtures = root().join("crates/aflora-models/tests/fixtures");
    for (from, to) in [
        ("bert_classes/config.json", "config.json"),
        ("bert_classes/model.safetensors", "model.safetensors"),
        ("word_piece/tokenizer.json", "tokenizer.json"),
    ] {
        fs::copy(fixtures.join(from), model.join(to)).unwrap();
    }
    // Configurations of its own: what the project's folder holds must not matter.
    let configs = root().join("configs");
    for kind in ["", "tasks", "models", "models/tiny-deberta", "methods"] {
        let target = folder.path().join("configs").join(kind);
        fs::create_dir_all(&target).unwrap();
        for file in fs::read_dir(configs.join(kind)).unwrap().flatten() {
            if file.path().is_file() {
                fs::copy(file.path(), target.join(file.file_name())).unwrap();
            }
        }
    }
    // Whether the first sentence says `good`: learnable by a small model.
    let pairs: Vec<(String, String, bool)> = (0..96)
        .map(|i| {
            let (a, b) = (i % 2 == 0, i / 2 % 2 == 0);
            let word = |good| if good { "good" } else { "bad" };
            let fill = ["film", "one", "the film we saw"][i % 3];
            (format!("{fill} is {}", word(a)), format!("it was very {}", word(b)), a)
        })
        .collect();
    let mrpc = folder.path().join("glue/MRPC");
    let stsb = folder.path().join("glue/STS-B");
    let header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n".to_string();
    for (place, text) in [
        (
            &mrpc,
            pairs
                .iter()
                .fold(header, |t, (a, b, y)| t + &format!("{}\t1\t2\t{a}\t{b}\n", u8::from(*y))),
        ),
        (
            &stsb,
            pairs.iter().fold("sentence1\tsentence2\tscore\n".into(), |t, (a, b, y)| {
                t + &format!("{a}\t{b}\t{}\n", if *y { 4.5 } else { 1.0 })
            }),
        ),
    ] {
        fs::create_dir_all(place).unwrap();
        fs::write(place.join("train.tsv"), &text).unwrap();
        fs::write(place.join("dev.tsv"), &text).unwrap();
    }
    folder
}

pub const CONFIG: &str = "configs/experiment.yaml";

pub const SMALL: [&str; 8] = [
    "model=minilm",
    "device=cpu",
    "max_length=32",
    "epochs=4",
    "batch_size=16",
    "head_lr=1e-2",
    "threads=1",
    // The same on every processor: those that multiply bf16 would take it by themselves.
    "precision=fp32",
];

/// The command, not yet started.
pub fn command(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aflora"));
    command
        .args(arguments)
        .current_dir(place)
        .env_remove("AFLORA_DATA")
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", place.join("hf"));
    command
}

pub fn aflora(place: &Path, arguments: &[&str]) -> Output {
    command(place, arguments).output().unwrap()
}

/// The arguments of a small run.
pub fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["run", CONFIG], &SMALL[..], &["data=."], more].concat()
}

pub fn run(place: &Path, more: &[&str]) -> Output {
    aflora(place, &small(more))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The run must end with `code` and say `words`.
pub fn refused(output: &Output, code: i32, words: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(words), "missing: {words}\n--- in:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}
