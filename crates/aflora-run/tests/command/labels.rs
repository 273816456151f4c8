//! The labels of `predict`, and the losses and metrics of `evaluate`, are those that transformers
//! gives with what `merge` and `export` wrote.

use crate::common::{self, aflora, root, run, text, workplace};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::process::{Command, Output};

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The Python with transformers and PEFT that `AFLORA_PEFT_PYTHON` names; says so where it does not.
fn python() -> Option<OsString> {
    let named = std::env::var_os("AFLORA_PEFT_PYTHON");
    if named.is_none() {
        let words = "skipped, it needs a Python with peft, transformers, pandas, scikit-learn and \
                     seqeval: AFLORA_PEFT_PYTHON=python";
        let _ = writeln!(std::io::stderr(), "{words}");
    }
    named
}

#[test]
fn transformers_gives_the_labels_of_predict_with_what_merge_and_export_wrote() {
    let Some(python) = python() else { return };
    let place = workplace();
    let settings = ["task=mrpc", "method=lora", "run_dir=out"];
    let output = run(place.path(), &settings);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: String =
        [("the film is good", "it was very bad"), ("one is bad", "it was very good")]
            .iter()
            .map(|(a, b)| serde_json::json!({ "text_a": a, "text_b": b }).to_string() + "\n")
            .collect();
    fs::write(place.path().join("rows.jsonl"), rows).unwrap();
    for command in [["merge", "out", "merged"], ["export", "out", "exported"]] {
        let output = aflora(place.path(), &command);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let ours = lines(&aflora(place.path(), &["predict", "out", "rows.jsonl", "--device", "cpu"]));
    let labels: Vec<&str> = ours.iter().map(|line| line["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["equivalent", "not_equivalent"], "it learned nothing");

    let script = root().join("crates/aflora-run/tests/fixtures/labels_of.py");
    let names = r#"["not_equivalent", "equivalent"]"#;
    for further in [&["merged"][..], &["exported", "minilm", names]] {
        let mut command = Command::new(&python);
        command.arg(&script).arg("rows.jsonl").args(further);
        let output = command.current_dir(place.path()).env_remove("LD_LIBRARY_PATH").output();
        let theirs = lines(&output.unwrap());
        assert_eq!(theirs.len(), 2);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours["label"], theirs["label"], "{further:?}");
            for name in ["not_equivalent", "equivalent"] {
                let [a, b] = [ours, theirs].map(|line| line["scores"][name].as_f64().unwrap());
                assert!((a - b).abs() < 1e-5, "{further:?}, {name}: {a} and {b}");
            }
        }
    }
}

/// Every kind on rows of one's own, from the command line alone: what `evaluate` says is what a judge
/// says that has nothing of ours.
#[test]
fn transformers_has_the_losses_and_metrics_of_every_kind() {
    let Some(python) = python() else { return };
    let place = workplace();
    let write = |file: &str, rows: String| fs::write(place.path().join(file), rows).unwrap();
    let news = ["world", "sports", "business", "science"];
    let about = ["the election in", "the match of", "the shares of", "the planet near"];
    let rows = |from: usize, to: usize, row: &dyn Fn(usize) -> String| -> String {
        (from..to).map(|i| row(i) + "\n").collect()
    };
    let files = |name: &str, head: &str, row: &dyn Fn(usize) -> String| {
        let [file, dev] = [name.to_string(), format!("dev_{name}")];
        write(&file, head.to_string() + &rows(0, 96, row));
        write(&dev, head.to_string() + &rows(96, 120, row));
        (file, dev)
    };
    let list = |items: &[&str]| serde_json::to_string(items).unwrap();
    let minilm = ["model=minilm", "max_length=32", "lr=1e-2"];
    let sets = "task.metrics=[multilabel_f1_micro, hamming_loss]";
    let models = format!("data={}", root().join("configs/models").display());
    let llama = ["model=tiny-llama", &models, "max_length=64", "lr=1e-2"];
    let (classify, multilabel, score, tokens, texts, writes) = (
        files("news.csv", "body,topic\n", &|i| {
            format!("\"{} \"\"{i}\"\", they say\",{}", about[i % 4], news[i % 4])
        }),
        files("tone.csv", "body,rude,loud\n", &|i| {
            let words = ["it is fine", "it is rude", "it is loud", "it is rude and loud"];
            format!("{} {i},{},{}", words[i % 4], i % 2, i % 4 / 2)
        }),
        files("stars.csv", "body,food,room\n", &|i| {
            format!(
                "{} stars for {i},{}.5,{}.25",
                ["no", "two", "four"][i % 3],
                i % 3 * 2,
                4 - i % 3
            )
        }),
        files("names.jsonl", "", &|i| {
            let (name, place) = (["Ann", "Bob"][i % 2], ["Kathmandu", "Rome", "home"][i % 3]);
            let tag = if place == "home" { "O" } else { "B-LOC" };
            let words = list(&[name, "Smith", "ran", place]);
            format!("{{\"tokens\": {words}, \"tags\": {}}}", list(&["B-PER", "I-PER", "O", tag]))
        }),
        files("notes.jsonl", "", &|i| format!("{{\"text\": \"it was {} of {i}\"}}", about[i % 4])),
        files("sums.jsonl", "", &|i| {
            format!("{{\"input\": \"{i} and 1 =\", \"target\": \" {}\"}}", i + 1)
        }),
    );
    for (kind, (train, dev), model, columns, right) in [
        ("classify", classify, &minilm[..], &["text=body", "label=topic"][..], &["topic"][..]),
        (
            "multilabel",
            multilabel,
            &minilm,
            &["text=body", "label=[rude, loud]", sets],
            &["rude", "loud"],
        ),
        ("score", score, &minilm, &["text=body", "label=[food, room]"], &["food", "room"]),
        ("tokens", tokens, &minilm, &[], &["tags"]),
        ("text", texts, &llama, &["kind=text"], &[]),
        ("write", writes, &llama, &["input=input", "target=target"], &["target"]),
    ] {
        let (run_dir, merged) = (format!("run_dir=out_{kind}"), format!("merged_{kind}"));
        let (train, from) = (format!("train={train}"), format!("dev={dev}"));
        let settings = ["run", &train, &from, &run_dir, "method=lora", "data=."];
        let usual = ["epochs=3", "batch_size=16", "precision=fp32", "device=cpu", "threads=1"];
        let output = aflora(place.path(), &[&settings[..], &usual, columns, model].concat());
        assert!(output.status.success(), "{kind}: {}", text(&output.stderr));
        let judged = format!("{kind}.json");
        let run_dir = &run_dir["run_dir=".len()..];
        for command in [
            &["evaluate", run_dir, &dev, "--output", &judged, "--device", "cpu"][..],
            &["merge", run_dir, &merged],
        ] {
            let output = aflora(place.path(), command);
            assert!(output.status.success(), "{kind}: {}", text(&output.stderr));
        }
        let ours = common::json(&place.path().join(&judged));
        let text =
            if kind == "write" { "input" } else { columns.first().map_or("tokens", |c| &c[5..]) };
        let script = root().join("crates/aflora-run/tests/fixtures/judged_by_transformers.py");
        let mut command = Command::new(&python);
        command.arg(&script).args([kind, &merged, &dev, text]).args(right);
        let output = command.current_dir(place.path()).env_remove("LD_LIBRARY_PATH").output();
        let theirs = lines(&output.unwrap()).remove(0);
        for (name, theirs) in theirs.as_object().unwrap() {
            let ours = match name.as_str() {
                "loss" => &ours["loss"],
                name => &ours["metrics"][name],
            };
            let (Some(a), Some(b)) = (ours.as_f64(), theirs.as_f64()) else {
                panic!("{kind}, {name}: {ours} and {theirs}");
            };
            assert!(
                (a - b).abs() < 1e-4 * b.abs().max(1e-2),
                "{kind}, {name}: {a}, but {b} of theirs"
            );
            let _ = writeln!(std::io::stderr(), "{kind}, {name}: {a} and {b}");
        }
    }
}
