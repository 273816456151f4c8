//! The tiny models of `fixtures/`.
#![allow(dead_code)] // each test file uses a part

pub mod adapters;
pub mod log;
pub mod tiny;
pub mod writers;

use aflora_models::{build, weights, Backbone, Batch, Head, Options};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::{Device, Kind, Reduction, Tensor};

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

/// Single precision on the host.
pub fn cpu() -> Options {
    Options::new(Device::Cpu)
}

/// The head with so many logits.
pub fn head(labels: i64) -> Head {
    match labels {
        1 => Head::Scores(1),
        n => Head::Classes(n),
    }
}

/// The tiny BERT of `folder` with its weights.
pub fn bert(folder: &str, labels: i64) -> Box<dyn Backbone> {
    let config = fixture(folder).join("config.json");
    let model = build("bert", &config, head(labels), &cpu()).unwrap();
    weights::load(model.as_ref(), &fixture(folder).join("model.safetensors")).unwrap();
    model
}

pub fn batch(io: &BTreeMap<String, Tensor>, i: usize) -> Batch {
    let get = |name: &str| io[&format!("batch{i}.{name}")].shallow_clone();
    Batch {
        token_type_ids: Some(get("token_type_ids")),
        ..Batch::new(get("input_ids"), get("attention_mask"))
    }
}

/// ‖found - expected‖∞ / ‖expected‖∞.
pub fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let scale = expected.abs().max().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / scale.max(1e-30)
}

/// Cross entropy over classes, squared error of one score.
pub fn loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    if logits.size()[1] == 1 {
        logits.squeeze_dim(1).mse_loss(labels, Reduction::Mean)
    } else {
        logits.cross_entropy_for_logits(labels)
    }
}
