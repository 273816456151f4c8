//! `aflora evaluate`: a finished run judged on rows of a file.

use crate::common::{aflora, json, refused, run, text, workplace};
use std::fs;
use std::path::Path;
use std::process::Output;

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn evaluate(place: &Path, input: &str, more: &[&str]) -> Output {
    aflora(place, &[&["evaluate", "out", input, "--data", "."], more].concat())
}

#[test]
fn the_rows_of_the_dev_split_are_judged_as_the_run_judged_them() {
    let place = workplace();
    let metrics = "task.metrics=[f1_macro, roc_auc, accuracy]";
    ok(&run(place.path(), &["task=mrpc", "run_dir=out", metrics]));
    let before = fs::read(place.path().join("out/metrics.json")).unwrap();
    let more = ["--output", "judged.json", "--device", "cpu"];
    let printed = ok(&evaluate(place.path(), "glue/MRPC/dev.tsv", &more));
    assert_eq!(fs::read(place.path().join("out/metrics.json")).unwrap(), before);

    let (summary, judged) =
        (json(&place.path().join("out/metrics.json")), json(&place.path().join("judged.json")));
    assert_eq!(judged["rows"], 96);
    let best = &summary["best"];
    for name in ["f1_macro", "roc_auc", "accuracy"] {
        let values = [best, &judged].map(|of| of["metrics"][name].as_f64().unwrap());
        assert!((values[0] - values[1]).abs() < 1e-12, "{name}: {values:?}");
        assert!(printed.contains(&format!("{:.4}", values[0])), "{printed}");
    }
    assert!((best["loss"].as_f64().unwrap() - judged["loss"].as_f64().unwrap()).abs() < 1e-5);
    assert_eq!(judged["by_class"]["classes"], summary["by_class"][0]["classes"]);
    assert_eq!(judged["by_class"]["confusion"], summary["by_class"][0]["confusion"]);

    // By lines: rows, three metrics, the loss; a table of classes; the confusion matrix.
    let parts: Vec<&str> = printed.split("\n\n").collect();
    assert_eq!(parts.iter().map(|part| part.lines().count()).collect::<Vec<_>>(), [5, 3, 3]);
    let names: Vec<&str> = printed.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(names[..5], ["rows", "f1_macro", "roc_auc", "accuracy", "loss"]);
    let counts: Vec<u64> = parts[2]
        .lines()
        .skip(1)
        .flat_map(|line| line.split_whitespace().skip(1).map(|n| n.parse::<u64>().unwrap()))
        .collect();
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (4, 96));
}

#[test]
fn classes_go_by_the_task_s_values_or_by_their_names_under_either_column() {
    let place = workplace();
    ok(&run(place.path(), &["task=mrpc", "run_dir=out"]));
    let judged = |name: &str, content: &str| {
        fs::write(place.path().join(name), content).unwrap();
        let out = ok(&evaluate(place.path(), name, &["--output", "-", "--device", "cpu"]));
        let mut judged: serde_json::Value = serde_json::from_str(&out).unwrap();
        // Both are told with the file's own name.
        judged["by_class"]["split"] = "".into();
        judged["doubts"] = serde_json::json!([]);
        judged
    };
    let first = judged("a.csv", "Quality,text_a,text_b\n1,film is good,it was\n0,one,it was\n");
    let named =
        "{\"label\": \"equivalent\", \"text_a\": \"film is good\", \"text_b\": \"it was\"}\n\
                 {\"label\": \"not_equivalent\", \"text_a\": \"one\", \"text_b\": \"it was\"}\n";
    assert_eq!(judged("b.jsonl", named), first);
    assert_eq!(first["rows"], 2);

    fs::write(place.path().join("c.csv"), "label,text_a,text_b\nmaybe,a,b\n").unwrap();
    let output = evaluate(place.path(), "c.csv", &[]);
    refused(&output, 1, "c.csv, line 2: the label is `maybe`, but must be one of");
    fs::write(place.path().join("d.csv"), "text_a,text_b\na,b\n").unwrap();
    let output = evaluate(place.path(), "d.csv", &[]);
    refused(&output, 1, "d.csv, line 2: there is no `Quality`, only");
    refused(&output, 1, "what is right stands under that name, or under `label`");
    fs::write(place.path().join("f.csv"), "label,text_a,text_b\nequivalnt,a,b\n").unwrap();
    refused(&evaluate(place.path(), "f.csv", &[]), 1, "did you mean `equivalent`?");
    let over = evaluate(place.path(), "d.csv", &["--output", "d.csv"]);
    refused(&over, 2, "d.csv is the input");
    fs::write(place.path().join("e.csv"), "text_a,text_b,label\n").unwrap();
    refused(&evaluate(place.path(), "e.csv", &[]), 1, "e.csv: there are no examples in it");
}

#[test]
fn scores_are_judged_by_their_own_metrics() {
    let place = workplace();
    let metrics = "task.metrics=[mae, spearman]";
    ok(&run(place.path(), &["task=stsb", "run_dir=out", metrics]));
    let printed = ok(&evaluate(place.path(), "glue/STS-B/dev.tsv", &["--device", "cpu"]));
    let best = &json(&place.path().join("out/metrics.json"))["best"]["metrics"];
    let mae = format!("{:.4}", best["mae"].as_f64().unwrap());
    let line = printed.lines().find(|line| line.starts_with("mae")).unwrap();
    assert!(line.ends_with(&mae) && printed.lines().count() == 4, "{printed}");
}

#[test]
fn what_predict_wrote_is_no_judge_of_itself() {
    let place = workplace();
    ok(&run(place.path(), &["task=mrpc", "run_dir=out"]));
    fs::write(place.path().join("new.csv"), "text_a,text_b\nthe film is good,it was bad\n")
        .unwrap();
    let predict = ["predict", "out", "new.csv", "--data", ".", "--output", "said.csv"];
    ok(&aflora(place.path(), &predict));
    let words = "said.csv, line 2: `label` and `scores` are what predict wrote of the row";
    refused(&evaluate(place.path(), "said.csv", &[]), 1, words);
    // With what is right under the task's own name, its rows can be judged.
    let said = fs::read_to_string(place.path().join("said.csv")).unwrap();
    let mut lines = said.lines();
    let (names, row) = (lines.next().unwrap(), lines.next().unwrap());
    fs::write(place.path().join("both.csv"), format!("{names},Quality\n{row},1\n")).unwrap();
    assert!(ok(&evaluate(place.path(), "both.csv", &[])).contains("accuracy"));
}
