//! A run over several processes: what it comes to is what one process comes to, up to rounding; what
//! ends it is said once, by name; and it goes on to the bit.

mod common;

use aflora_core::adapter::{Lora, Method, Role};
use aflora_core::optim::Parameter;
use aflora_core::{Span, Tuner, TunerConfig};
use aflora_cuda::{Place, World};
use common::stopping::signal;
use common::{aflora, assert_same, command, json, outcome, refused, small, text, workplace};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// The tiny models without dropout, which each process draws for itself.
fn place() -> TempDir {
    let place = workplace();
    let path = place.path().join("minilm/config.json");
    let mut bert = json(&path);
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
            let far = (a - b).abs().max().double_value(&[]);
            assert!(far < 1e-2, "{name}, {n} processes, {key}: {far}");
        }
        let (a, b) = (json(&one.join("metrics.json")), json(&several.join("metrics.json")));
        assert_eq!(a["steps"], b["steps"]);
        assert_eq!(a["best"]["metrics"], b["best"]["metrics"], "{name}, {n}");
        assert_eq!(a["parameters"], b["parameters"], "{name}, {n}");
    }
}

/// 50 updates of 16 rows, of which the last of an epoch has fewer, in two passes each.
const FIFTY: [&str; 5] = ["task=mrpc", "max_steps=50", "batch_size=10", "accumulate=2", "lr=1e-3"];

#[test]
fn every_method_comes_to_the_same_on_several_processes() {
    let place = place();
    for (method, processes) in
        [("aflora", &[2, 3][..]), ("adalora", &[2]), ("sora", &[2]), ("aflora-rank", &[2])]
    {
        let method_is = format!("method={method}");
        alike(place.path(), method, processes, &[&FIFTY[..], &[&method_is]].concat());
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
