//! The real MPNet-base against transformers on the same file (`fixtures/make_mpnet_base.py`).
//! Where `make assets MODEL=mpnet-base` has not fetched it, the test says that it was skipped.

use crate::common::{cpu, fixture, relative};
use aflora_models::{build, kind_of, weights, Backbone, Batch, Head, TextEncoder};
use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// The model's folder, if it is there.
fn folder() -> Option<PathBuf> {
    let folder = fixture("../../../../.assets/mpnet-base");
    if folder.join("model.safetensors").is_file() {
        return Some(folder);
    }
    // Written past the test runner, which shows nothing of a test that passes.
    let _ = writeln!(std::io::stderr(), "skipped, it needs `make assets MODEL=mpnet-base`");
    None
}

/// Fills every tensor of `module` in rows: with sin 1², sin 2², sin 3², … / 2.
fn wave(model: &dyn Backbone, module: &str) {
    for name in ["weight", "bias"] {
        let mut weight = model.var_store().variables()[&format!("{module}.{name}")].shallow_clone();
        let size = weight.size();
        let count = size.iter().product::<i64>();
        let values =
            Tensor::arange_start(1, 1 + count, (Kind::Double, Device::Cpu)).square().sin() / 2;
        tch::no_grad(|| weight.copy_(&values.to_kind(Kind::Float).view(size.as_slice())));
    }
}

/// Numbers in lists of one shape.
fn tensor(value: &Value) -> Tensor {
    match value.as_array() {
        Some(rows) => Tensor::stack(&rows.iter().map(tensor).collect::<Vec<_>>(), 0),
        None => Tensor::from(value.as_f64().unwrap()),
    }
}

#[test]
fn tokens_states_and_logits_of_the_real_mpnet_base_are_those_of_transformers() {
    let Some(folder) = folder() else { return };
    let golden = std::fs::read_to_string(fixture("mpnet_base.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let texts: Vec<(String, Option<String>)> =
        serde_json::from_value(golden["texts"].clone()).unwrap();
    let ids: Vec<Vec<i64>> = serde_json::from_value(golden["ids"].clone()).unwrap();
    let encoder = TextEncoder::from_folder(&folder, 128).unwrap();
    let pairs: Vec<(&str, Option<&str>)> =
        texts.iter().map(|(a, b)| (a.as_str(), b.as_deref())).collect();
    let encoded: Vec<Vec<i64>> =
        encoder.encode(&pairs).unwrap().into_iter().map(|text| text.ids).collect();
    assert_eq!(encoded, ids);

    let longest = ids.iter().map(Vec::len).max().unwrap();
    let padded = |pad: i64, of: &dyn Fn(i64) -> i64| {
        let mut flat = Vec::new();
        for text in &ids {
            flat.extend(text.iter().map(|id| of(*id)));
            flat.resize(flat.len() + longest - text.len(), pad);
        }
        Tensor::from_slice(&flat).view([ids.len() as i64, longest as i64])
    };
    let batch = || Batch::new(padded(encoder.pad_id(), &|id| id), padded(0, &|_| 1));

    let config = folder.join("config.json");
    let load = |head| {
        let model = build(kind_of(&config).unwrap().kind, &config, head, &cpu()).unwrap();
        let report = weights::load(model.as_ref(), &folder).unwrap();
        assert_eq!(report.loaded, 197);
        model
    };
    // A layer that changes nothing gives every token's state.
    let model = load(Head::Tokens(768));
    let variables = model.var_store().variables();
    let identity = Tensor::eye(768, (Kind::Float, Device::Cpu));
    tch::no_grad(|| {
        variables["classifier.weight"].shallow_clone().copy_(&identity);
        let _ = variables["classifier.bias"].shallow_clone().zero_();
    });
    let states = tch::no_grad(|| model.forward(&batch(), false)).unwrap().logits;
    let states = states.slice(2, 0, 768, 96);
    let of_text = |row: usize| {
        let own = states.get(row as i64).narrow(0, 0, ids[row].len() as i64);
        let mean = own.mean_dim(&[0i64][..], false, Kind::Float);
        Tensor::stack(&[own.get(0), own.get(-1), mean], 0)
    };
    let found = Tensor::stack(&(0..ids.len()).map(of_text).collect::<Vec<_>>(), 0);
    let of_states = relative(&found, &tensor(&golden["states"]));

    let model = load(Head::Classes(3));
    wave(model.as_ref(), "classifier.dense");
    wave(model.as_ref(), "classifier.out_proj");
    let logits = tch::no_grad(|| model.forward(&batch(), false)).unwrap().logits;
    let of_logits = relative(&logits, &tensor(&golden["logits"]));
    println!("states {of_states:.1e}, logits {of_logits:.1e}");
    assert!(of_states < 1e-5 && of_logits < 1e-5, "{of_states:e}, {of_logits:e}");
}
