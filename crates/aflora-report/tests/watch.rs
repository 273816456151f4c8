//! Watching a run: folders in every state.

use aflora_record::summary::{FlopsPerToken, Operations, Parameters, Times};
use aflora_record::{Evaluation, Selection, Summary};
use aflora_report::watch::snapshot::{Phase, Watched};
use aflora_report::watch::text::summary;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

const BEGIN: &str = r#"{"event":"begin","total_steps":80,"steps_per_epoch":40,"selection":"f1"}"#;
const EVALUATION: &str = r#"{"event":"evaluation","step":40,"epoch":1.0,"metrics":{"accuracy":0.7,"f1":null},"loss":0.4,"seconds":1.0}"#;

fn step(step: u64) -> String {
    format!(
        r#"{{"event":"step","step":{step},"loss":0.5,"lr":0.01,"grad_norm":1.5,"trainable":1234}}"#
    )
}

fn append(folder: &Path, text: &str) {
    let path = folder.join("events.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Of a run that took 327 seconds of training.
fn finished(evaluation: &str) -> Summary {
    let last: Evaluation = serde_json::from_str(evaluation).unwrap();
    let none = Operations { forward: 0, backward: 0 };
    Summary {
        task: "mrpc".into(),
        model: "minilm".into(),
        method: "aflora".into(),
        seed: 42,
        selection: Selection::highest("accuracy"),
        by_class: Vec::new(),
        best: last.clone(),
        last: last.clone(),
        evaluations: vec![last],
        parameters: Parameters { at_start: 9, at_end: 9, time_average: 9.0, head: 1 },
        steps: 80,
        test: None,
        early_stop: None,
        skipped_steps: 0,
        flops_per_token: FlopsPerToken {
            frozen_weights: none,
            paths_at_start: none,
            paths_at_end: none,
        },
        device: "cpu".into(),
        seconds: Times { training: 327.0, evaluation: 1.0, median_step: 0.1 },
        tokens_per_second: 1.0,
        peak_memory: None,
        peak_tensors: None,
    }
}

#[test]
fn a_run_is_followed_from_an_empty_folder_to_its_end() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("mrpc-minilm-aflora-seed42");
    fs::create_dir(&folder).unwrap();
    let mut watched = Watched::open(&folder).unwrap();
    watched.look().unwrap();
    assert_eq!(watched.snapshot().phase, Phase::Waiting);

    fs::write(folder.join("config.yaml"), "task: mrpc\n").unwrap();
    append(&folder, &format!("{BEGIN}\n{}\n{}", step(10), &step(20)[..20]));
    watched.look().unwrap();
    let snapshot = watched.snapshot();
    assert_eq!((snapshot.phase.clone(), snapshot.history.step), (Phase::Running, 10));
    assert!(
        summary(&snapshot).contains("10 of 80 steps (12 %), epoch 0.2 of 2"),
        "{}",
        summary(&snapshot)
    );

    append(&folder, &format!("{}\n{EVALUATION}\n", &step(20)[20..]));
    watched.look().unwrap();
    let snapshot = watched.snapshot();
    assert_eq!(snapshot.history.points.len(), 2, "the half-written line counts once it is whole");
    assert!(summary(&snapshot).contains("epoch 1: accuracy 0.7000, f1 undefined"));
    assert!(!watched.ended());

    finished(EVALUATION).write(&folder).unwrap();
    watched.look().unwrap();
    assert!(watched.ended());
    let words = summary(&watched.snapshot());
    for part in ["seed42: finished", "5 min 27 s of training", "dev loss 0.4000  (best)"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[test]
fn a_run_that_evaluates_is_not_all_done() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("config.yaml"), "").unwrap();
    append(place.path(), &format!("{BEGIN}\n{}\n{EVALUATION}\n{}\n", step(40), step(80)));
    let mut watched = Watched::open(place.path()).unwrap();
    watched.look().unwrap();
    let snapshot = watched.snapshot();
    assert_eq!(snapshot.phase, Phase::Evaluating);
    let words = summary(&snapshot);
    assert!(words.contains(": evaluating\n") && words.contains("80 of 80 steps (99 %)"), "{words}");
    assert!(!words.contains(" left"), "{words}");

    append(place.path(), &(EVALUATION.replace("\"step\":40", "\"step\":80") + "\n"));
    watched.look().unwrap();
    assert_eq!(watched.snapshot().phase, Phase::Running, "its adapter is being written");
    fs::write(place.path().join("metrics.json"), "of another version").unwrap();
    watched.look().unwrap();
    assert!(summary(&watched.snapshot()).contains("80 of 80 steps (100 %)"));
}

#[test]
fn a_failed_run_says_why_until_it_is_resumed() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("config.yaml"), "").unwrap();
    let failed = r#"{"event":"failed","error":"the loss is NaN at step 30"}"#;
    append(place.path(), &format!("{}\n{failed}\n", step(30)));
    let mut watched = Watched::open(place.path()).unwrap();
    watched.look().unwrap();
    assert!(watched.ended());
    assert!(summary(&watched.snapshot()).contains("failed: the loss is NaN at step 30"));
    append(place.path(), &(step(20) + "\n"));
    watched.look().unwrap();
    assert_eq!((watched.snapshot().phase, watched.snapshot().history.step), (Phase::Running, 20));
}

#[test]
fn the_average_pace_comes_from_the_start_of_the_run() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("config.yaml"), "").unwrap();
    append(place.path(), &format!("{BEGIN}\n{}\n", step(40)));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let started = now.as_secs() - 100;
    let provenance = format!(r#"{{"environment":{{"started_unix":{started}}}}}"#);
    fs::write(place.path().join("provenance.json"), provenance).unwrap();
    let mut watched = Watched::open(place.path()).unwrap();
    watched.look().unwrap();
    let pace = watched.snapshot().pace.unwrap();
    assert!((0.38..=0.41).contains(&pace), "40 steps in 100 s: {pace}");
}
