//! Short runs whose losses are stored: what changes a number shows here, and must say why.
//!
//! A change that means to alter them writes them anew with
//! `UPDATE_LOSSES=1 cargo test -p aflora-run --test command loss_series`, and its commit says the reason.
//! `scripts/fingerprints.sh` is the stricter measure: to the bit, on one machine.

use crate::common::{aflora, root, text, workplace, CONFIG, SMALL};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every loss that a run recorded: of training, step by step, and of its evaluations.
fn losses(run: &Path) -> Vec<f64> {
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    events.lines().filter_map(|line| event(line)["loss"].as_f64()).collect()
}

/// The losses of a run in `place`.
fn series(place: &Path, out: &Path, settings: &[&str]) -> Vec<f64> {
    let run_dir = format!("run_dir={}", out.display());
    let common = ["run", CONFIG, &run_dir, "log_every=1", "device=cpu"];
    let output = aflora(place, &[&common[..], settings].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    losses(out)
}

#[test]
fn short_runs_have_the_losses_that_are_stored() {
    let (pairs, out) = (workplace(), tempfile::tempdir().unwrap());
    let writes = ["task=lines", "limit=48", "eval_limit=8", "epochs=4", "batch_size=16"];
    let writes = [&writes[..], &["max_length=24", "threads=1", "precision=fp32"]].concat();
    let labels = [&SMALL[..], &["data=."]].concat();
    let project = root();
    let mut found = BTreeMap::new();
    for (name, place, settings, more) in [
        ("mrpc-aflora", pairs.path(), &labels, ["task=mrpc", "lr=1e-2"]),
        ("mrpc-adalora", pairs.path(), &labels, ["task=mrpc", "method=adalora"]),
        ("stsb-lora", pairs.path(), &labels, ["task=stsb", "method=lora"]),
        ("lines-bart", project.as_path(), &writes, ["model=tiny-bart", "method=aflora"]),
        ("lines-llama", project.as_path(), &writes, ["model=tiny-llama", "method=elora"]),
    ] {
        let run = out.path().join(name);
        found.insert(name.to_string(), series(place, &run, &[&settings[..], &more].concat()));
    }

    let stored = root().join("crates/aflora-run/tests/fixtures/loss_series.json");
    if std::env::var_os("UPDATE_LOSSES").is_some() {
        fs::write(&stored, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let right: BTreeMap<String, Vec<f64>> =
        serde_json::from_str(&fs::read_to_string(stored).unwrap()).unwrap();
    assert!(found.keys().eq(right.keys()));
    for (name, right) in right {
        let found = &found[&name];
        assert_eq!(found.len(), right.len(), "{name}");
        for (step, (found, right)) in found.iter().zip(&right).enumerate() {
            // Processors sum in orders of their own.
            let off = (found - right).abs() / right.abs().max(1e-3);
            assert!(off < 1e-3, "{name}, loss {step}: {found}, but {right} is stored");
        }
    }
}
