//! `aflora combine`: adapters of several runs made into one.

use crate::common::{self, aflora, refused, text, workplace, CONFIG, SMALL};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

fn ok(place: &Path, arguments: &[&str]) -> String {
    let output = aflora(place, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// Two short runs of LoRA in `place`, of different seeds.
fn runs(place: &Path) {
    for (run_dir, seed) in [("run_dir=one", "seed=1"), ("run_dir=two", "seed=2")] {
        let first = ["run", CONFIG, "task=mrpc", "limit=32", "eval_limit=8", "method=lora"];
        ok(place, &[&first, &SMALL[..], &["epochs=2", "data=.", run_dir, seed]].concat());
    }
}

/// scale · B A of every layer in a folder of plain LoRA, and all else in it.
fn deltas(folder: &Path) -> (BTreeMap<String, Tensor>, BTreeMap<String, Tensor>) {
    let config = common::json(&folder.join("adapter_config.json"));
    assert_eq!(config["peft_type"], "LORA");
    let scale = config["lora_alpha"].as_f64().unwrap() / config["r"].as_f64().unwrap();
    let file = Tensor::read_safetensors(folder.join("adapter_model.safetensors")).unwrap();
    let mut tensors: BTreeMap<String, Tensor> = file.into_iter().collect();
    let sites: Vec<String> = tensors
        .keys()
        .filter_map(|key| key.strip_suffix(".lora_A.weight").map(String::from))
        .collect();
    assert!(!sites.is_empty());
    let delta = |site: String| {
        let [a, b] =
            ["A", "B"].map(|side| tensors.remove(&format!("{site}.lora_{side}.weight")).unwrap());
        (site, b.matmul(&a) * scale)
    };
    let sums = sites.into_iter().map(delta).collect();
    (sums, tensors)
}

fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    let error = (found - expected).abs().max().double_value(&[]);
    let size = expected.abs().max().double_value(&[]);
    assert!(size > 0.0 && error < 1e-5 * size, "{what}: {error:e} of {size:e}");
}

#[test]
fn two_runs_are_combined_into_the_weighted_sum_of_what_they_learned() {
    let place = workplace();
    let place = place.path();
    runs(place);
    for run in ["one", "two"] {
        ok(place, &["export", run, &format!("{run}-lora")]);
    }
    let said = ok(place, &["combine", "both", "--adapter", "one:0.7", "--adapter", "two:-0.3"]);
    assert!(said.contains("is the first run's, as it is"), "{said}");
    let [(one, head), (two, _), (both, kept)] =
        ["one-lora", "two-lora", "both"].map(|folder| deltas(&place.join(folder)));
    for (site, found) in &both {
        assert_close(found, &(&one[site] * 0.7 - &two[site] * 0.3), site);
    }
    assert!(!head.is_empty());
    assert_eq!(kept, head);
    // Each by itself, of one adapter: the adapter.
    ok(place, &["combine", "alone", "--adapter", "two", "--how", "linear"]);
    for (site, found) in &deltas(&place.join("alone")).0 {
        assert_close(found, &two[site], site);
    }
    let ties = ["--adapter", "one", "--adapter", "two", "--how", "ties", "--density", "0.5"];
    ok(place, &[&["combine", "ties"], &ties[..]].concat());
    assert_eq!(deltas(&place.join("ties")).0.len(), one.len());
    // Folders of exported adapters are combined as their runs are, of any rank.
    let folders = ["--adapter", "one-lora:0.7", "--adapter", "two:-0.3", "--data", "."];
    ok(place, &[&["combine", "folders"], &folders[..]].concat());
    for (site, found) in &deltas(&place.join("folders")).0 {
        assert_close(found, &both[site], site);
    }
    let svd = ["--how", "dare_linear_svd", "--density", "1", "--rank", "16"];
    ok(place, &[&["combine", "svd"], &folders[..], &svd].concat());
    for (site, found) in &deltas(&place.join("svd")).0 {
        assert_close(found, &both[site], site);
    }
}

#[test]
fn what_cannot_be_combined_is_refused_in_words() {
    let place = workplace();
    let place = place.path();
    runs(place);
    let first = ["run", CONFIG, "task=mrpc", "limit=32", "eval_limit=8", "method=dora"];
    ok(place, &[&first, &SMALL[..], &["epochs=1", "data=.", "run_dir=dora"]].concat());
    let say = |more: &[&str], expected: &str| {
        let output = aflora(place, &[&["combine", "out", "--adapter", "one"], more].concat());
        refused(&output, 2, expected);
        assert!(!place.join("out").exists());
    };
    say(&["--how", "ties"], "ties needs to know how much to keep: --density 0.5");
    say(&["--density", "0.5"], "--density has no say with cat");
    say(&["--rank", "2"], "--rank has no say with cat");
    say(&["--how", "svd", "--rank", "0"], "`rank` is 0, but must be at least 1");
    say(&["--how", "dare_linear", "--density", "1.5"], "`density` is 1.5, but must be above 0");
    say(&["--how", "tie"], "dare_linear");
    say(&["--adapter", "dora"], "adapters of the method `dora` fold into no plain LoRA");
    say(&["--adapter", "nowhere:0.5"], "nowhere");
    say(&["--adapter", "two:inf"], "`weight` is inf");
}
