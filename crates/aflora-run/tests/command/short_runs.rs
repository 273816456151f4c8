//! Every method runs however short the run is: one epoch, and one to three steps.

use crate::common::{json, root, run, text, workplace};
use std::fs;

/// The shipped methods, by the files of configs/methods.
fn methods() -> Vec<String> {
    let files = fs::read_dir(root().join("configs/methods")).unwrap().flatten();
    let mut names: Vec<String> =
        files.map(|file| file.path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    assert!(names.len() >= 14, "{names:?}");
    names
}

#[test]
fn every_method_runs_for_one_epoch_and_for_one_to_three_steps() {
    let place = workplace();
    for method in methods() {
        let chosen = format!("method={method}");
        // Its rank is the layers' own width at most.
        let rank = ["method.rank=4", "method.target_rank=2"];
        let narrow: &[&str] = match method.as_str() {
            "adalora" | "aflora-rank" => &rank,
            "head" | "full" | "bitfit" => &[],
            _ => &rank[..1],
        };
        for (limit, steps) in [("limit=16", 1), ("limit=32", 2), ("limit=48", 3), ("limit=96", 6)] {
            let run_dir = format!("run_dir={method}-{steps}");
            let more = ["task=mrpc", &chosen, "epochs=1", limit, "eval_limit=16", &run_dir];
            let output = run(place.path(), &[&more[..], narrow].concat());
            let said = text(&output.stderr);
            assert!(output.status.success(), "{method}, {steps} steps: {said}");
            let metrics = json(&place.path().join(format!("{method}-{steps}/metrics.json")));
            assert_eq!(metrics["steps"], steps, "{method}");
            assert_eq!(metrics["skipped_steps"], 0, "{method}");
        }
    }
}

#[test]
fn a_run_too_short_for_its_spans_says_in_one_line_what_they_are() {
    let place = workplace();
    let told = |more: &[&str]| {
        let output = run(place.path(), &[&["task=mrpc"], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let short = told(&["epochs=1", "run_dir=short"]);
    let lines = |said: &str| -> Vec<String> {
        said.lines().filter(|l| l.contains("too short for t_i")).map(str::to_string).collect()
    };
    let [line] = &lines(&short)[..] else { panic!("{short}") };
    assert!(line.contains("INFO"), "the shipped method's span: {line}");
    assert!(
        line.contains("this run of 6 steps") && line.contains("t_i is its first 1 step"),
        "{line}"
    );
    // What froze did so in the last 70% of the steps.
    let frozen = fs::read_to_string(place.path().join("short/freeze.csv")).unwrap();
    let steps = frozen.lines().skip(1).map(|line| line.rsplit(',').next().unwrap());
    assert!(steps.clone().all(|step| step.parse::<u64>().is_ok_and(|step| step > 1)), "{frozen}");
    assert_eq!(lines(&told(&["epochs=4", "run_dir=long"])), [""; 0]);
    // A span that the user wrote himself is not changed in passing.
    let own = ["epochs=1", "run_dir=own", "method.freeze.t_i=3 epochs"];
    let [line] = &lines(&told(&own))[..] else { panic!("one line") };
    assert!(line.contains("WARN") && line.contains("too short for t_i, 3 epochs"), "{line}");
}
