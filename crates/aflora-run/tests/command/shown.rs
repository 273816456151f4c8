//! `aflora report` and `aflora watch`, as commands: what they print, and how they end.

use crate::common::{aflora, refused, root, text};
use std::fs;

#[test]
fn a_damaged_results_file_ends_a_report_with_code_1_and_none_with_code_2() {
    let place = tempfile::tempdir().unwrap();
    refused(&aflora(place.path(), &["report", "."]), 2, "looked for *.json");
    let good = root().join("experiments/results/figure5-small.json");
    fs::copy(good, place.path().join("good.json")).unwrap();
    let output = aflora(place.path(), &["report", "good.json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in ["good.md", "good.csv", "report.html"] {
        assert!(text(&output.stdout).lines().any(|line| line == name), "{name}");
    }
    fs::write(place.path().join("bad.json"), "{\"experiment\": ").unwrap();
    let output = aflora(place.path(), &["report", "."]);
    refused(&output, 1, "bad.json is no file of results: EOF");
    assert!(text(&output.stdout).contains("good.md"), "the others are rendered");
}

#[test]
fn without_a_terminal_the_command_prints_one_summary() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("config.yaml"), "").unwrap();
    let begin = r#"{"event":"begin","total_steps":80,"steps_per_epoch":40,"selection":"f1"}"#;
    let step = r#"{"event":"step","step":10,"loss":0.5,"lr":0.01,"grad_norm":1.5,"trainable":9}"#;
    fs::write(run.join("events.jsonl"), format!("{begin}\n{step}\n")).unwrap();
    let output = aflora(place.path(), &["watch", "run"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let words = text(&output.stdout);
    assert!(words.starts_with("run: running\n  progress     10 of 80 steps"), "{words}");
    assert!(!words.contains('\u{1b}'), "no control sequences");
}

#[test]
fn what_is_no_run_is_a_wrong_call() {
    let place = tempfile::tempdir().unwrap();
    let output = aflora(place.path(), &["watch", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no such run folder"));
    fs::write(place.path().join("something"), "").unwrap();
    let output = aflora(place.path(), &["watch", "."]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no config.yaml"));
}
