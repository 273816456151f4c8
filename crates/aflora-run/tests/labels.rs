//! The labels of `predict` are those that transformers gives with what `merge` and `export` wrote.

mod common;

use common::{aflora, root, run, text, workplace};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::{Command, Output};

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where `AFLORA_PEFT_PYTHON` names a Python that has transformers and PEFT.
#[test]
fn transformers_gives_the_labels_of_predict_with_what_merge_and_export_wrote() {
    let Some(python) = std::env::var_os("AFLORA_PEFT_PYTHON") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped, it needs a Python with peft and transformers: AFLORA_PEFT_PYTHON=python"
        );
        return;
    };
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
