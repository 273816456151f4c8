//! Noise on the words of every model: in training alone, and as much as is said.

use crate::alone;
use crate::common::tiny::Tiny;
use crate::common::{cpu, relative};
use aflora_core::adapter::{LoraConfig, MethodConfig};
use aflora_models::{build, weights, AdaptedModel, Backbone, Options, Pattern, Targets};
use serde_json::Value;
use tch::Kind;

/// A model of `fixtures`, without dropout of its own, with noise.
fn noisy(tiny: &Tiny, options: &Options, alpha: f64) -> AdaptedModel {
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("config.json");
    std::fs::write(&config, tiny.without_dropout()).unwrap();
    let backbone = build(tiny.kind, &config, tiny.head, options).unwrap();
    weights::load(backbone.as_ref(), &tiny.path()).unwrap();
    adapted(backbone, alpha)
}

/// The model with adapters and noise.
fn adapted(backbone: Box<dyn Backbone>, alpha: f64) -> AdaptedModel {
    let targets = Targets { target_modules: Pattern::Regex(".*".into()), ..Default::default() };
    let method = MethodConfig::Lora(LoraConfig::default()).build().unwrap();
    let model = AdaptedModel::new(backbone, method.as_ref(), &targets, &[], Kind::Float, 3);
    model.unwrap().with_noise(alpha)
}

#[test]
fn words_get_noise_in_training_alone() {
    let _alone = alone();
    for tiny in Tiny::classifiers().iter().chain(&Tiny::writers()) {
        let batch = tiny.batch(0);
        let logits = |model: &AdaptedModel, train, seed| {
            tch::manual_seed(seed);
            model.forward(&batch, train).unwrap().logits.detach()
        };
        let (plain, model) = (noisy(tiny, &cpu(), 0.0), noisy(tiny, &cpu(), 5.0));
        let right = logits(&plain, true, 1);
        let name = &tiny.folder;
        assert!(relative(&logits(&plain, false, 1), &right) < 1e-6, "{name}");
        let first = logits(&model, true, 1);
        assert!(relative(&first, &right) > 1e-4, "{name} has no noise");
        assert!(logits(&model, true, 1).equal(&first), "{name}: the same by the same seed");
        assert!(!logits(&model, true, 2).equal(&first), "{name}: another by another seed");
        assert!(relative(&logits(&model, false, 1), &right) < 1e-6, "{name} outside of training");
    }
}

/// As in transformers, whose scale is the embedding's own: noise is as large beside words that are
/// multiplied by √hidden as beside those of a table that was.
#[test]
fn noise_comes_behind_bart_s_scale() {
    let _alone = alone();
    let tiny = Tiny::of("models/bart");
    let without: Value = serde_json::from_str(&tiny.without_dropout()).unwrap();
    let batch = tiny.batch(0);
    let logits = |scaled: bool, alpha: f64| {
        let place = tempfile::tempdir().unwrap();
        let config = place.path().join("config.json");
        let mut keys = without.clone();
        keys["scale_embedding"] = scaled.into();
        std::fs::write(&config, keys.to_string()).unwrap();
        let backbone = build(tiny.kind, &config, tiny.head, &cpu()).unwrap();
        weights::load(backbone.as_ref(), &tiny.path()).unwrap();
        let mut words = backbone.var_store().variables().remove("model.shared.weight").unwrap();
        if !scaled {
            let _ = tch::no_grad(|| words.g_mul_scalar_((words.size()[1] as f64).sqrt()));
        }
        let model = adapted(backbone, alpha);
        tch::manual_seed(1);
        model.forward(&batch, true).unwrap().logits.detach()
    };
    assert!(relative(&logits(true, 0.0), &logits(false, 0.0)) < 1e-5);
    assert!(relative(&logits(true, 5.0), &logits(true, 0.0)) > 1e-3);
    assert!(relative(&logits(true, 5.0), &logits(false, 5.0)) < 1e-5);
}
