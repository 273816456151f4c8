//! What a run keeps of how its answers were judged, and what decides which epoch was best.

use crate::common::{self, json, run, text, workplace};

#[test]
fn metrics_stand_in_the_task_s_order_and_the_best_epoch_keeps_its_classes() {
    let place = workplace();
    let metrics = "task.metrics=[roc_auc, f1_macro, balanced_accuracy, accuracy]";
    let output = run(place.path(), &["task=mrpc", "run_dir=out", metrics]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let names = ["roc_auc", "f1_macro", "balanced_accuracy", "accuracy"];
    let printed = text(&output.stdout);
    let printed: Vec<&str> = printed.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(printed[1..5], names);

    let summary = json(&place.path().join("out/metrics.json"));
    assert_eq!(summary["selection"], "roc_auc");
    assert!(summary.get("lower_is_better").is_none());
    let best = &summary["best"]["metrics"];
    assert_eq!(best.as_object().unwrap().keys().collect::<Vec<_>>(), names);
    let [split] = &summary["by_class"].as_array().unwrap()[..] else { panic!("{summary}") };
    assert_eq!(split["split"], "dev");
    let classes = split["classes"].as_array().unwrap();
    let labels: Vec<&str> = classes.iter().map(|class| class["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["not_equivalent", "equivalent"]);
    let count = |key: &str| classes.iter().map(|class| class[key].as_f64().unwrap()).sum::<f64>();
    assert_eq!((count("right"), count("answered")), (96.0, 96.0));
    assert_eq!(best["accuracy"].as_f64().unwrap(), count("hits") / 96.0);
    let cells = split["confusion"].as_array().unwrap();
    assert_eq!(cells.iter().map(|cell| cell[2].as_u64().unwrap()).sum::<u64>(), 96);
}

#[test]
fn the_epoch_with_the_lowest_error_is_the_best() {
    let place = workplace();
    let more = ["task=stsb", "run_dir=out", "task.metrics=[mae, spearman, mse]", "epochs=3"];
    let output = run(place.path(), &more);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let summary = json(&place.path().join("out/metrics.json"));
    assert_eq!(summary["selection"], "mae");
    assert_eq!(summary["lower_is_better"], serde_json::json!(["mae", "mse"]));
    let mae = |evaluation: &serde_json::Value| evaluation["metrics"]["mae"].as_f64().unwrap();
    let all: Vec<f64> = summary["evaluations"].as_array().unwrap().iter().map(mae).collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(all.len() == 3 && all.iter().any(|value| *value > least), "{all:?}");
    assert_eq!(mae(&summary["best"]), least);
    assert!(summary.get("by_class").is_none());
    // Whoever watches is told the same.
    let watched = common::aflora(place.path(), &["watch", "out"]);
    let watched = text(&watched.stdout) + &text(&watched.stderr);
    let marked = watched.lines().find(|line| line.contains("(best)"));
    assert!(marked.is_some_and(|line| line.contains(&format!("mae {least:.4}"))), "{watched}");
}
