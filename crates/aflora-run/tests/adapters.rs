//! Commands on adapter folders that PEFT wrote.

mod common;

use common::*;
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A workplace with PEFT's folder `lora` of the tiny BERT, and rows with texts alone.
fn place() -> tempfile::TempDir {
    let place = workplace();
    copy(&fixture("lora"), &place.path().join("lora"));
    let rows = [json!({ "text": "the film is good" }), json!({ "text": "it was very bad" })];
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    fs::write(place.path().join("rows.jsonl"), lines).unwrap();
    place
}

fn fixture(name: &str) -> PathBuf {
    root().join("crates/aflora-models/tests/fixtures/peft").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What the command gives on `folder` beside the model of the workplace.
fn on(place: &Path, command: &str, folder: &str, more: &[&str]) -> Output {
    let arguments = [&[command, folder], more, &["--model", "minilm", "--data", "."]].concat();
    aflora(place, &arguments)
}

fn rows_of(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_adapter_answers_as_its_merged_model_and_its_export_do() {
    let place = place();
    let answers = ok(&on(place.path(), "predict", "lora", &["rows.jsonl"]));
    let found = rows_of(&answers);
    assert!(["LABEL_0", "LABEL_1"].contains(&found[0]["label"].as_str().unwrap()), "{answers}");
    assert_ne!(found[0]["scores"], found[1]["scores"]);
    ok(&on(place.path(), "merge", "lora", &["merged"]));
    let config = json(&place.path().join("merged/config.json"));
    assert_eq!(config["id2label"], json!({ "0": "LABEL_0", "1": "LABEL_1" }));
    ok(&on(place.path(), "export", "lora", &["exported"]));
    let again = ok(&on(place.path(), "predict", "exported", &["rows.jsonl"]));
    let score = |row: &Value| row["scores"]["LABEL_1"].as_f64().unwrap();
    for (one, other) in found.iter().zip(rows_of(&again)) {
        assert!((score(one) - score(&other)).abs() < 1e-5, "{answers}{again}");
    }
}

#[test]
fn an_adapter_is_judged_on_rows_with_labels() {
    let place = place();
    let rows = "text,label\nthe film is good,LABEL_1\nit was very bad,LABEL_0\n";
    fs::write(place.path().join("checked.csv"), rows).unwrap();
    let found = on(place.path(), "evaluate", "lora", &["checked.csv", "--output", "-"]);
    let found: Value = serde_json::from_str(&ok(&found)).unwrap();
    assert_eq!(found["rows"], 2);
    assert!(found["metrics"]["accuracy"].is_number(), "{found}");
}

#[test]
fn both_texts_of_a_pair_are_read() {
    let place = place();
    let pair = json!({ "text_a": "the film is good", "text_b": "it was very bad" });
    fs::write(place.path().join("pairs.jsonl"), pair.to_string()).unwrap();
    let pair = rows_of(&ok(&on(place.path(), "predict", "lora", &["pairs.jsonl"])));
    let alone = rows_of(&ok(&on(place.path(), "predict", "lora", &["rows.jsonl"])));
    assert_ne!(pair[0]["scores"], alone[0]["scores"]);
}

#[test]
fn classes_go_by_the_names_of_the_base_model() {
    let place = place();
    let path = place.path().join("minilm/config.json");
    let mut config = json(&path);
    config["id2label"] = json!({ "0": "bad", "1": "good" });
    fs::write(&path, config.to_string()).unwrap();
    let found = rows_of(&ok(&on(place.path(), "predict", "lora", &["rows.jsonl"])));
    assert!(found[0]["scores"]["good"].is_number(), "{}", found[0]);
}

#[test]
fn an_adapter_of_the_hub_comes_from_its_cache() {
    let place = place();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repo = place.path().join("hf/hub/models--me--mine");
    copy(&fixture("lora"), &repo.join("snapshots").join(commit));
    fs::create_dir(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), commit).unwrap();
    let expected = ok(&on(place.path(), "predict", "lora", &["rows.jsonl"]));
    for name in ["me/mine".to_string(), format!("me/mine@{commit}")] {
        let found = ok(&on(place.path(), "predict", &name, &["rows.jsonl"]));
        assert_eq!(found, expected);
    }
    let absent = on(place.path(), "predict", "me/other", &["rows.jsonl"]);
    refused(&absent, 2, "me/other is no folder, and no adapter of the hub");
}

#[test]
fn an_adapter_is_described_without_its_model() {
    let place = place();
    let found = ok(&aflora(place.path(), &["inspect", "lora"]));
    for words in ["method: lora", "rank: 4", "base model: bert_classes", "8 layers:"] {
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn what_is_no_adapter_and_a_base_model_that_is_nowhere_are_told() {
    let place = place();
    refused(&on(place.path(), "predict", "minilm", &["rows.jsonl"]), 2, "no adapter_config.json");
    let found = aflora(place.path(), &["predict", "lora", "rows.jsonl"]);
    refused(&found, 2, "there is no model `bert_classes`");
    let path = place.path().join("lora/adapter_config.json");
    let mut config = json(&path);
    config["base_model_name_or_path"] = Value::Null;
    fs::write(&path, config.to_string()).unwrap();
    let found = aflora(place.path(), &["predict", "lora", "rows.jsonl"]);
    refused(&found, 2, "name it with --model");
}

#[test]
fn a_run_goes_on_from_an_adapter_with_its_method_layers_and_weights() {
    let place = place();
    let rows = "text,label
the film is good,0
it was very bad,1
a good one,0
a bad one,1
";
    fs::write(place.path().join("train.csv"), rows).unwrap();
    let train = |more: &[&str]| {
        let own = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
        let settings =
            ["model=minilm", "device=cpu", "precision=fp32", "adapter=lora", "threads=1"];
        aflora(place.path(), &[&own[..], &settings, &["max_length=32"], more].concat())
    };
    // Steps that change nothing: what is judged is what the adapter gave.
    ok(&train(&["max_steps=1", "lr=1e-12", "head_lr=1e-12", "run_dir=still"]));
    let expected = rows_of(&ok(&on(place.path(), "predict", "lora", &["rows.jsonl"])));
    let found = rows_of(&ok(&aflora(place.path(), &["predict", "still", "rows.jsonl"])));
    for (found, expected) in found.iter().zip(&expected) {
        let (found, expected) = (&found["scores"]["1"], &expected["scores"]["LABEL_1"]);
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
    let config = text(&fs::read(place.path().join("still/config.yaml")).unwrap());
    assert!(config.contains("method: lora") && config.contains("rank: 4"), "{config}");
    // Others do.
    ok(&train(&["epochs=3", "lr=1e-2", "run_dir=moved"]));
    let moved = rows_of(&ok(&aflora(place.path(), &["predict", "moved", "rows.jsonl"])));
    assert_ne!(moved[0]["scores"], found[0]["scores"]);
    // The run's own file says all of it again.
    ok(&aflora(place.path(), &["run", "still/config.yaml"]));

    refused(&train(&["method=aflora"]), 2, "is of the method `lora`, not `aflora`");
    refused(&train(&["method=lora", "method.rank=8"]), 2, "`method.rank` is 8, but 4 in");
    let words = "`model.layers` contradicts the adapter's layers";
    refused(&train(&["model.layers=[0]"]), 2, words);
    refused(&train(&["adapter=minilm"]), 2, "adapter_config.json");
}

#[test]
fn a_base_in_few_bits_learns_and_is_merged_as_it_was_trained() {
    let place = place();
    let rows = "text,label
the film is good,0
it was very bad,1
a good one,0
a bad one,1
";
    fs::write(place.path().join("train.csv"), rows).unwrap();
    let train = |more: &[&str]| {
        let own = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
        let settings = ["device=cpu", "threads=1", "max_length=32", "batch_size=4"];
        aflora(place.path(), &[&own[..], &settings, more].concat())
    };
    let few = ["model=minilm", "precision=nf4_nested", "lr=2e-3"];
    ok(&train(&[&few[..], &["method=lora", "epochs=40", "run_dir=few"]].concat()));
    let metrics = json(&place.path().join("few/metrics.json"));
    let loss = metrics["best"]["loss"].as_f64().unwrap();
    assert!(loss < 0.35, "of 0.69 by guessing: {loss}");
    let score = |run: &str| {
        let rows = rows_of(&ok(&aflora(place.path(), &["predict", run, "rows.jsonl"])));
        rows.iter().map(|row| row["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let expected = score("few");

    ok(&aflora(place.path(), &["merge", "few", "merged"]));
    // A step that changes nothing: what is judged is what was merged.
    let still = ["max_steps=1", "head_lr=1e-12", "method=head", "precision=fp32"];
    ok(&train(&[&still[..], &["model=./merged", "run_dir=still"]].concat()));
    for (found, expected) in score("still").iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }

    let words = "cannot be held in few bits";
    refused(&train(&[&few[..], &["method=full"]].concat()), 2, words);
}
