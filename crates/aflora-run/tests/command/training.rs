//! How long a run trains, when it is evaluated, and what ends it.

use crate::common::{aflora, json, judged_task, refused, run, text, workplace};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Of 96 rows in batches of 16: six steps an epoch.
const RUN: [&str; 3] = ["task=mrpc", "method=lora", "log_every=1"];

/// A run that ends well, and what it told.
fn trained(place: &Path, more: &[&str]) -> String {
    let output = run(place, &[&RUN[..], more].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

fn events(run: &Path, kind: &str) -> Vec<Value> {
    let lines = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == kind).collect()
}

fn numbers(events: &[Value], key: &str) -> Vec<f64> {
    events.iter().map(|event| event[key].as_f64().unwrap()).collect()
}

#[test]
fn max_steps_is_the_length_of_the_run_within_an_epoch_and_over_several() {
    let place = workplace();
    for (max_steps, evaluated) in [(4, vec![4.0]), (15, vec![6.0, 12.0, 15.0])] {
        let dir = format!("run_dir=of-{max_steps}");
        let steps = format!("max_steps={max_steps}");
        let said = trained(place.path(), &["epochs=1", "lr_schedule=linear", &steps, &dir]);
        let out = place.path().join(format!("of-{max_steps}"));
        assert_eq!(json(&out.join("metrics.json"))["steps"], max_steps);
        assert_eq!(events(&out, "begin")[0]["total_steps"], max_steps);
        assert_eq!(numbers(&events(&out, "evaluation"), "step"), evaluated, "{said}");
        // The schedule is one of this length: its last step has the least rate of all.
        let rates = numbers(&events(&out, "step"), "lr");
        let last = 0.001 / (max_steps as f64 - (0.06 * max_steps as f64).floor());
        assert!((rates[max_steps - 1] - last).abs() < 1e-12, "{rates:?}");
    }
}

#[test]
fn evaluations_within_an_epoch_change_nothing_of_the_training() {
    let place = workplace();
    trained(place.path(), &["method.dropout=0.1", "run_dir=epochs"]);
    let often = ["method.dropout=0.1", "eval_every=4 steps", "run_dir=steps"];
    let said = trained(place.path(), &often);
    let [epochs, steps] = ["epochs", "steps"].map(|name| place.path().join(name));
    assert_eq!(events(&epochs, "step"), events(&steps, "step"));
    let found = events(&steps, "evaluation");
    assert_eq!(numbers(&found, "step"), [4.0, 8.0, 12.0, 16.0, 20.0, 24.0]);
    assert_eq!(found[0]["epoch"].as_f64(), Some(4.0 / 6.0));
    assert!(said.contains("step 4, epoch 0.67: ") && said.contains("epoch 2: "), "{said}");
    // What was found at the end of an epoch is what the other run found there.
    let at = |run: &Path| -> Vec<Value> {
        let found = events(run, "evaluation").into_iter();
        found.filter(|e| e["step"] == 12).map(|e| e["metrics"].clone()).collect()
    };
    assert_eq!(at(&epochs), at(&steps));

    trained(place.path(), &["eval_every=never", "run_dir=once"]);
    assert_eq!(numbers(&events(&place.path().join("once"), "evaluation"), "step"), [24.0]);
    let output = run(place.path(), &["task=mrpc", "eval_every=5 minutes"]);
    refused(&output, 2, "`eval_every` is 5 minutes, but must be `200 steps`, `1 epoch` or `never`");
}

#[test]
fn the_line_of_an_evaluation_tells_the_mean_loss_since_the_one_before() {
    let place = workplace();
    // 6 steps an epoch, and losses recorded at each, seldom, and at none but the last.
    for (log_every, dir) in [("1", "each"), ("4", "some"), ("100", "none")] {
        let (log_every, run_dir) = (format!("log_every={log_every}"), format!("run_dir={dir}"));
        let output = run(place.path(), &["task=mrpc", "epochs=3", &log_every, &run_dir]);
        let told = text(&output.stderr);
        assert!(output.status.success(), "{told}");
        let steps = events(&place.path().join("each"), "step");
        let losses: Vec<f64> = steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect();
        assert_eq!(losses.len(), 18);
        for (epoch, losses) in losses.chunks(6).enumerate() {
            let mean = losses.iter().sum::<f64>() / 6.0;
            let line = format!("epoch {}: loss ", epoch + 1);
            let found = told.split(&line).nth(1).unwrap_or_else(|| panic!("{line}{told}"));
            let found: f64 = found.split(',').next().unwrap().parse().unwrap();
            assert!((found - mean).abs() < 2e-4, "{dir}, epoch {}: {found} {mean}", epoch + 1);
        }
    }
}

#[test]
fn a_run_that_becomes_no_better_ends_early_and_says_so_everywhere() {
    let place = workplace();
    // Nothing moves: the first evaluation is the best.
    let still = ["lr=0", "head_lr=0", "eval_every=3 steps", "patience=2", "run_dir=out"];
    let said = trained(place.path(), &still);
    assert!(said.contains("2 evaluations no better than the best: the run ends early"), "{said}");
    assert!(said.contains("stopped      2 evaluations no better, at step 9 of 24"), "{said}");
    let out = place.path().join("out");
    let metrics = json(&out.join("metrics.json"));
    assert_eq!((&metrics["steps"], &metrics["best"]["step"]), (&9.into(), &3.into()));
    assert_eq!(metrics["early_stop"], serde_json::json!({ "patience": 2, "total_steps": 24 }));
    assert_eq!(events(&out, "early_stop").len(), 1);
    let watched = text(&aflora(place.path(), &["watch", "out"]).stdout);
    assert!(watched.contains("at step 9: 2 evaluations no better"), "{watched}");
    // As long as it needs, and no shorter.
    trained(place.path(), &["lr=0", "head_lr=0", "patience=4", "run_dir=long"]);
    let metrics = json(&place.path().join("long/metrics.json"));
    assert_eq!((&metrics["steps"], metrics.get("early_stop")), (&24.into(), None));
}

#[test]
fn the_test_split_is_judged_once_with_the_best_adapter_as_it_was_saved() {
    let place = workplace();
    judged_task(place.path());
    // A rate at which the last evaluation need not be the best; methods that drop components when
    // they save, that train the model itself, that train nothing but the head.
    let ranks = ["method.rank=4", "method.target_rank=2"];
    for method in ["lora", "adalora", "aflora-rank", "full", "head"] {
        let (named, dir) = (format!("method={method}"), format!("run_dir={method}"));
        let own: &[&str] = if method.starts_with("a") { &ranks } else { &[] };
        let hot = ["task=judged.yaml", &named, &dir, "head_lr=0.1", "eval_every=2 steps"];
        let output = run(place.path(), &[&hot[..], own].concat());
        let (said, told) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{told}");
        let out = place.path().join(method);
        let metrics = json(&out.join("metrics.json"));
        let (test, best) = (&metrics["test"], &metrics["best"]);
        assert_eq!((&test["split"], &test["step"]), (&"test".into(), &best["step"]));
        let accuracy = test["metrics"]["accuracy"].as_f64().unwrap();
        assert!(said.contains(&format!("test_accuracy {accuracy:.4}")), "{said}");
        assert_eq!(told.matches("test, with the adapter of ").count(), 1, "{told}");
        assert_eq!(events(&out, "test").len(), 1);
        // No evaluation looks at it: they have `dev` alone.
        let found = events(&out, "evaluation");
        assert!(found.iter().all(|e| e["metrics"].as_object().unwrap().len() == 1), "{found:?}");
        // Whoever opens the run gets the same answers.
        let file = place.path().join("glue/MRPC/test.tsv");
        let output = aflora(place.path(), &["predict", method, file.to_str().unwrap()]);
        let rows = text(&output.stdout);
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let right = rows
            .map(|row| row["label"] == row["Quality"] || row["predicted_label"] == row["Quality"]);
        let right: Vec<bool> = right.collect();
        let share = right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
        assert_eq!((right.len(), share), (24, accuracy), "{method}: {told}");
    }
}

#[test]
fn a_test_split_that_is_trained_or_evaluated_on_is_refused() {
    let place = workplace();
    judged_task(place.path());
    for split in ["train", "dev"] {
        let test_on = format!("task.dataset.test_on={split}");
        let output = run(place.path(), &["task=judged.yaml", &test_on]);
        refused(&output, 2, "must be a name other than `train` and those of `evaluate_on`");
    }
}

#[test]
fn a_test_split_has_all_its_rows_where_dev_is_held_out_of_the_training_rows() {
    let place = workplace();
    judged_task(place.path());
    let task = fs::read_to_string(place.path().join("judged.yaml")).unwrap();
    // All rows of one text are on one side.
    let drawn =
        task.replace("dev: dev.tsv, ", "") + "      hold_out: {by: '#2 String', percent: 50}\n";
    fs::write(place.path().join("judged.yaml"), drawn).unwrap();
    trained(place.path(), &["task=judged.yaml", "epochs=1", "run_dir=out"]);
    let provenance = json(&place.path().join("out/provenance.json"));
    let files = provenance["data"].as_array().unwrap();
    let rows = |split: &str| -> Vec<u64> {
        let of_split = files.iter().filter(|file| file["split"] == split);
        of_split.map(|file| file["rows"].as_u64().unwrap()).collect()
    };
    assert_eq!(rows("test"), [24], "{files:?}");
    assert_eq!(rows("train")[0] + rows("dev")[0], 96, "{files:?}");
    assert!(rows("train")[0] > 0 && rows("dev")[0] > 0, "{files:?}");
}
