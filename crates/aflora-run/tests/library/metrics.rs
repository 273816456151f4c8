//! The metrics against scikit-learn and scipy (`fixtures/make_metrics.py`), and Google's
//! rouge-score (`fixtures/make_rouge.py`).

use aflora_run::metrics::{Answers, Judgement, Metric, Sort, Value as Judged};
use serde_json::Value;

fn judge(metric: Metric, answers: &Answers, right: &Answers) -> Judged {
    metric.judge(&Judgement::of(answers, right))
}

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
            let probabilities: Vec<Vec<f64>> =
                serde_json::from_value(case["probabilities"].clone()).unwrap_or_default();
            let given =
                Judgement { probabilities: &probabilities, ..Judgement::of(&answers, &right) };
            let found = metric.judge(&given).value;
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
    assert!(compared > 150, "{compared}");
}

#[test]
fn no_rows_and_unanswered_rows_have_no_value() {
    for metric in Metric::names().iter().filter_map(|name| Metric::named(name)) {
        let none = match metric.judges() {
            Sort::Class => Answers::Classes(Vec::new()),
            Sort::Set => Answers::Sets(Vec::new()),
            Sort::Score => Answers::Scores(Vec::new()),
            Sort::Tags => Answers::Tags(Vec::new()),
            Sort::Text => Answers::Texts(Vec::new()),
        };
        assert_eq!(judge(metric, &none, &none).value, None, "{}", metric.name());
    }
    let (nan, right) = (Answers::Scores(vec![f64::NAN, 1.0]), Answers::Scores(vec![1.0, 2.0]));
    for name in ["pearson", "spearman"] {
        assert_eq!(judge(Metric::named(name).unwrap(), &nan, &right).value, None, "{name}");
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
        let found = judge(metric, &written, &wanted);
        let rows = found.rows.unwrap();
        for ((found, expected), case) in rows.iter().zip(&expected).zip(&cases) {
            // What reading a decimal number may cost.
            assert!((found - expected).abs() < 1e-15, "{} of {case}", metric.name());
        }
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        assert!((found.value.unwrap() - mean).abs() < 1e-15);
    }
}

#[test]
fn perplexity_is_of_the_loss_of_a_token_and_lower_is_better() {
    let texts = Answers::Texts(vec!["a".into()]);
    let metric = Metric::named("perplexity").unwrap();
    let of = |token_loss| metric.judge(&Judgement { token_loss, ..Judgement::of(&texts, &texts) });
    assert_eq!(of(Some(2.0)).value, Some(2f64.exp()));
    assert_eq!((of(None).value, of(Some(f64::NAN)).value), (None, None));
    let lower: Vec<&str> = Metric::names()
        .iter()
        .copied()
        .filter(|name| Metric::named(name).unwrap().is_lower_better())
        .collect();
    assert_eq!(lower, ["mse", "mae", "hamming_loss", "perplexity"]);
}

#[test]
fn an_area_without_probabilities_or_with_one_that_is_no_number_has_no_value() {
    let metric = Metric::named("roc_auc").unwrap();
    let right = Answers::Classes(vec![0, 1]);
    let of = |probabilities: &[Vec<f64>]| {
        metric.judge(&Judgement { probabilities, ..Judgement::of(&right, &right) }).value
    };
    assert_eq!(of(&[vec![0.8, 0.2], vec![0.3, 0.7]]), Some(1.0));
    assert_eq!(of(&[vec![0.8, f64::NAN], vec![0.3, 0.7]]), None);
    assert_eq!(of(&[]), None);
}

#[test]
fn sets_of_labels_and_entities_agree_with_scikit_learn_and_seqeval() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sequences.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for case in cases {
        let [answers, right] = ["predicted", "expected"].map(|key| match case["sort"].as_str() {
            Some("sets") => {
                let rows: Vec<Vec<u8>> = serde_json::from_value(case[key].clone()).unwrap();
                Answers::Sets(
                    rows.iter().map(|row| row.iter().map(|n| *n == 1).collect()).collect(),
                )
            }
            _ => Answers::Tags(serde_json::from_value(case[key].clone()).unwrap()),
        });
        for metric in Metric::names().iter().filter_map(|name| Metric::named(name)) {
            let Some(expected) = case[metric.name()].as_f64() else { continue };
            let found = judge(metric, &answers, &right).value.unwrap();
            let what = format!("{} of {}: {found}, not {expected}", metric.name(), case["name"]);
            assert!((found - expected).abs() < 1e-12, "{what}");
            compared += 1;
        }
    }
    assert_eq!(compared, 6 * 5 + 8 * 4);
}
