//! A run over several processes: what it comes to is what one process comes to, up to rounding; what
//! ends it is said once, by name; and it goes on to the bit.

#[path = "../common/mod.rs"]
mod common;
mod spread;

use aflora_core::adapter::MethodConfig;
use common::stopping::{checkpoints, signal, wait_for};
use common::{aflora, assert_same, command, outcome, refused, small, text, workplace};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::Tensor;
use tempfile::TempDir;

/// The tiny models without dropout, which each process draws for itself.
fn place() -> TempDir {
    let place = workplace();
    let path = place.path().join("minilm/config.json");
    let mut bert = common::json(&path);
    for key in ["attention_probs_dropout_prob", "hidden_dropout_prob"] {
        bert[key] = 0.0.into();
    }
    fs::write(path, bert.to_string()).unwrap();
    place
}

/// `aflora launch` of so many processes, not yet started.
fn launched(place: &Path, processes: usize, arguments: &[&str]) -> Command {
    let number = processes.to_string();
    command(place, &[&["launch", "--nproc", &number, "--timeout", "60"], arguments].concat())
}

fn launch(place: &Path, processes: usize, more: &[&str]) -> Output {
    launched(place, processes, &small(more)).output().unwrap()
}

fn good(output: &Output) -> String {
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// The recorded losses of a run's steps.
fn losses(run: &Path) -> Vec<f64> {
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|e| e["event"] == "step").filter_map(|e| e["loss"].as_f64()).collect()
}

fn tensors(run: &Path) -> Vec<(String, Tensor)> {
    let file = run.join("adapter/adapter_model.safetensors");
    let mut all = Tensor::read_safetensors(file).unwrap();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Runs of one and of several processes with the same settings must come to the same, up to rounding.
fn alike(place: &Path, name: &str, processes: &[usize], more: &[&str]) {
    let run_dir = |n: usize| format!("run_dir={name}-{n}");
    let all = ["log_every=1", "checkpoint_every=never"];
    let one = run_dir(1);
    good(&aflora(place, &small(&[&all, more, &[&one]].concat())));
    let one = place.join(format!("{name}-1"));
    for &n in processes {
        let several = run_dir(n);
        good(&launch(place, n, &[&all, more, &[&several]].concat()));
        let several = place.join(format!("{name}-{n}"));
        let (a, b) = (losses(&one), losses(&several));
        assert_eq!(a.len(), b.len(), "{name}");
        for (step, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!((a - b).abs() < 2e-3 * a.abs().max(0.1), "{name}, {n}, step {step}: {a}, {b}");
        }
        for ((key, a), (_, b)) in tensors(&one).iter().zip(tensors(&several)) {
            assert_eq!(a.size(), b.size(), "{name}, {key}");
            if a.numel() == 0 {
                continue; // A layer whose ranks were all taken.
            }
            let far = (a - b).abs().max().double_value(&[]);
            assert!(far < 1e-2, "{name}, {n} processes, {key}: {far}");
        }
        let (a, b) =
            (common::json(&one.join("metrics.json")), common::json(&several.join("metrics.json")));
        assert_eq!(a["steps"], b["steps"]);
        let metrics = |of: &Value| of["best"]["metrics"].as_object().unwrap().clone();
        for (metric, value) in metrics(&a) {
            let far = value.as_f64().unwrap() - metrics(&b)[&metric].as_f64().unwrap();
            // Ranks of predictions that are nearly equal go by their rounding.
            let limit = if metric == "spearman" { 1e-2 } else { 1e-3 };
            assert!(far.abs() < limit, "{name}, {n} processes, {metric}: {far}");
        }
        assert_eq!(a["parameters"], b["parameters"], "{name}, {n}");
    }
}

/// 50 updates of 16 rows, of which the last of an epoch has fewer, in two passes each.
const FIFTY: [&str; 5] = ["task=mrpc", "max_steps=50", "batch_size=10", "accumulate=2", "lr=1e-3"];

#[test]
fn every_method_comes_to_the_same_on_several_processes() {
    let place = place();
    let mut left = MethodConfig::NAMES.to_vec();
    for (method, processes) in [
        ("aflora", &[2, 3][..]),
        ("adalora", &[2]),
        ("sora", &[2]),
        ("aflora-rank", &[2]),
        ("lora-freeze", &[2]),
        ("dora", &[2]),
        ("elora", &[2]),
        ("vera", &[2]),
        ("bitfit", &[2]),
        ("head", &[2]),
    ] {
        let method_is = format!("method={method}");
        // What is rounded adds up over the longest run; that a method is made for several, the first steps show.
        let steps: &[&str] = if method == "aflora" { &[] } else { &["max_steps=20"] };
        let settings = [&FIFTY[..], &[&method_is], steps].concat();
        alike(place.path(), method, processes, &settings);
        left.retain(|name| name.replace('_', "-") != method);
    }
    assert_eq!(left, ["lora", "full"], "these have tests of their own");
}

/// Gives `place` a task of texts that are written for texts, `lines`.
fn lines_task(place: &Path) {
    let row = |i: usize| {
        let words =
            |n: usize| ["one", "twenty", "three hundred and", "four", "five"][..n].join(" ");
        json!({ "input": words(1 + i % 5), "target": words(1 + i * 3 % 5) }).to_string()
    };
    let lines: Vec<String> = (0..11).map(row).collect();
    fs::create_dir(place.join("lines")).unwrap();
    for split in ["train", "dev"] {
        fs::write(place.join(format!("lines/{split}.jsonl")), lines.join("\n")).unwrap();
    }
}

/// Texts are split by their tokens, packed or not, and what is written for each row is gathered.
#[test]
fn texts_come_to_the_same_on_several_processes() {
    let place = place();
    lines_task(place.path());
    let texts = ["task=lines", "model=tiny-llama", "max_length=48", "epochs=2", "batch_size=4"];
    for (name, more) in [("each", &["method=lora"][..]), ("packed", &["task.packing=true"])] {
        alike(place.path(), name, &[3], &[&texts[..], more].concat());
        let written = |n: usize| {
            let path = format!("{name}-{n}/predictions-dev-epoch2.jsonl");
            let text = fs::read_to_string(place.path().join(path)).unwrap();
            let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            rows.map(|row| row["target"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(written(1).len(), 11);
        assert_eq!(written(1), written(3), "in order");
    }
}

#[test]
fn weighed_classes_and_full_fine_tuning_come_to_the_same_on_several_processes() {
    let place = place();
    let weighed = ["method=lora", "task.class_weights=[1.0, 3.0]"];
    alike(place.path(), "weighed", &[3], &[&FIFTY[..], &weighed].concat());
    let full = ["method=full", "task=stsb", "lr=1e-4"];
    alike(place.path(), "full", &[2], &[&FIFTY[..], &full].concat());
}

/// What a run left, but for the logs of the processes that only went along.
fn left(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = outcome(run);
    found.retain(|name, _| !name.starts_with("process-"));
    found
}

/// Settings of a run that takes some seconds, with dropout and matrices that freeze.
const LONG: [&str; 6] = [
    "task=judged.yaml",
    "method=aflora",
    "method.dropout=0.1",
    "epochs=16",
    "log_every=1",
    "checkpoint_every=4 steps",
];

fn started(place: &Path, processes: usize, more: &[&str]) -> Child {
    launched(place, processes, &small(&[&LONG[..], more].concat()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The processes that a launcher started, in their order.
fn children(of: &Child) -> Vec<i32> {
    let id = of.id();
    let said = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    said.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn a_run_of_several_processes_survives_the_death_of_one_to_the_bit() {
    let place = place();
    common::judged_task(place.path());
    let whole = started(place.path(), 2, &["run_dir=whole"]).wait_with_output().unwrap();
    good(&whole);
    let run = place.path().join("broken");
    let on_its_way = || {
        let child = started(place.path(), 2, &["run_dir=broken"]);
        let length = || fs::metadata(run.join("events.jsonl")).map_or(0, |about| about.len());
        let before = length();
        wait_for("a checkpoint and further steps", || {
            !checkpoints(&run).is_empty() && length() > before + 300
        });
        child
    };
    for (victim, by) in [(1, 9), (0, 9), (1, 6)] {
        let child = on_its_way();
        let victim_id = children(&child)[victim];
        let since = Instant::now();
        // SAFETY: the launcher has not waited for it: it has not ended.
        assert_eq!(unsafe { libc::kill(victim_id, by) }, 0);
        let output = child.wait_with_output().unwrap();
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        let named = format!("error: process {victim} was ended by signal {by}, and all with it");
        refused(&output, 1, &named);
        let said = text(&output.stderr);
        assert_eq!(said.matches("error:").count(), 1, "one message: {said}");
    }
    // A signal to the launcher stops all behind one step.
    let child = on_its_way();
    signal(&child, libc::SIGINT);
    let output = child.wait_with_output().unwrap();
    refused(&output, 130, "stopped by SIGINT; the same command goes on from there");
    assert_eq!(text(&output.stderr).matches("stopped by").count(), 1);
    let output = started(place.path(), 2, &["run_dir=broken"]).wait_with_output().unwrap();
    let said = good(&output);
    assert!(said.contains("goes on behind step"), "{said}");
    assert!(text(&output.stdout).contains("test_accuracy"), "process 0 prints the result");
    assert_same(&left(&place.path().join("whole")), &left(&run), "killed and gone on");
    let log = fs::read_to_string(run.join("process-1.log")).unwrap();
    assert!(log.contains("2 processes train together"), "{log}");
}

#[test]
fn a_run_goes_on_with_another_number_of_processes_and_says_so() {
    let place = place();
    let settings = ["task=mrpc", "method=lora", "log_every=1", "checkpoint_every=1 epoch"];
    let short = [&settings[..], &["epochs=4", "run_dir=out"]].concat();
    let mut child =
        launched(place.path(), 3, &small(&short)).stderr(Stdio::null()).spawn().unwrap();
    let run = place.path().join("out");
    wait_for("a checkpoint", || !checkpoints(&run).is_empty());
    for id in children(&child) {
        // SAFETY: the launcher has not waited for it, or it is gone and the number is nobody's yet.
        let _ = unsafe { libc::kill(id, 9) };
    }
    child.wait().unwrap();
    let output = aflora(place.path(), &small(&short));
    let said = good(&output);
    assert!(said.contains("was done by 3 processes before and goes on with 1"), "{said}");
    let provenance = common::json(&run.join("provenance.json"));
    assert_eq!(provenance["processes"], 3);
    good(&aflora(place.path(), &small(&[&settings[..], &["epochs=4", "run_dir=one"]].concat())));
    let (a, b) = (losses(&place.path().join("one")), losses(&run));
    assert_eq!(a.len(), b.len());
    for (step, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() < 1e-3, "the same rows in the same order; step {step}: {a}, {b}");
    }
}

#[test]
fn what_is_wrong_is_said_once_and_with_its_code() {
    let place = place();
    let output = launch(place.path(), 2, &["task=mrpc", "lr=abc", "run_dir=out"]);
    refused(&output, 2, "`lr` is the text");
    let said = text(&output.stderr);
    assert_eq!(said.matches("`lr` is the text").count(), 1, "{said}");
    assert!(!said.contains("process"), "{said}");
    assert!(!place.path().join("out").exists());
}

#[test]
fn half_an_environment_and_a_wrong_launch_are_refused() {
    let place = place();
    let mut bare = command(place.path(), &small(&["task=mrpc", "run_dir=out"]));
    refused(&bare.env("RANK", "0").output().unwrap(), 2, "WORLD_SIZE, MASTER_ADDR, MASTER_PORT");
    let other = launched(place.path(), 2, &["predict", "out", "rows.csv"]).output().unwrap();
    refused(&other, 2, "aflora launch takes `run`");
    let mut far = command(place.path(), &["launch", "--nproc", "1", "--nnodes", "2", "run", "a=b"]);
    refused(&far.output().unwrap(), 2, "--master HOST:PORT");
    let arguments = ["launch", "--nproc", "2", "--timeout", "0", "run", "a=b"];
    let mut hasty = command(place.path(), &arguments);
    refused(&hasty.output().unwrap(), 2, "--timeout 0: name 0.1 to 1000000 seconds");
}

/// `batch_size: auto` on GPUs of several sizes: this test's own program, started as each process.
#[test]
fn what_fits_is_what_fits_on_the_smallest_gpu() {
    if let Ok(name) = std::env::var("AFLORA_TEST_LEAST") {
        let world = aflora_run::launch::join().unwrap();
        assert_eq!((world.size(), name.as_str()), (3, "least"));
        let found = [24, 8, 16][world.rank()];
        assert_eq!(aflora_run::run::memory::least(&world, found).unwrap(), 8);
        return world.leave().unwrap();
    }
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["what_fits_is_what_fits_on_the_smallest_gpu", "--exact"])
            .env("AFLORA_TEST_LEAST", "least")
            .envs([("RANK", rank.to_string()), ("MASTER_PORT", port.to_string())])
            .envs([("WORLD_SIZE", "3"), ("MASTER_ADDR", "127.0.0.1"), ("OMP_NUM_THREADS", "1")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<Child> = (0..3).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stdout));
        assert!(text(&output.stdout).contains("1 passed"));
    }
}
