//! Each kind of task from its file to predictions and a merged model.

use crate::common::{self, aflora, json, refused, run, text, workplace};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn write(place: &Path, file: &str, content: &str) {
    let path = place.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A workplace with a task `mine`, its rows in `mine/train.X` and `mine/dev.X`.
fn task(yaml: &str, ending: &str, rows: &str) -> TempDir {
    let place = workplace();
    write(place.path(), "configs/tasks/mine.yaml", yaml);
    for split in ["train", "dev"] {
        write(place.path(), &format!("mine/{split}.{ending}"), rows);
    }
    place
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Trains on the task `mine`; gives the metrics of the best epoch.
fn trained(place: &Path, more: &[&str]) -> Value {
    ok(&run(place, &[&["task=mine", "run_dir=out"], more].concat()));
    json(&place.join("out/metrics.json"))["best"]["metrics"].clone()
}

/// What is predicted for the rows of a file.
fn predicted(place: &Path, file: &str, rows: &str) -> Vec<Value> {
    write(place, file, rows);
    let lines = ok(&aflora(place, &["predict", "out", file, "--output-format", "jsonl"]));
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The config.json of the merged model.
fn merged(place: &Path) -> Value {
    ok(&aflora(place, &["merge", "out", "merged"]));
    json(&place.join("merged/config.json"))
}

const MULTILABEL: &str = "\
kind: multilabel
model: minilm
labels: [g, v]
label_names: [good, very]
metrics: [multilabel_f1_micro, multilabel_accuracy]
dataset:
  sources:
    ours:
      files: {train: train, dev: dev}
      columns: {text: text, label: labels}
";

/// Texts with any of two words, and the labels for them.
fn two_words(separator: &str) -> Vec<(String, String)> {
    let row = |i: usize| {
        let even = |n: usize| n.is_multiple_of(2);
        let words = [(even(i), "good", "g"), (even(i / 2), "very", "v")];
        let said: Vec<&str> =
            words.iter().map(|(is, word, _)| if *is { *word } else { "film" }).collect();
        let labels: Vec<&str> = words.iter().filter(|w| w.0).map(|w| w.2).collect();
        (format!("the film is {}", said.join(" ")), labels.join(separator))
    };
    (0..96).map(row).collect()
}

#[test]
fn a_text_gets_any_of_several_labels() {
    let rows = two_words("\", \"").into_iter().map(|(text, labels)| {
        let labels = if labels.is_empty() { "[]".into() } else { format!("[\"{labels}\"]") };
        format!("{{\"text\": \"{text}\", \"labels\": {labels}}}\n")
    });
    let place = task(MULTILABEL, "jsonl", &rows.collect::<String>());
    let metrics = trained(place.path(), &["epochs=24"]);
    // A guess finds one set in four.
    assert!(metrics["multilabel_accuracy"].as_f64().unwrap() >= 0.5, "{metrics}");
    let found =
        predicted(place.path(), "new.csv", "text\nthe film is good very\nthe film is film film\n");
    assert_ne!(found[0]["labels"], found[1]["labels"]);
    for row in &found {
        for name in ["good", "very"] {
            let share = row["scores"][name].as_f64().unwrap();
            let is_label = row["labels"].as_array().unwrap().contains(&name.into());
            assert_eq!(share >= 0.5, is_label, "{row}");
        }
    }
    let config = merged(place.path());
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!(config["id2label"], serde_json::json!({"0": "good", "1": "very"}));
}

#[test]
fn several_labels_in_a_table_stand_between_separators() {
    let rows = two_words("|").into_iter().map(|(text, labels)| format!("{text},{labels}\n"));
    let rows = "text,labels\n".to_string() + &rows.collect::<String>();
    let place = task(MULTILABEL, "csv", &rows);
    let validate = |more: &[&str]| {
        let arguments = ["validate", common::CONFIG, "task=mine", "data=.", "max_length=32"];
        aflora(place.path(), &[&arguments[..], more].concat())
    };
    ok(&validate(&["task.label_separator='|'"]));
    refused(&validate(&[]), 1, "line 2: the label is `g|v`, but must be one of");
    refused(&validate(&["task.threshold=1.5"]), 2, "threshold");
    refused(&validate(&["task.label_separator=g"]), 2, "which the label \"g\" holds");
    refused(&validate(&["task.metrics=[accuracy]"]), 2, "`accuracy` judges classes");
}

const SCORES: &str = "\
kind: score
model: minilm
labels: [goodness, length]
range: [0, 5]
metrics: [pearson, mse]
dataset:
  sources:
    ours:
      files: {train: train.csv, dev: dev.csv}
      columns: {text: text, length: words}
";

#[test]
fn a_text_gets_several_scores_and_each_is_judged() {
    let rows = (0..96).map(|i| {
        let (good, very) = (i % 2 == 0, i / 2 % 2 == 0);
        let text =
            [if good { "good" } else { "bad" }, if very { "very" } else { "film" }].join(" ");
        format!(
            "the film is {text},{},{}\n",
            if good { 4.5 } else { 1.0 },
            if very { 3 } else { 2 }
        )
    });
    let place =
        task(SCORES, "csv", &("text,goodness,words\n".to_string() + &rows.collect::<String>()));
    let metrics = trained(place.path(), &[]);
    let of = |name: &str| metrics[name].as_f64().unwrap();
    assert!(of("pearson_goodness") > 0.8, "{metrics}");
    let mean = (of("mse_goodness") + of("mse_length")) / 2.0;
    assert!((of("mse") - mean).abs() < 1e-9, "{metrics}");
    // The loss is the mean squared error over both.
    let best = json(&place.path().join("out/metrics.json"))["best"].clone();
    assert!((best["loss"].as_f64().unwrap() - mean).abs() < 1e-4 * mean, "{best}");

    let found =
        predicted(place.path(), "new.csv", "text\nthe film is good very\nthe film is bad very\n");
    let score = |row: usize| found[row]["scores"]["goodness"].as_f64().unwrap();
    assert!(score(0) > score(1) && found[0]["scores"]["length"].is_number(), "{found:?}");
    let config = merged(place.path());
    assert_eq!(config["problem_type"], "regression");
    assert_eq!(config["id2label"]["1"], "length");
}

const TOKENS: &str = "\
kind: tokens
model: minilm
labels: [O, B-Q, I-Q, B-THING]
metrics: [entity_f1, tag_accuracy]
dataset:
  sources:
    ours:
      files: {train: train, dev: dev}
      columns: {tokens: words, tags: tags}
";

/// Texts with a quality of one or two words, and a thing.
fn tagged_words() -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let row = |i: usize| {
        let (mut words, mut tags) = (vec!["the"], vec!["O"]);
        if !i.is_multiple_of(3) {
            words.push("very");
            tags.push("B-Q");
        }
        words.push(if i.is_multiple_of(2) { "good" } else { "bad" });
        tags.push(if !i.is_multiple_of(3) { "I-Q" } else { "B-Q" });
        words.push("film");
        tags.push("B-THING");
        (words, tags)
    };
    (0..96).map(row).collect()
}

#[test]
fn words_get_tags_and_predictions_show_entities() {
    let rows = tagged_words().into_iter().map(|(words, tags)| {
        serde_json::json!({ "words": words, "tags": tags }).to_string() + "\n"
    });
    let place = task(TOKENS, "jsonl", &rows.collect::<String>());
    let metrics = trained(place.path(), &["lr=1e-2", "epochs=24"]);
    assert!(metrics["entity_f1"].as_f64().unwrap() > 0.9, "{metrics}");
    let classes = json(&place.path().join("out/metrics.json"))["by_class"][0]["classes"].clone();
    let types: Vec<&str> =
        classes.as_array().unwrap().iter().map(|c| c["label"].as_str().unwrap()).collect();
    assert_eq!(types, ["Q", "THING"], "{classes}");
    let rows = "{\"words\": [\"the\", \"very\", \"good\", \"film\"], \"id\": 7}\n\
                {\"text\": \"the bad film\"}\n";
    let found = predicted(place.path(), "new.jsonl", rows);
    assert_eq!(found[0]["tags"], serde_json::json!(["O", "B-Q", "I-Q", "B-THING"]));
    let entities = serde_json::json!([
        { "type": "Q", "start": 1, "end": 3, "text": "very good" },
        { "type": "THING", "start": 3, "end": 4, "text": "film" },
    ]);
    assert_eq!(found[0]["entities"], entities);
    assert_eq!((&found[0]["id"], found[1]["tags"].as_array().unwrap().len()), (&7.into(), 3));
    let config = merged(place.path());
    assert_eq!(config["architectures"][0], "BertForTokenClassification");
    assert_eq!(config["id2label"]["3"], "B-THING");
    assert!(config.get("problem_type").is_none());
    let adapter = json(&place.path().join("out/adapter/adapter_config.json"));
    assert_eq!(adapter["task_type"], "TOKEN_CLS");
}

#[test]
fn an_adapter_on_the_head_of_a_tagger_gives_tags_wherever_it_goes() {
    let rows = tagged_words().into_iter().map(|(words, tags)| {
        serde_json::json!({ "words": words, "tags": tags }).to_string() + "\n"
    });
    let place = task(TOKENS, "jsonl", &rows.collect::<String>());
    trained(place.path(), &["epochs=1"]);
    let config = merged(place.path());
    let (labels, hidden) = (config["id2label"].as_object().unwrap().len() as i64, 32);
    assert_eq!(config["hidden_size"], hidden);

    // As PEFT writes it where nobody names the task: with one it would train the head whole.
    let keys = serde_json::json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["classifier"],
        "task_type": null, "base_model_name_or_path": "merged",
    });
    write(place.path(), "adapter/adapter_config.json", &keys.to_string());
    let matrix = |name: &str, shape: [i64; 2]| {
        (format!("base_model.model.classifier.lora_{name}.weight"), Tensor::randn(shape, FLOAT))
    };
    let pair = [matrix("A", [2, hidden]), matrix("B", [labels, 2])];
    let file = place.path().join("adapter/adapter_model.safetensors");
    Tensor::write_safetensors(&pair, file).unwrap();
    write(place.path(), "new.jsonl", "{\"tokens\": [\"the\", \"bad\", \"film\"]}\n");
    let tags = |adapter: &str| -> Value {
        let asked = ["predict", adapter, "new.jsonl", "--data", ".", "--output-format", "jsonl"];
        serde_json::from_str(&ok(&aflora(place.path(), &asked))).unwrap()
    };
    let found = tags("adapter");
    assert_eq!(found["tags"].as_array().unwrap().len(), 3, "{found}");
    ok(&aflora(place.path(), &["export", "adapter", "exported", "--data", "."]));
    let exported = json(&place.path().join("exported/adapter_config.json"));
    assert_eq!((&exported["task_type"], &exported["r"]), (&Value::Null, &2.into()));
    assert_eq!(tags("exported")["tags"], found["tags"]);
}

#[test]
fn words_behind_the_cut_count_as_missed_and_tags_must_be_as_many_as_words() {
    let rows = tagged_words().into_iter().map(|(words, tags)| {
        let (words, tags) = (words.repeat(3), tags.repeat(3));
        format!("{},{}\n", words.join(" "), tags.join(" "))
    });
    let table = "words,tags\n".to_string() + &rows.collect::<String>();
    let place = task(TOKENS, "csv", &table);
    let more = ["lr=1e-2", "max_length=8"];
    let metrics = trained(place.path(), &more);
    // Of nine to twelve words six are read.
    assert!(metrics["tag_accuracy"].as_f64().unwrap() < 0.85, "{metrics}");
    write(place.path(), "mine/dev.csv", &(table + "the film,O\n"));
    let output = run(place.path(), &["task=mine", "run_dir=other"]);
    refused(&output, 1, "line 98: there are 2 words and 1 tags, but each word has one");
}

#[test]
fn words_and_tags_are_read_from_files_with_a_word_a_line() {
    let rows = tagged_words().into_iter().map(|(words, tags)| {
        let lines = words.iter().zip(tags).map(|(word, tag)| format!("{word} X {tag}\n"));
        lines.collect::<String>() + "\n"
    });
    let yaml = TOKENS.replace("words, tags: tags", "\"1\", tags: \"3\"");
    let place =
        task(&yaml, "conll", &("-DOCSTART- X O\n\n".to_string() + &rows.collect::<String>()));
    let metrics = trained(place.path(), &["epochs=1"]);
    assert!(metrics["entity_f1"].is_number(), "{metrics}");
    let found = predicted(place.path(), "new.conll", "the\nbad\nfilm\n\ngood\n");
    assert_eq!(found.len(), 2);
    assert_eq!(found[0]["tags"].as_array().unwrap().len(), 3);
    write(place.path(), "mine/dev.conll", "the X O\nbad X B-NEW\n");
    let output = run(place.path(), &["task=mine", "run_dir=other"]);
    refused(&output, 1, "dev.conll, line 1: the label is `B-NEW`, but must be one of");
}

const TEXT: &str = "\
kind: text
model: tiny-llama
metrics: [perplexity]
generation: {max_new_tokens: 4}
dataset:
  sources:
    ours:
      files: {train: train, dev: dev}
      columns: {text: body}
";

#[test]
fn plain_texts_are_learned_in_packs_and_pieces_and_judged_by_their_perplexity() {
    let rows = (0..60).map(|i| {
        let body = "three hundred and twenty four ".repeat(1 + i % 9 * (i % 4));
        serde_json::json!({ "body": body.trim() }).to_string() + "\n"
    });
    let place = task(TEXT, "jsonl", &rows.collect::<String>());
    let more = ["model=tiny-llama", "max_length=48", "lr=1e-2", "epochs=3"];
    let metrics = trained(place.path(), &more);
    let found = json(&place.path().join("out/metrics.json"));
    let perplexity = metrics["perplexity"].as_f64().unwrap();
    let loss = found["best"]["loss"].as_f64().unwrap();
    assert!((perplexity - loss.exp()).abs() < 1e-6 * perplexity, "{metrics}");
    let first = found["evaluations"][0]["metrics"]["perplexity"].as_f64().unwrap();
    assert!(perplexity < first, "{found}");
    // Rows are those of the file, whatever they are cut in and packed to.
    let output = run(place.path(), &[&more[..], &["task=mine", "run_dir=told"]].concat());
    let told = text(&output.stderr);
    assert!(told.contains("train: 60 of 60 rows of "), "{told}");
    assert!(told.contains(", in ") && told.contains(" packs"), "{told}");
    assert!(!told.contains("behind the cut"), "{told}");
    let found = predicted(place.path(), "new.csv", "body\nthree hundred\n");
    assert!(found[0]["prediction"].is_string(), "{found:?}");
    assert_eq!(merged(place.path())["architectures"][0], "LlamaForCausalLM");
    // Whose tokenizer's special tokens the config names by their ids alone.
    let named = json(&place.path().join("merged/tokenizer_config.json"));
    let expected =
        serde_json::json!({ "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>" });
    assert_eq!(named, expected);
    let output = run(place.path(), &["task=mine", "run_dir=b", "task.metrics=[exact_match]"]);
    refused(&output, 2, "the task has none to compare with");
    let output = run(place.path(), &["task=mine", "run_dir=b", "model=tiny-bart"]);
    refused(&output, 2, "rows are packed for a mere decoder alone");
}
