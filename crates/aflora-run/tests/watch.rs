//! Watching a run: folders in every state, and the command where there is no terminal.

use aflora_run::watch::text::summary;
use aflora_run::watch::view::{Phase, Watched};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

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

fn aflora(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aflora")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_is_followed_from_an_empty_folder_to_its_end() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("mrpc-minilm-aflora-seed42");
    fs::create_dir(&folder).unwrap();
    let mut watched = Watched::open(&folder).unwrap();
    watched.look().unwrap();
    assert_eq!(watched.view().phase, Phase::Waiting);

    fs::write(folder.join("config.yaml"), "task: mrpc\n").unwrap();
    append(&folder, &format!("{BEGIN}\n{}\n{}", step(10), &step(20)[..20]));
    watched.look().unwrap();
    let view = watched.view();
    assert_eq!((view.phase.clone(), view.state.step), (Phase::Running, 10));
    assert!(summary(&view).contains("10 of 80 steps (12 %), epoch 0.2 of 2"), "{}", summary(&view));

    append(&folder, &format!("{}\n{EVALUATION}\n", &step(20)[20..]));
    watched.look().unwrap();
    let view = watched.view();
    assert_eq!(view.state.loss.points.len(), 2, "the half-written line counts once it is whole");
    assert!(summary(&view).contains("epoch 1: accuracy 0.7000, f1 undefined"));
    assert!(!watched.ended());

    let metrics = r#"{"selection":"accuracy","seconds":{"training":327.0}}"#;
    fs::write(folder.join("metrics.json"), metrics).unwrap();
    watched.look().unwrap();
    assert!(watched.ended());
    let words = summary(&watched.view());
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
    let view = watched.view();
    assert_eq!(view.phase, Phase::Evaluating);
    let words = summary(&view);
    assert!(words.contains(": evaluating\n") && words.contains("80 of 80 steps (99 %)"), "{words}");
    assert!(!words.contains(" left"), "{words}");

    append(place.path(), &(EVALUATION.replace("\"step\":40", "\"step\":80") + "\n"));
    watched.look().unwrap();
    assert_eq!(watched.view().phase, Phase::Running, "its adapter is being written");
    fs::write(place.path().join("metrics.json"), "{}").unwrap();
    watched.look().unwrap();
    assert!(summary(&watched.view()).contains("80 of 80 steps (100 %)"));
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
    assert!(summary(&watched.view()).contains("failed: the loss is NaN at step 30"));
    append(place.path(), &(step(20) + "\n"));
    watched.look().unwrap();
    assert_eq!((watched.view().phase, watched.view().state.step), (Phase::Running, 20));
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
    let pace = watched.view().pace.unwrap();
    assert!((0.38..=0.41).contains(&pace), "40 steps in 100 s: {pace}");
}

#[test]
fn without_a_terminal_the_command_prints_one_summary() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("config.yaml"), "").unwrap();
    append(&run, &format!("{BEGIN}\n{}\n", step(10)));
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
