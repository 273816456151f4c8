//! The metrics against scikit-learn and scipy (`fixtures/make_metrics.py`), and Google's
//! rouge-score (`fixtures/make_rouge.py`).

use aflora_run::metrics::{Answers, Metric, Sort};
use serde_json::Value;

#[test]
fn every_metric_agrees_with_scikit_learn_and_scipy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for case in cases {
        for metric in Metric::names().iter().filter_map(|name| Metric::named(name)) {
            let Some(expected) = case.get(metric.name()) else { continue };
            let [answers, right] = ["predicted", "expected"].map(|key| match metric.judges() {
                Sort::Class => Answers::Classes(serde_json::from_value(case[key].clone()).unwrap()),
                _ => Answers::Scores(serde_json::from_value(case[key].clone()).unwrap()),
            });
            let found = metric.judge(&answers, &right).value;
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
    for metric in Metric::names().iter().filter_map(|name| Metric::named(name)) {
        let none = match metric.judges() {
            Sort::Class => Answers::Classes(Vec::new()),
            Sort::Score => Answers::Scores(Vec::new()),
            Sort::Text => Answers::Texts(Vec::new()),
        };
        assert_eq!(metric.judge(&none, &none).value, None, "{}", metric.name());
    }
    let (nan, right) = (Answers::Scores(vec![f64::NAN, 1.0]), Answers::Scores(vec![1.0, 2.0]));
    for name in ["pearson", "spearman"] {
        assert_eq!(Metric::named(name).unwrap().judge(&nan, &right).value, None, "{name}");
    }
}

#[test]
fn rouge_agrees_with_googles_on_odd_texts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rouge.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() > 70);
    let [written, wanted] = ["written", "wanted"].map(|key| {
        let texts = cases.iter().map(|case| case[key].as_str().unwrap().to_string());
        Answers::Texts(texts.collect())
    });
    for metric in
        ["rouge1", "rouge2", "rougeL", "rougeLsum"].map(|name| Metric::named(name).unwrap())
    {
        let expected: Vec<f64> =
            cases.iter().map(|case| case[metric.name()].as_f64().unwrap()).collect();
        let found = metric.judge(&written, &wanted);
        let rows = found.rows.unwrap();
        for ((found, expected), case) in rows.iter().zip(&expected).zip(&cases) {
            // What reading a decimal number may cost.
            assert!((found - expected).abs() < 1e-15, "{} of {case}", metric.name());
        }
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        assert!((found.value.unwrap() - mean).abs() < 1e-15);
    }
}
