//! What the program makes of the machine: its processors, how threads wait for them, and bf16.

mod common;

use common::{command, json, run, small, text, workplace};
use std::fs;
use std::time::{Duration, Instant};

/// The environment of a run under way that was started with `variables`.
fn environment(variables: &[(&str, &str)]) -> String {
    let place = workplace();
    let mut command = command(place.path(), &small(&["task=mrpc", "epochs=10000", "run_dir=out"]));
    for name in ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    let log = fs::File::create(place.path().join("log")).unwrap();
    let mut child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let started = Instant::now();
    while !place.path().join("out/events.jsonl").exists() {
        let log = fs::read_to_string(place.path().join("log")).unwrap();
        assert!(started.elapsed() < Duration::from_secs(60), "it never trained: {log}");
        assert!(child.try_wait().unwrap().is_none(), "it ended: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let environment = fs::read(format!("/proc/{}/environ", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    text(&environment).replace('\0', "\n")
}

#[test]
fn threads_do_not_spin_for_long_on_a_busy_machine() {
    assert!(environment(&[]).contains("\nGOMP_SPINCOUNT=10000\n"));
    let own = environment(&[("OMP_WAIT_POLICY", "ACTIVE")]);
    assert!(!own.contains("GOMP_SPINCOUNT"), "the user's own setting comes first: {own}");
}

#[test]
fn more_threads_than_processors_are_not_started() {
    let place = workplace();
    let output = run(place.path(), &["task=mrpc", "threads=500", "run_dir=out"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let processors = std::thread::available_parallelism().unwrap();
    let told = format!("threads is 500, but this process has {processors} processors");
    assert!(text(&output.stderr).contains(&told), "{}", text(&output.stderr));
    let device = json(&place.path().join("out/metrics.json"))["device"].to_string();
    assert!(device.contains(&format!("({processors} threads)")), "{device}");
}

/// It cost a small model five times the memory and twice the time.
#[test]
fn a_small_model_is_not_held_in_bf16_on_a_cpu() {
    let place = workplace();
    let result = |precision: &str, name: &str| {
        let run_dir = format!("run_dir={name}");
        let output = run(place.path(), &["task=mrpc", precision, &run_dir]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let metrics = json(&place.path().join(name).join("metrics.json"));
        metrics["best"]["loss"].as_f64().unwrap()
    };
    let auto = result("precision=auto", "auto");
    assert_eq!(auto, result("precision=fp32", "fp32"));
    assert_ne!(auto, result("precision=bf16", "bf16"));
}
