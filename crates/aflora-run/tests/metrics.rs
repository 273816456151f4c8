//! The metrics against scikit-learn and scipy (`fixtures/make_metrics.py`), and Google's
//! rouge-score (`fixtures/make_rouge.py`).

use aflora_run::metrics::{Metric, Predictions, TextMetric};
use serde_json::Value;

#[test]
fn every_metric_agrees_with_scikit_learn_and_scipy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for case in cases {
        let predictions: Predictions = serde_json::from_value(serde_json::json!({
            "predicted": case["predicted"], "expected": case["expected"],
        }))
        .unwrap();
        for metric in
            [Metric::Accuracy, Metric::F1, Metric::Matthews, Metric::Pearson, Metric::Spearman]
        {
            let Some(expected) = case.get(metric.name()) else { continue };
            let found = metric.compute(&predictions);
            let agrees = match (found, expected.as_f64()) {
                (Some(found), Some(expected)) => {
                    (found - expected).abs() <= 1e-11 * expected.abs().max(1.0)
                }
                (None, None) => true,
                _ => false,
            };
            assert!(agrees, "{} of {}: {found:?}, not {expected}", metric.name(), case["name"]);
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn no_rows_and_unanswered_rows_have_no_value() {
    let nan = Predictions { predicted: vec![f64::NAN, 1.0], expected: vec![1.0, 2.0] };
    for metric in
        [Metric::Accuracy, Metric::F1, Metric::Matthews, Metric::Pearson, Metric::Spearman]
    {
        assert_eq!(metric.compute(&Predictions::default()), None, "{}", metric.name());
    }
    assert_eq!(Metric::Pearson.compute(&nan), None);
    assert_eq!(Metric::Spearman.compute(&nan), None);
}

#[test]
fn rouge_agrees_with_googles_on_odd_texts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rouge.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() > 70);
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_string();
    let pairs: Vec<(String, String)> =
        cases.iter().map(|case| (text(case, "written"), text(case, "wanted"))).collect();
    for metric in
        [TextMetric::Rouge1, TextMetric::Rouge2, TextMetric::RougeL, TextMetric::RougeLsum]
    {
        let expected: Vec<f64> =
            cases.iter().map(|case| case[metric.name()].as_f64().unwrap()).collect();
        for ((found, expected), pair) in metric.scores(&pairs).iter().zip(&expected).zip(&pairs) {
            // What reading a decimal number may cost.
            assert!((found - expected).abs() < 1e-15, "{} of {pair:?}", metric.name());
        }
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        assert!((metric.compute(&pairs).unwrap() - mean).abs() < 1e-15);
        assert_eq!(metric.compute(&[]), None);
    }
}
