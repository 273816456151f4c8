//! Models: those that ship by their shapes, and any that lies in a folder.

use crate::common::{self, json, root, text, workplace, Forked, CONFIG};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// `aflora` where nothing was ever fetched and nothing can be.
fn offline(place: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aflora"))
        .args(arguments)
        .current_dir(place)
        .env("HF_HOME", place.join("empty"))
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("AFLORA_DATA")
        .env("OMP_NUM_THREADS", "1")
        .forked()
}

fn commas(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Weights without the head, and the head, as transformers 5.24.0 counts them in models made of
/// these files: `sum(p.numel() for p in model.parameters())`. BART's bias of the logits, which it
/// has as a buffer, is counted on top.
const COUNTS: [(&str, &str, u64, u64); 14] = [
    ("mrpc", "minilm", 22_713_216, 770),
    ("mrpc", "deberta-v3-small", 141_894_912, 1_538),
    ("mrpc", "deberta-v3-base", 184_422_144, 1_538),
    ("mrpc", "deberta-v3-large", 435_061_760, 2_050),
    ("mrpc", "bert-base-uncased", 109_482_240, 1_538),
    ("mrpc", "roberta-base", 124_055_040, 592_130),
    ("mrpc", "distilbert-base-uncased", 66_362_880, 592_130),
    ("gsm8k", "gpt2", 124_439_808, 0),
    ("gsm8k", "gpt-neo-125m", 125_198_592, 0),
    ("gsm8k", "gpt-j-6b", 6_050_882_784, 0),
    ("gsm8k", "llama-7b", 6_738_415_616, 0),
    ("gsm8k", "smollm2-135m", 134_515_008, 0),
    ("gsm8k", "qwen2.5-coder-0.5b", 494_032_768, 0),
    ("cnn_dailymail", "bart-large", 406_291_456 + 50_265, 0),
];

#[test]
fn inspect_of_every_shipped_model_needs_no_network() {
    // Elsewhere, so that no weights that were fetched stand for what ships.
    let place = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").arg("-r").arg(root().join("configs")).arg(place.path()).status();
    assert!(copied.unwrap().success());
    for (task, model, frozen, head) in COUNTS {
        let (task, named) = (format!("task={task}"), format!("model={model}"));
        let output = offline(place.path(), &["inspect", CONFIG, &task, &named, "method=lora"]);
        let table = text(&output.stdout);
        assert!(output.status.success(), "{model}: {}", text(&output.stderr));
        let has = |what: &str, n: u64| {
            let mut lines = table.lines().map(str::trim);
            lines.any(|line| line.starts_with(what) && line.ends_with(&format!(" {}", commas(n))))
        };
        assert!(has("frozen weights of the model", frozen), "{model}: {frozen}: {table}");
        assert!(has("head, on top", head), "{model}: {head}: {table}");
    }
}

#[test]
fn a_config_that_ships_stands_for_no_other_revision_and_for_no_weights() {
    let place = tempfile::tempdir().unwrap();
    let config = root().join("configs/experiment.yaml");
    let config = config.to_str().unwrap();
    let other = "model.revision=0123456789012345678901234567890123456789";
    for arguments in [
        ["inspect", config, "task=mrpc", "model=bert-base-uncased", other],
        ["run", config, "task=mrpc", "model=bert-base-uncased", "seed=1"],
    ] {
        let output = offline(place.path(), &arguments);
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains("was not found"), "{error}");
    }
}

#[test]
fn a_folder_of_hugging_face_is_a_model_without_a_yaml() {
    let place = workplace();
    // Of another name than any block, beside one of the same name that `data` would find.
    let folder = place.path().join("mine/my-bert");
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::rename(place.path().join("minilm"), &folder).unwrap();
    let decoy = place.path().join("my-bert");
    fs::create_dir(&decoy).unwrap();
    fs::write(decoy.join("config.json"), "{}").unwrap();
    let table = offline(place.path(), &["inspect", CONFIG, "task=mrpc", "model=mine/my-bert"]);
    let words = text(&table.stdout);
    assert!(words.contains("adapters on 12 of 12 linear layers"), "{}", text(&table.stderr));

    let small = ["run", CONFIG, "task=mrpc", "data=.", "method=lora", "epochs=1", "limit=8"];
    let further =
        ["model=./mine/my-bert/", "run_dir=out", "eval_limit=8", "batch_size=4", "max_length=32"];
    let output = offline(place.path(), &[&small[..], &further].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let target = json(&place.path().join("out/adapter/adapter_config.json"));
    assert!(target["target_modules"].to_string().contains("query"), "{target}");
    // The name of a folder here will do, where no block has it.
    let copy = place.path().join("mine");
    let mut inside = common::command(&copy, &["inspect", "model=my-bert", "task=mrpc"]);
    let inside = inside.forked();
    assert!(text(&inside.stdout).contains("adapters on 12 of 12"), "{}", text(&inside.stderr));
    // The run opens its model again.
    let rows = place.path().join("rows.jsonl");
    fs::write(&rows, "{\"sentence1\": \"a film\", \"sentence2\": \"one\"}\n").unwrap();
    let output = offline(place.path(), &["predict", "out", "rows.jsonl"]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    for (keys, expected) in [
        (
            "{\"model_type\": \"xlnet\"}",
            "models of the type `xlnet` are not built; there are: albert, ",
        ),
        ("{}", "it names no `model_type`, which would be one of: albert, bart, "),
        ("<html>", "it is a web page (HTML)"),
    ] {
        fs::write(decoy.join("config.json"), keys).unwrap();
        let output = offline(place.path(), &["inspect", CONFIG, "task=mrpc", "model=./my-bert"]);
        let error = text(&output.stderr);
        assert!(error.contains(expected), "{error}");
        assert_eq!(output.status.code(), Some(2), "{error}");
    }
    fs::remove_file(decoy.join("config.json")).unwrap();
    let output = offline(place.path(), &["inspect", CONFIG, "task=mrpc", "model=./my-bert"]);
    assert!(text(&output.stderr).contains("there is no config.json in it"));
}

#[test]
fn what_contradicts_in_a_model_is_told_at_the_start_of_a_run() {
    let place = workplace();
    let config = place.path().join("minilm/config.json");
    let mut keys = json(&config);
    keys["num_hidden_layers"] = 1.into();
    keys["id2label"] = serde_json::json!({ "0": "happy", "1": "sad" });
    fs::write(&config, keys.to_string()).unwrap();
    let arguments = ["task=mrpc", "model=minilm", "data=.", "method=lora", "epochs=1", "limit=8"];
    let further = ["run_dir=out", "eval_limit=8", "batch_size=4", "max_length=32"];
    let output = offline(place.path(), &[&["run", CONFIG][..], &arguments, &further].concat());
    let log = text(&output.stderr);
    assert!(output.status.success(), "{log}");
    for part in [
        "WARN",
        "`bert.encoder.layer.1.",
        "(`num_hidden_layers` is 1)",
        "names the classes [\"happy\", \"sad\"], the task's are [\"not_equivalent\", \"equivalent\"]",
        "new in the model: classifier.bias, classifier.weight",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}
