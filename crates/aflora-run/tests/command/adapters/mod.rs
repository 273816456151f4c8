//! Commands on adapter folders that PEFT wrote.

mod few_bits;
mod going_on;

use crate::common::*;
use serde_json::{json, Map, Value};
use std::collections::BTreeSet;
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

/// The same answer, but for the rounding of what was computed in other company.
fn rounded_alike(found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let keys = |of: &Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(found), keys(expected));
            expected.iter().for_each(|(key, value)| rounded_alike(&found[key], value));
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
        _ => assert_eq!(found, expected),
    }
}

/// What the command gives on `folder` beside the model of the workplace.
fn on(place: &Path, command: &str, folder: &str, more: &[&str]) -> Output {
    let arguments = [&[command, folder], more, &["--model", "minilm", "--data", "."]].concat();
    aflora(place, &arguments)
}

fn rows_of(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Four rows of two classes to train on, `train.csv`.
fn train_rows(place: &Path) {
    let rows = "text,label\nthe film is good,0\nit was very bad,1\na good one,0\na bad one,1\n";
    fs::write(place.join("train.csv"), rows).unwrap();
}

/// A run that trains on those, with these settings.
fn train_on_rows(place: &Path, settings: &[&[&str]]) -> Output {
    let data = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
    let machine = ["device=cpu", "threads=1", "max_length=32"];
    aflora(place, &[&data[..], &machine, &settings.concat()].concat())
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
fn an_exported_adapter_s_tokenizer_names_the_special_tokens_of_the_model() {
    let place = place();
    assert!(!place.path().join("minilm/tokenizer_config.json").exists());
    ok(&on(place.path(), "export", "lora", &["exported"]));
    let told = json(&place.path().join("exported/tokenizer_config.json"));
    let inputs = json!(["input_ids", "token_type_ids", "attention_mask"]);
    assert_eq!(told, json!({ "model_input_names": inputs, "pad_token": "[PAD]" }));
}

#[test]
fn words_that_an_adapter_brings_are_read_and_go_wherever_it_goes() {
    let place = place();
    let fixtures = root().join("crates/aflora-models/tests/fixtures/peft_keys/bert");
    copy(&fixtures.join("enlarged"), &place.path().join("more"));
    let known = json(&place.path().join("minilm/config.json"))["vocab_size"].as_u64().unwrap();
    let mut tokenizer = json(&place.path().join("minilm/tokenizer.json"));
    let list = tokenizer["added_tokens"].as_array_mut().unwrap();
    list.push(json!({
        "id": known, "content": "<new>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false,
    }));
    // The fixture's vocabulary is smaller than the model's: the number of a word added is the next.
    let next = tokenizer["model"]["vocab"].as_object().unwrap().len() as u64;
    for id in next..known {
        tokenizer["model"]["vocab"][format!("[filler{id}]")] = id.into();
    }
    fs::write(place.path().join("more/tokenizer.json"), tokenizer.to_string()).unwrap();
    let rows = [json!({ "text": "the <new> film" }), json!({ "text": "the [UNK] film" })];
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    fs::write(place.path().join("rows.jsonl"), lines).unwrap();
    let found = rows_of(&ok(&on(place.path(), "predict", "more", &["rows.jsonl"])));
    assert_ne!(found[0]["scores"], found[1]["scores"]);
    let same = |other: &[Value], of: &str, to: &str| {
        for (one, other) in found.iter().zip(other) {
            let (one, other) = (&one["scores"][of], &other["scores"][to]);
            assert!(
                (one.as_f64().unwrap() - other.as_f64().unwrap()).abs() < 1e-5,
                "{one} {other}"
            );
        }
    };

    ok(&on(place.path(), "export", "more", &["exported"]));
    let again = rows_of(&ok(&on(place.path(), "predict", "exported", &["rows.jsonl"])));
    same(&again, "LABEL_1", "LABEL_1");

    ok(&on(place.path(), "merge", "more", &["merged"]));
    assert_eq!(json(&place.path().join("merged/config.json"))["vocab_size"], known + 3);
    let merged = text(&fs::read(place.path().join("merged/tokenizer.json")).unwrap());
    assert!(merged.contains("<new>"));

    let training = "text,label\nthe <new> film,0\nthe film,1\na <new> one,0\na one,1\n";
    fs::write(place.path().join("train.csv"), training).unwrap();
    let settings =
        ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
    let more = ["model=minilm", "device=cpu", "precision=fp32", "adapter=more", "threads=1"];
    let still = ["max_length=32", "max_steps=1", "lr=1e-12", "head_lr=1e-12", "run_dir=still"];
    ok(&aflora(place.path(), &[&settings[..], &more, &still].concat()));
    fs::remove_dir_all(place.path().join("more")).unwrap();
    let again = rows_of(&ok(&aflora(place.path(), &["predict", "still", "rows.jsonl"])));
    same(&again, "LABEL_1", "1");
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
    refused(&aflora(place.path(), &["inspect", "me/other"]), 2, "no adapter of the hub");
    let told = ok(&aflora(place.path(), &["inspect", "me/mine"]));
    assert!(told.contains("method: lora") && told.contains("8 layers:"), "{told}");
    let combined = ["combine", "both", "--adapter", "me/mine:0.5", "--adapter", "lora:0.5"];
    ok(&aflora(place.path(), &[&combined[..], &["--model", "minilm", "--data", "."]].concat()));
    let both = rows_of(&ok(&on(place.path(), "predict", "both", &["rows.jsonl"])));
    assert!(close(&both[0], &rows_of(&expected)[0]), "{both:?}");
    // A run goes on from it, and says of which commit it is.
    fs::write(place.path().join("train.csv"), "text,label\nthe film is good,0\nbad,1\n").unwrap();
    let settings = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label"];
    let more = ["model=minilm", "device=cpu", "precision=fp32", "threads=1", "max_length=32"];
    let last = ["kind=classify", "max_steps=1", "data=.", "run_dir=on", "adapter=me/mine"];
    ok(&aflora(place.path(), &[&settings[..], &more, &last].concat()));
    let config = text(&fs::read(place.path().join("on/config.yaml")).unwrap());
    assert!(config.contains(&format!("adapter: me/mine@{commit}")), "{config}");
    // The run needs it no more.
    fs::remove_dir_all(&repo).unwrap();
    ok(&aflora(place.path(), &["predict", "on", "rows.jsonl"]));
}

/// Whether two rows have the same scores.
fn close(one: &Value, other: &Value) -> bool {
    let score = |row: &Value| row["scores"]["LABEL_1"].as_f64().unwrap();
    (score(one) - score(other)).abs() < 1e-5
}

/// Rows that are answered by several, in `place`: what each of `adapters` answers alone, by its name.
fn alone(place: &Path, adapters: &[(&str, &str)]) -> Vec<Vec<Value>> {
    let answers = adapters.iter().map(|(_, folder)| {
        let output = match *folder == "scores" {
            true => aflora(place, &["predict", folder, "rows.jsonl"]),
            false => on(place, "predict", folder, &["rows.jsonl"]),
        };
        rows_of(&ok(&output))
    });
    answers.collect()
}

#[test]
fn several_adapters_on_one_base_answer_as_each_does_alone() {
    let place = place();
    let place = place.path();
    for name in ["dora", "vera"] {
        copy(&fixture(name), &place.join(name));
    }
    // And a run of another task, with another head.
    fs::write(place.join("train.csv"), "text,label\nthe film is good,0.5\nbad,1.25\n").unwrap();
    let settings = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label"];
    let more = ["model=minilm", "device=cpu", "precision=fp32", "threads=1", "max_length=32"];
    let last = ["kind=score", "epochs=2", "data=.", "run_dir=scores"];
    ok(&aflora(place, &[&settings[..], &more, &last].concat()));
    let adapters = [("a", "lora"), ("b", "dora"), ("c", "vera"), ("d", "scores")];
    let alone = alone(place, &adapters);
    let named: Vec<String> =
        adapters.iter().map(|(name, folder)| format!("--adapter={name}={folder}")).collect();
    let several = |file: &str, more: &[&str]| {
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let first = ["predict", file, "--model", "minilm", "--data", "."];
        aflora(place, &[&first[..], &named, more].concat())
    };
    let output = several("rows.jsonl", &[]);
    let told = text(&output.stderr);
    assert!(told.contains("4 adapters on one base model"), "{told}");
    let found = rows_of(&ok(&output));
    assert_eq!(found.len(), 8);
    for (i, row) in found.iter().enumerate() {
        let mut expected = alone[i % 4][i / 4].clone();
        expected["adapter"] = adapters[i % 4].0.into();
        rounded_alike(row, &expected);
    }
    // A table has the columns of all.
    let table = ok(&several("rows.jsonl", &["--output-format", "csv"]));
    assert!(table.starts_with("text,adapter,label,scores,score\n"), "{table}");
    assert_eq!(table.lines().count(), 9);
    // A column tells whom each row asks.
    let whose = ["d", "b"];
    let rows = alone[0].iter().zip(whose);
    let rows =
        rows.map(|(row, whose)| json!({ "text": row["text"], "who": whose }).to_string() + "\n");
    fs::write(place.join("asks.jsonl"), rows.collect::<String>()).unwrap();
    let found = rows_of(&ok(&several("asks.jsonl", &["--adapter-column", "who"])));
    for (i, (row, at)) in found.iter().zip([3, 1]).enumerate() {
        let mut expected = alone[at][i].clone();
        expected["who"] = whose[i].into();
        rounded_alike(row, &expected);
    }

    let column = ["--adapter-column", "who"];
    refused(&several("rows.jsonl", &column), 1, "line 1: it has no `who`");
    fs::write(place.join("asks.jsonl"), "{\"text\": \"a\", \"who\": \"e\"}\n").unwrap();
    let words = "line 1: `who` is \"e\", but must be one of the adapters: `a`, `b`, `c`, `d`";
    refused(&several("asks.jsonl", &column), 1, words);
    refused(&several("rows.jsonl", &["--top-k", "1"]), 2, "--top-k is of the probabilities");
    refused(&several("rows.jsonl", &["--adapter", "a=vera"]), 2, "two adapters are called `a`");
    refused(&several("rows.jsonl", &["--adapter", "vera"]), 2, "write NAME=RUN");
    refused(&several("scores", &["rows.jsonl"]), 2, "scores stands beside --adapter");
    refused(&aflora(place, &["predict", "lora"]), 2, "name the file to predict for");
    let alone = ["predict", "lora", "rows.jsonl", "--adapter-column", "who"];
    refused(&aflora(place, &alone), 2, "--adapter");
}

#[test]
fn adapters_of_different_base_models_do_not_answer_together() {
    let place = place();
    let place = place.path();
    fs::create_dir(place.join("other")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(place.join("minilm").join(file), place.join("other").join(file)).unwrap();
    }
    for base in ["minilm", "other"] {
        let folder = place.join(format!("of-{base}"));
        copy(&fixture("lora"), &folder);
        let path = folder.join("adapter_config.json");
        let mut config = json(&path);
        config["base_model_name_or_path"] = place.join(base).to_str().unwrap().into();
        fs::write(&path, config.to_string()).unwrap();
    }
    let ask = |second: &str| {
        let adapters = ["--adapter", "a=of-minilm", "--adapter", second];
        aflora(place, &[&["predict", "rows.jsonl"], &adapters[..]].concat())
    };
    ok(&ask("b=of-minilm"));
    refused(&ask("b=of-other"), 2, "they must be of one base model");
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
