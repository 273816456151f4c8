//! A task is added by a YAML file alone: its rows, columns, labels and metrics are its own.

use crate::common::{self, aflora, json, refused, run, text, workplace};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Three teams that a message may be for, and the words that tell them apart.
const TEAMS: [(&str, &str); 3] = [("B", "bad"), ("T", "good"), ("S", "very")];

const TASK: &str = "\
kind: classify
model: minilm
labels: [B, T, S]
label_names: [billing, technical, sales]
metrics: [matthews, accuracy]
dataset:
  evaluate_on: [check]
  sources:
    ours:
      files: {train: messages.tsv, check: more/checked.csv}
      columns: {text: message, label: team}
";

fn write(place: &Path, file: &str, content: &str) {
    let path = place.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The task `teams` and its rows: tabs between the training rows, commas between the others.
fn teams() -> tempfile::TempDir {
    let place = workplace();
    write(place.path(), "configs/tasks/teams.yaml", TASK);
    let (mut train, mut check) = ("id\tmessage\tteam\n".to_string(), "team,message\n".to_string());
    for i in 0..96 {
        let (team, word) = TEAMS[i % 3];
        train += &format!("{i}\tthe film is {word}\t{team}\n");
        check += &format!("{team},\"it was, we saw, {word}\"\n");
    }
    write(place.path(), "teams/messages.tsv", &train);
    write(place.path(), "teams/checked.csv", &check);
    place
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_task_is_trained_evaluated_and_predicted_by_a_file_alone() {
    let place = teams();
    let more = ["task=teams", "run_dir=out"];
    ok(&run(place.path(), &more));
    let metrics = json(&place.path().join("out/metrics.json"));
    assert_eq!(metrics["task"], "teams");
    assert_eq!(metrics["selection"], "matthews");
    let best = metrics["best"]["metrics"].as_object().unwrap();
    assert_eq!(best.keys().collect::<Vec<_>>(), ["matthews", "accuracy"]);

    // The run holds what its task is: neither its file nor its rows are needed any more.
    fs::remove_file(place.path().join("configs/tasks/teams.yaml")).unwrap();
    fs::remove_dir_all(place.path().join("teams")).unwrap();
    let rows = "{\"message\": \"the film is very\"}\n{\"text\": \"the film is good\"}\n";
    write(place.path(), "new.jsonl", rows);
    let answers = ok(&aflora(place.path(), &["predict", "out", "new.jsonl"]));
    for line in answers.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let scores = line["scores"].as_object().unwrap();
        assert_eq!(scores.keys().collect::<Vec<_>>(), ["billing", "technical", "sales"]);
        let of_label = scores[line["label"].as_str().unwrap()].as_f64();
        assert!(scores.values().all(|score| score.as_f64() <= of_label), "{line}");
    }
    assert_eq!(answers.lines().count(), 2);
    ok(&aflora(place.path(), &["merge", "out", "merged"]));
    let merged = json(&place.path().join("merged/config.json"));
    assert_eq!(merged["id2label"]["2"], "sales");
    refused(&run(place.path(), &more[..1]), 2, "there is no task `teams`");
}

#[test]
fn a_row_s_text_is_in_the_column_that_the_task_was_trained_on() {
    let place = teams();
    ok(&run(place.path(), &["task=teams", "run_dir=out"]));
    let answer = |row: &str| {
        write(place.path(), "new.jsonl", row);
        let line = ok(&aflora(place.path(), &["predict", "out", "new.jsonl"]));
        serde_json::from_str::<Value>(&line).unwrap()["scores"].clone()
    };
    let right = answer("{\"message\": \"the film is very\"}\n");
    let other = answer("{\"message\": \"bad bad bad\"}\n");
    assert_ne!(right, other);
    let both = "{\"text\": \"bad bad bad\", \"message\": \"the film is very\"}\n";
    assert_eq!(answer(both), right);
}

/// A file beside the run file, named by its path; it goes by its own name.
#[test]
fn a_task_may_be_named_by_the_path_of_its_file() {
    let place = teams();
    let path = place.path().join("configs/tasks/teams.yaml");
    let score = "kind: score\nmetrics: [spearman]\ndataset:\n  folders: [teams]\n  sources:\n    \
                 ours:\n      files: {train: messages.tsv, dev: messages.tsv}\n      columns: \
                 {text: message, label: id}\n";
    fs::write(place.path().join("mine.yaml"), score).unwrap();
    fs::remove_file(path).unwrap();
    ok(&run(place.path(), &["task=mine.yaml", "run_dir=out"]));
    let metrics = json(&place.path().join("out/metrics.json"));
    assert_eq!((&metrics["task"], &metrics["selection"]), (&"mine".into(), &"spearman".into()));
    write(place.path(), "new.csv", "message\nthe film\n");
    let answers = ok(&aflora(place.path(), &["predict", "out", "new.csv"]));
    assert!(answers.starts_with("message,score\nthe film,"), "{answers}");
    // A line of plain text is a text, in a file as in a stream.
    write(place.path(), "new.txt", "the film\nit, \"was\"\n");
    let lines = ok(&aflora(place.path(), &["predict", "out", "new.txt"]));
    let starts = ["{\"text\":\"the film\",\"score\":", "{\"text\":\"it, \\\"was\\\"\",\"score\":"];
    assert!(lines.lines().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines}");
    let top = aflora(place.path(), &["predict", "out", "new.csv", "--top-k", "2"]);
    refused(&top, 2, "--top-k is of the probabilities of classes, but the task `mine` asks for a");
}

#[test]
fn what_is_wrong_with_a_task_s_rows_is_told_in_the_task_s_words() {
    let place = teams();
    let validate = |setting: &str| {
        let arguments = ["validate", common::CONFIG, "task=teams", "data=.", "max_length=32"];
        aflora(place.path(), &[&arguments[..], &[setting]].concat())
    };
    ok(&validate("seed=1"));
    for (setting, words) in [
        ("task.labels=[B, T, X]", "messages.tsv, line 4: the label is `S`, but must be one of"),
        ("task.dataset.sources.ours.columns.text=body", "no column `body`; the header has"),
        (
            "task.dataset.sources.ours.files.train=none.csv",
            "the task's folder is here, but no none.csv lies in it; it holds checked.csv, messages",
        ),
        ("task.dataset.folders=[elsewhere]", "fine"),
    ] {
        let output = validate(setting);
        match words {
            "fine" => drop(ok(&output)),
            // Files that are not there are the caller's to provide.
            words => refused(&output, if words.contains("holds") { 2 } else { 1 }, words),
        }
    }
    fs::rename(place.path().join("teams"), place.path().join("gone")).unwrap();
    let output = validate("seed=1");
    refused(&output, 2, "no teams/ in it");
    refused(&output, 2, "Name a folder that holds teams/messages.tsv and teams/checked.csv with");
}
