//! What the program makes of the machine: its processors, how threads wait for them, and bf16.

use crate::common::{aflora, command, json, refused, run, small, text, workplace};
use serde_json::Value;
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

/// Then the program that the process runs is the loader, and not to be started again.
#[test]
fn a_loader_that_is_called_by_name_starts_the_program() {
    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    let place = workplace();
    let program = command(place.path(), &["--version"]).get_program().to_owned();
    let mut command = std::process::Command::new(LOADER);
    let output = command.arg(program).arg("--version").env_remove("GOMP_SPINCOUNT").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("aflora "), "{}", text(&output.stdout));
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

/// `aflora doctor --json`, in a folder of its own.
fn doctor(place: &std::path::Path, more: &[&str], variables: &[(&str, &str)]) -> (i32, Value) {
    let mut command = command(place, &[&["doctor", "--json"], more].concat());
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

fn of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["of"] == name).unwrap()
}

#[test]
fn the_doctor_finds_what_runs_use_and_a_gpu_is_not_needed() {
    let place = tempfile::tempdir().unwrap();
    let (code, report) = doctor(place.path(), &[], &[("CUDA_VISIBLE_DEVICES", "")]);
    assert_eq!((code, &report["works"]), (0, &true.into()), "{report:#}");
    let version = of(&report, "libtorch")["values"]["version"].as_str().unwrap();
    assert!(version.starts_with("2."), "{version}");
    assert_eq!(of(&report, "GPU")["state"], "less");
    assert!(of(&report, "GPU")["found"].as_str().unwrap().starts_with("none, runs use the CPU"));
    assert!(of(&report, "GPU")["remedy"].is_string());
    assert_eq!(of(&report, "computing")["state"], "good");
    assert!(of(&report, "run folder")["values"]["free"].as_u64().unwrap() > 0);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn the_doctor_ends_with_1_where_no_run_can_be_written() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let (code, report) = doctor(place.path(), &["file/runs"], &[]);
    assert_eq!((code, &report["works"]), (1, &false.into()), "{report:#}");
    assert_eq!(of(&report, "run folder")["state"], "missing");
    let output = aflora(place.path(), &["doctor", "file/runs"]);
    refused(&output, 1, "cannot work here");
    assert!(text(&output.stdout).contains("name another folder: run_dir="));
}

#[test]
fn the_doctor_shows_no_secret() {
    let place = tempfile::tempdir().unwrap();
    let secrets = [("HF_TOKEN", "hf_secret"), ("HF_ENDPOINT", "https://me:hf_secret@hub.example")];
    let (code, report) = doctor(place.path(), &[], &secrets);
    assert_eq!(code, 0);
    assert_eq!(of(&report, "hub")["values"]["token"], true);
    assert_eq!(of(&report, "hub")["values"]["address"], "https://hub.example");
    assert!(!report.to_string().contains("hf_secret"), "{report:#}");
}
