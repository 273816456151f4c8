//! Runs that are stopped on the way, and what they leave.

use super::{command, small};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

/// Settings of a run that takes some seconds.
pub const RUN: [&str; 5] =
    ["task=mrpc", "method.dropout=0.1", "epochs=16", "log_every=1", "run_dir=out"];
pub const OFTEN: &str = "checkpoint_every=4 steps";

pub fn start(place: &Path, more: &[&str]) -> Child {
    command(place, &small(more)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until something is so, for at most a minute.
pub fn wait_for(what: &str, so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: it never came");
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoint")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("step-"));
    found.sort_by_key(|path| step_of(path));
    found
}

pub fn step_of(checkpoint: &Path) -> u64 {
    let name = checkpoint.file_name().unwrap().to_string_lossy().into_owned();
    name.split('-').nth(1).unwrap().parse().unwrap()
}

pub fn signal(child: &Child, signal: i32) {
    // SAFETY: the child is not waited for yet, so its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// A run that got some checkpoints and was then stopped by `signal`.
pub fn stopped(place: &Path, by: i32, more: &[&str]) -> Output {
    let child = start(place, &[&RUN[..], more].concat());
    wait_for("two checkpoints", || checkpoints(&place.join("out")).len() == 2);
    signal(&child, by);
    child.wait_with_output().unwrap()
}
