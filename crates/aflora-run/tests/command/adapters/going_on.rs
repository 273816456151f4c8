//! Runs that go on from an adapter.

use super::*;
use std::collections::BTreeMap;
use tch::Tensor;

#[test]
fn a_run_goes_on_from_an_adapter_on_the_pooler() {
    let place = place();
    let fixtures = root().join("crates/aflora-models/tests/fixtures/peft_keys/bert");
    copy(&fixtures.join("all_linear_pooler"), &place.path().join("pooler"));
    train_rows(place.path());
    let settings = ["model=minilm", "precision=fp32", "adapter=pooler", "max_steps=1"];
    ok(&train_on_rows(place.path(), &[&settings, &["run_dir=moved"]]));
    let found = ok(&aflora(place.path(), &["inspect", "moved/adapter"]));
    assert!(found.contains("bert.pooler.dense"), "{found}");
    ok(&aflora(place.path(), &["predict", "moved", "rows.jsonl"]));
}

#[test]
fn a_run_goes_on_from_an_adapter_with_its_method_layers_and_weights() {
    let place = place();
    train_rows(place.path());
    let settings = ["model=minilm", "precision=fp32", "adapter=lora"];
    let train = |more: &[&str]| train_on_rows(place.path(), &[&settings, more]);
    // Steps that change nothing: what is judged is what the adapter gave.
    ok(&train(&["max_steps=1", "lr=1e-12", "head_lr=1e-12", "run_dir=still"]));
    let expected = rows_of(&ok(&on(place.path(), "predict", "lora", &["rows.jsonl"])));
    let found = rows_of(&ok(&aflora(place.path(), &["predict", "still", "rows.jsonl"])));
    for (found, expected) in found.iter().zip(&expected) {
        let (found, expected) = (&found["scores"]["1"], &expected["scores"]["LABEL_1"]);
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
    let config = text(&fs::read(place.path().join("still/config.yaml")).unwrap());
    assert!(config.contains("method: lora") && config.contains("rank: 4"), "{config}");
    // Others do.
    ok(&train(&["epochs=3", "lr=1e-2", "run_dir=moved"]));
    let moved = rows_of(&ok(&aflora(place.path(), &["predict", "moved", "rows.jsonl"])));
    assert_ne!(moved[0]["scores"], found[0]["scores"]);
    // The run's own file says all of it again.
    ok(&aflora(place.path(), &["run", "still/config.yaml"]));

    // What freezes is how it trains, and not what the adapter is.
    let frozen = |run: &str, more: &[&str]| {
        ok(&train(&[&["max_steps=1", &format!("run_dir={run}")], more].concat()));
        text(&fs::read(place.path().join(run).join("config.yaml")).unwrap())
    };
    assert!(config.contains("mode: never"), "{config}");
    let config = frozen("by-block", &["method=lora-freeze"]);
    assert!(config.contains("mode: adaptive") && config.contains("rank: 4"), "{config}");
    let config = frozen("by-key", &["method=lora-freeze", "method.freeze.t_i=10%"]);
    assert!(config.contains("t_i: 10%") && config.contains("mode: adaptive"), "{config}");
    let config = frozen("of-the-folder", &["method=lora"]);
    assert!(config.contains("mode: never"), "{config}");

    refused(&train(&["method=aflora"]), 2, "is of the method `lora`, not `aflora`");
    refused(&train(&["method=lora", "method.rank=8"]), 2, "`method.rank` is 8, but 4 in");
    let words = "`model.layers` contradicts the adapter's layers";
    refused(&train(&["model.layers=[0]"]), 2, words);
    refused(&train(&["adapter=minilm"]), 2, "adapter_config.json");
}

#[test]
fn a_run_that_goes_on_trains_the_matrices_that_its_own_freezing_says() {
    let place = place();
    train_rows(place.path());
    let train = |method: &str, run: &str, more: &[&str]| {
        let settings = ["model=minilm", "max_steps=2"];
        let chosen = [format!("method={method}"), format!("run_dir={run}")];
        let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
        ok(&train_on_rows(place.path(), &[&settings, &chosen, more]));
        let parameters = &json(&place.path().join(run).join("metrics.json"))["parameters"];
        (parameters["at_start"].as_i64().unwrap(), parameters["at_end"].as_i64().unwrap())
    };
    let matrices = |run: &str| {
        let all = Tensor::read_safetensors(
            place.path().join(run).join("adapter/adapter_model.safetensors"),
        );
        let named =
            |(name, _): &(String, Tensor)| name.contains("lora_A") || name.contains("lora_B");
        all.unwrap().into_iter().filter(named).collect::<BTreeMap<_, _>>()
    };
    let (all, _) = train("aflora-trainable", "first", &[]);
    let (vectors, still) = train("aflora-frozen", "resting", &["adapter=first", "lr=1e-2"]);
    assert!(0 < vectors && vectors < all, "{vectors} of {all}");
    assert_eq!(vectors, still);
    let (first, resting) = (matrices("first"), matrices("resting"));
    assert!(!first.is_empty() && first.iter().all(|(name, matrix)| resting[name] == *matrix));
    // And the other way: what rested trains.
    assert_eq!(train("aflora-trainable", "thawed", &["adapter=resting/adapter"]), (all, all));
}
