//! Commands on adapter folders that PEFT wrote.

use crate::common::*;
use serde_json::{json, Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tch::{Kind, Tensor};

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
fn a_run_goes_on_from_an_adapter_on_the_pooler() {
    let place = place();
    let fixtures = root().join("crates/aflora-models/tests/fixtures/peft_keys/bert");
    copy(&fixtures.join("all_linear_pooler"), &place.path().join("pooler"));
    fs::write(
        place.path().join("train.csv"),
        "text,label\ngood film,0\nbad film,1\ngood,0\nbad,1\n",
    )
    .unwrap();
    let settings =
        ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
    let more = ["model=minilm", "device=cpu", "precision=fp32", "adapter=pooler", "threads=1"];
    let last = ["max_length=32", "max_steps=1", "run_dir=moved"];
    ok(&aflora(place.path(), &[&settings[..], &more, &last].concat()));
    let found = ok(&aflora(place.path(), &["inspect", "moved/adapter"]));
    assert!(found.contains("bert.pooler.dense"), "{found}");
    ok(&aflora(place.path(), &["predict", "moved", "rows.jsonl"]));
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

/// Four rows of two classes to train on, `train.csv`.
fn train_rows(place: &Path) {
    let rows = "text,label\nthe film is good,0\nit was very bad,1\na good one,0\na bad one,1\n";
    fs::write(place.join("train.csv"), rows).unwrap();
}

#[test]
fn a_run_goes_on_from_an_adapter_with_its_method_layers_and_weights() {
    let place = place();
    train_rows(place.path());
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

    // What freezes is how it trains, and not what the adapter is.
    let frozen = |run: &str, more: &[&str]| {
        ok(&train(&[&["max_steps=1", &format!("run_dir={run}")], more].concat()));
        text(&fs::read(place.path().join(run).join("config.yaml")).unwrap())
    };
    assert!(config.contains("mode: never"), "{config}");
    let config = frozen("by-block", &["method=lora-freeze"]);
    assert!(config.contains("mode: adaptive") && config.contains("rank: 4"), "{config}");
    let config = frozen("by-key", &["method=lora-freeze", "method.freeze.t_i=10%"]);
    assert!(config.contains("t_i: 10%") && config.contains("mode: adaptive"), "{config}");
    let config = frozen("of-the-folder", &["method=lora"]);
    assert!(config.contains("mode: never"), "{config}");

    refused(&train(&["method=aflora"]), 2, "is of the method `lora`, not `aflora`");
    refused(&train(&["method=lora", "method.rank=8"]), 2, "`method.rank` is 8, but 4 in");
    let words = "`model.layers` contradicts the adapter's layers";
    refused(&train(&["model.layers=[0]"]), 2, words);
    refused(&train(&["adapter=minilm"]), 2, "adapter_config.json");
}

#[test]
fn a_run_that_goes_on_trains_the_matrices_that_its_own_freezing_says() {
    let place = place();
    train_rows(place.path());
    let train = |method: &str, run: &str, more: &[&str]| {
        let own = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
        let settings = ["model=minilm", "device=cpu", "max_length=32", "threads=1", "max_steps=2"];
        let chosen = [format!("method={method}"), format!("run_dir={run}")];
        let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
        ok(&aflora(place.path(), &[&own[..], &settings, &chosen, more].concat()));
        let parameters = &json(&place.path().join(run).join("metrics.json"))["parameters"];
        (parameters["at_start"].as_i64().unwrap(), parameters["at_end"].as_i64().unwrap())
    };
    let matrices = |run: &str| {
        let all = Tensor::read_safetensors(
            place.path().join(run).join("adapter/adapter_model.safetensors"),
        );
        let named =
            |(name, _): &(String, Tensor)| name.contains("lora_A") || name.contains("lora_B");
        all.unwrap().into_iter().filter(named).collect::<BTreeMap<_, _>>()
    };
    let (all, _) = train("aflora-trainable", "first", &[]);
    let (vectors, still) = train("aflora-frozen", "resting", &["adapter=first", "lr=1e-2"]);
    assert!(0 < vectors && vectors < all, "{vectors} of {all}");
    assert_eq!(vectors, still);
    let (first, resting) = (matrices("first"), matrices("resting"));
    assert!(!first.is_empty() && first.iter().all(|(name, matrix)| resting[name] == *matrix));
    // And the other way: what rested trains.
    assert_eq!(train("aflora-trainable", "thawed", &["adapter=resting/adapter"]), (all, all));
}

#[test]
fn a_base_in_few_bits_learns_and_is_merged_as_it_was_trained() {
    let place = place();
    train_rows(place.path());
    let train = |more: &[&str]| {
        let own = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
        let settings = ["device=cpu", "threads=1", "max_length=32", "batch_size=4"];
        aflora(place.path(), &[&own[..], &settings, more].concat())
    };
    let few = ["model=minilm", "precision=nf4_nested", "lr=2e-3"];
    ok(&train(&[&few[..], &["method=lora", "epochs=40", "run_dir=few"]].concat()));
    let metrics = json(&place.path().join("few/metrics.json"));
    let loss = metrics["best"]["loss"].as_f64().unwrap();
    assert!(loss < 0.5, "of 0.69 by guessing: {loss}");
    let score = |run: &str| {
        let rows = rows_of(&ok(&aflora(place.path(), &["predict", run, "rows.jsonl"])));
        rows.iter().map(|row| row["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let expected = score("few");

    ok(&aflora(place.path(), &["merge", "few", "merged", "--as", "f32"]));
    // Beside what the restored weights gain.
    let output = aflora(place.path(), &["merge", "few", "half"]);
    ok(&output);
    let told = text(&output.stderr);
    assert!(told.contains("in bfloat16; --as f32 rounds nothing"), "{told}");
    assert!(told.contains("it moves a logit by") && !told.contains("NaN"), "{told}");
    // A step that changes nothing: what is judged is what was merged.
    let still = ["max_steps=1", "head_lr=1e-12", "method=head", "precision=fp32"];
    ok(&train(&[&still[..], &["model=./merged", "run_dir=still"]].concat()));
    for (found, expected) in score("still").iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }

    // The two apart, as they were trained.
    ok(&aflora(place.path(), &["export", "few", "apart", "--base", "base"]));
    let config = json(&place.path().join("base/config.json"));
    assert_eq!(config["quantization_config"]["bnb_4bit_use_double_quant"], true);
    let named = json(&place.path().join("apart/adapter_config.json"));
    let named = named["base_model_name_or_path"].as_str().unwrap();
    assert_eq!(Path::new(named), place.path().join("base"));
    let still = ["max_steps=1", "lr=1e-12", "head_lr=1e-12", "precision=nf4_nested"];
    let apart = ["model=./base", "adapter=apart", "run_dir=apart-still"];
    ok(&train(&[&still[..], &apart].concat()));
    for (found, expected) in score("apart-still").iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }
    let export =
        |run: &str, target: &str| aflora(place.path(), &["export", run, target, "--base", "other"]);
    refused(&export("few", "adapter.gguf"), 2, "llama.cpp has files of its own");
    refused(&export("still", "other-adapter"), 2, "the run's base is not in few bits");
    for target in ["other", "other/within"] {
        refused(&export("few", target), 2, "need folders of their own");
    }
    // What has no adapters leaves no base behind.
    ok(&train(&["max_steps=1", "method=bitfit", "precision=nf4", "run_dir=biases"]));
    let none = export("biases", "other-adapter");
    assert_ne!(none.status.code(), Some(0));
    assert!(text(&none.stderr).contains("nothing to export"), "{}", text(&none.stderr));
    assert!(!place.path().join("other").exists() && !place.path().join("other-adapter").exists());

    let words = "cannot be held in few bits";
    refused(&train(&[&few[..], &["method=full"]].concat()), 2, words);
}

#[test]
fn a_base_whose_products_are_of_eight_bits_learns_and_is_merged_as_it_is_restored() {
    let place = place();
    train_rows(place.path());
    let train = |more: &[&str]| {
        let own = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label", "data=."];
        let settings = ["device=cpu", "threads=1", "max_length=32", "batch_size=4"];
        aflora(place.path(), &[&own[..], &settings, more].concat())
    };
    for format in ["fp8", "int8_dynamic"] {
        let [precision, run_dir] = [("precision", format), ("run_dir", format)]
            .map(|(key, value)| format!("{key}={value}"));
        let eight = ["model=minilm", &precision, "method=lora", "lr=2e-3", "epochs=40", &run_dir];
        ok(&train(&eight));
        let metrics = json(&place.path().join(format).join("metrics.json"));
        let loss = metrics["best"]["loss"].as_f64().unwrap();
        assert!(loss < 0.5, "of 0.69 by guessing: {loss}");
        let [merged, still] = ["merged", "still"].map(|what| format!("{what}-{format}"));
        ok(&aflora(place.path(), &["merge", format, &merged, "--as", "f32"]));
        let settings = ["max_steps=1", "head_lr=1e-12", "method=head", "precision=fp32"];
        let named = [format!("model=./{merged}"), format!("run_dir={still}")];
        ok(&train(&[&settings[..], &named.each_ref().map(String::as_str)].concat()));
        let scores = |run: &str| {
            let rows = rows_of(&ok(&aflora(place.path(), &["predict", run, "rows.jsonl"])));
            rows.iter().map(|row| row["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
        };
        // Apart by what the run rounded what its products read.
        let (still, learned) = (scores(&still), scores(format));
        assert_ne!(still, learned, "{format}");
        for (found, expected) in still.iter().zip(learned) {
            assert!((found - expected).abs() < 0.05, "{format}: {found} is not {expected}");
        }
    }
    let export = |run: &str| {
        let base = format!("base-{run}");
        aflora(place.path(), &["export", run, &format!("apart-{run}"), "--base", &base])
    };
    refused(&export("fp8"), 2, "the run's base is in fp8, which bitsandbytes has not");
    ok(&export("int8_dynamic"));
}

#[test]
fn the_base_of_a_run_on_random_weights_is_exported_as_those_of_files_are() {
    let place = place();
    train_rows(place.path());
    let train = |more: &[&str]| {
        let own = ["run", "train=train.csv", "dev=train.csv", "text=text", "label=label"];
        let settings = ["device=cpu", "threads=1", "max_length=32", "precision=nf4"];
        aflora(place.path(), &[&own[..], &settings, more].concat())
    };
    let random = ["model=tiny-deberta", "method=lora", "lr=1e-2", "max_steps=8"];
    ok(&train(&[&random[..], &["run_dir=random"]].concat()));
    ok(&aflora(place.path(), &["export", "random", "apart", "--base", "base"]));
    let scores = |run: &str| {
        let rows = rows_of(&ok(&aflora(place.path(), &["predict", run, "rows.jsonl"])));
        rows.iter().map(|row| row["scores"]["1"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let still = ["model=./base", "adapter=apart", "lr=1e-12", "head_lr=1e-12", "max_steps=1"];
    ok(&train(&[&still[..], &["run_dir=still"]].concat()));
    for (found, expected) in scores("still").iter().zip(scores("random")) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }
}

#[test]
fn a_merged_model_has_the_numbers_of_the_base_models_file_and_rounding_is_told() {
    let place = place();
    let place = place.path();
    let path = place.join("minilm/model.safetensors");
    let tensors = |path: &Path| -> BTreeMap<String, Tensor> {
        Tensor::read_safetensors(path).unwrap().into_iter().collect()
    };
    let merge = |target: &str, more: &[&str]| {
        let output = on(place, "merge", "lora", &[&[target], more].concat());
        ok(&output);
        text(&output.stderr)
    };
    let told = merge("single", &[]);
    assert!(!told.contains("rounded"), "{told}");
    let half: Vec<(String, Tensor)> = tensors(&path)
        .into_iter()
        .map(|(name, weight)| (name, weight.to_kind(Kind::BFloat16)))
        .collect();
    Tensor::write_safetensors(&half, &path).unwrap();
    let told = merge("plain", &[]);
    assert!(told.contains("in bfloat16, as the base model's file"), "{told}");
    assert!(told.contains("8 weights with an adapter in them, each rounded once"), "{told}");
    assert!(!merge("exact", &["--dtype", "f32"]).contains("rounded once"));
    assert!(merge("half", &["--as", "f16"]).contains("it moves a logit by"));
    let exact = tensors(&place.join("exact/model.safetensors"));
    for (folder, kind) in [("plain", Kind::BFloat16), ("half", Kind::Half)] {
        let found = tensors(&place.join(folder).join("model.safetensors"));
        assert!(found.keys().eq(exact.keys()));
        for (name, weight) in found {
            assert_eq!(weight.kind(), kind, "{name}");
            assert_eq!(weight, exact[&name].to_kind(kind), "{name}");
        }
    }
    let dtype = |folder: &str| json(&place.join(folder).join("config.json"))["dtype"].clone();
    assert_eq!(
        ["single", "plain", "exact", "half"].map(dtype),
        ["float32", "bfloat16", "float32", "float16"]
    );
    refused(&on(place, "merge", "lora", &["more", "--as", "q8_0"]), 2, "is of a GGUF file");
    // Of an adapter that adds little, little is left.
    let little = ["combine", "little", "--adapter", "lora:0.001", "--model", "minilm", "--data"];
    ok(&aflora(place, &[&little[..], &["."]].concat()));
    let output = on(place, "merge", "little", &["drowned"]);
    ok(&output);
    let told = text(&output.stderr);
    assert!(told.contains("WARN 8 weights") && told.contains("--as f32 rounds nothing"), "{told}");
}
