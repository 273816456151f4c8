//! A workplace with a tiny model and small data, and the `aflora` command in it.

// Each test program uses some of it.
#![allow(dead_code)]

#[cfg(target_os = "linux")]
mod forked;
pub mod stopping;

use serde_json::Value;
use std::collections::BTreeMap;
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
    for kind in [
        "",
        "tasks",
        "models",
        "models/tiny-bart",
        "models/tiny-deberta",
        "models/tiny-llama",
        "methods",
    ] {
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

/// Gives `place` a task whose split `test` is judged at the end, `judged.yaml`: MRPC's data, and 24
/// rows of which a quarter has the wrong label.
pub fn judged_task(place: &Path) {
    let mrpc = place.join("glue/MRPC");
    let rows = fs::read_to_string(mrpc.join("train.tsv")).unwrap();
    let mut lines = rows.lines();
    let mut test = lines.next().unwrap().to_string() + "\n";
    for (i, line) in lines.take(24).enumerate() {
        let (label, rest) = line.split_at(1);
        let label = match (i % 4, label) {
            (0, "0") => "1",
            (0, _) => "0",
            (_, label) => label,
        };
        test += &format!("{label}{rest}\n");
    }
    fs::write(mrpc.join("test.tsv"), test).unwrap();
    let task = "task: judged
kind: classify
labels: ['0', '1']
metrics: [accuracy]
dataset:
  folders: [MRPC]
  below: [glue]
  test_on: test
  sources:
    own:
      files: {train: train.tsv, dev: dev.tsv, test: test.tsv}
      columns: {text_a: '#1 String', text_b: '#2 String', label: Quality}
";
    fs::write(place.join("judged.yaml"), task).unwrap();
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

/// A call of the command whose outcome alone counts.
pub trait Forked {
    /// What a call came to that reads nothing, of a process that need not start libtorch.
    fn forked(&mut self) -> Output;
}

impl Forked for Command {
    fn forked(&mut self) -> Output {
        // These start the program again, by its own name.
        let starts = self.get_args().next().is_some_and(|a| a == "experiment" || a == "launch");
        #[cfg(target_os = "linux")]
        if !starts {
            return forked::output(self).unwrap();
        }
        self.output().unwrap()
    }
}

pub fn aflora(place: &Path, arguments: &[&str]) -> Output {
    command(place, arguments).forked()
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

/// Everything that a run left, by name, without what the clock decides: two runs of the same
/// settings must agree in all of it.
pub fn outcome(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for file in files(run, "") {
        let bytes = fs::read(run.join(&file)).unwrap();
        let (name, content) = match file.as_str() {
            ".lock" => continue,
            "config.yaml" => {
                let text = text(&bytes);
                let differs = |l: &&str| {
                    ["run_dir:", "checkpoint_every:", "shard_base:"]
                        .iter()
                        .any(|k| l.starts_with(k))
                };
                let lines: Vec<&str> = text.lines().filter(|l| !differs(l)).collect();
                (file, lines.join("\n").into_bytes())
            }
            "metrics.json" | "events.jsonl" | "provenance.json" => {
                let values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
                let lines = values.map(|value| timeless(value.unwrap()).to_string() + "\n");
                (file, lines.collect::<String>().into_bytes())
            }
            _ if file.starts_with("events.out.tfevents.") => {
                ("events.out.tfevents".to_string(), timeless_records(&bytes))
            }
            _ => (file, bytes),
        };
        assert!(found.insert(name.clone(), content).is_none(), "{name} is there twice");
    }
    found
}

/// Fails unless two runs left the same.
pub fn assert_same(
    whole: &BTreeMap<String, Vec<u8>>,
    broken: &BTreeMap<String, Vec<u8>>,
    what: &str,
) {
    let names = |run: &BTreeMap<String, Vec<u8>>| run.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(whole), names(broken), "{what}");
    for (name, content) in whole {
        let (a, b) = (content, &broken[name]);
        let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
        let around = |bytes: &[u8]| text(&bytes[at.saturating_sub(80)..bytes.len().min(at + 80)]);
        assert!(a == b, "{what}: {name} differs at {at}:\n{}\n---\n{}", around(a), around(b));
    }
}

/// The files below a folder, by their names from there.
fn files(folder: &Path, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join(prefix)).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => names.extend(files(folder, &format!("{name}/"))),
            false => names.push(name),
        }
    }
    names
}

fn timeless(value: Value) -> Value {
    // And the digest of a file that holds the run's own place.
    const CLOCKS: [&str; 7] = [
        "seconds",
        "tokens_per_second",
        "peak_memory",
        "peak_tensors",
        "environment",
        "resumed",
        "config_sha256",
    ];
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, _)| !CLOCKS.contains(&key.as_str()))
            .map(|(key, value)| (key, timeless(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(timeless).collect(),
        other => other,
    }
}

/// TensorBoard's records without their checksums and times: a record's data begins with one.
fn timeless_records(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes[12], 1 << 3 | 1, "a time");
        out.extend(&bytes[12 + 9..12 + length]);
        bytes = &bytes[12 + length + 4..];
    }
    out
}
