//! Logits and gradients equal to those of Hugging Face transformers.

use crate::common::{batch, bert, loss, relative, tensors};
use aflora_core::adapter::{Aflora, AfloraConfig, PmTrainable};
use aflora_models::{AdaptedModel, Pattern, Targets};
use tch::{Kind, Tensor};

const LIMIT: f64 = 1e-5;

#[test]
fn bert_agrees_with_transformers_in_logits_losses_and_every_gradient() {
    for (folder, labels) in [("bert_classes", 2), ("bert_score", 1)] {
        let model = bert(folder, labels);
        let io = tensors(&format!("{folder}/io.safetensors"));
        for i in 0..3 {
            let logits = model.forward(&batch(&io, i), false).unwrap().logits;
            let error = relative(&logits, &io[&format!("batch{i}.logits")]);
            assert!(error < LIMIT, "{folder}, batch {i}: logits {error:e}");
            let loss = loss(&logits, &io[&format!("batch{i}.labels")]);
            let error = relative(&loss, &io[&format!("batch{i}.loss")]);
            assert!(error < LIMIT, "{folder}, batch {i}: loss {error:e}");
        }
        for variable in model.var_store().variables().values() {
            let _ = variable.set_requires_grad(true);
        }
        let logits = model.forward(&batch(&io, 1), false).unwrap().logits;
        loss(&logits, &io["batch1.labels"]).backward();
        let mut compared = 0;
        for (name, variable) in model.var_store().variables() {
            let expected = &io[&format!("batch1.grad.{name}")];
            // The key's bias has no influence: softmax takes it away. Both are rounding noise.
            if name.ends_with("self.key.bias") {
                assert!(variable.grad().abs().max().double_value(&[]) < 1e-6);
                continue;
            }
            let error = relative(&variable.grad(), expected);
            assert!(error < LIMIT, "{folder}: gradient of {name} {error:e}");
            compared += 1;
        }
        assert_eq!(compared, 39, "every weight but two key biases");
    }
}

fn targets() -> Targets {
    let names = ["query", "key", "value", "intermediate.dense", "output.dense"];
    let target_modules = Pattern::Names(names.map(String::from).to_vec());
    Targets { target_modules, ..Default::default() }
}

fn adapted(base: Kind) -> AdaptedModel {
    let config = AfloraConfig { pm_trainable: PmTrainable::All, ..Default::default() };
    let method = Aflora::new(config).unwrap();
    let model = bert("bert_classes", 2);
    let model = AdaptedModel::new(model, &method, &targets(), &[], base, 1).unwrap();
    let golden = tensors("bert_classes/adapted.safetensors");
    for adapter in model.adapters() {
        for mut t in adapter.tensors() {
            let value = &golden[&format!("{}.{}", adapter.site().name, t.spec.name)];
            tch::no_grad(|| t.tensor.copy_(value));
        }
    }
    model
}

#[test]
fn injected_adapters_give_the_logits_and_gradients_of_wrapped_python_modules() {
    let model = adapted(Kind::Float);
    let golden = tensors("bert_classes/adapted.safetensors");
    let io = tensors("bert_classes/io.safetensors");
    let logits = model.forward(&batch(&io, 1), false).unwrap().logits;
    assert!(relative(&logits, &golden["logits"]) < LIMIT);
    loss(&logits, &io["batch1.labels"]).backward();
    let parameters = model.parameters();
    assert_eq!(parameters.len(), 12 * 4 + 2);
    for parameter in parameters {
        let error = relative(&parameter.leaf.grad(), &golden[&format!("grad.{}", parameter.name)]);
        assert!(error < LIMIT, "{}: {error:e}", parameter.name);
    }
    for (name, variable) in model.backbone().var_store().variables() {
        let trained = name.starts_with("classifier.");
        assert_eq!(variable.requires_grad(), trained, "{name}");
    }
}

#[test]
fn a_bf16_base_stays_near_the_fp32_one_and_trains_in_fp32() {
    let io = tensors("bert_classes/io.safetensors");
    let run = |base| {
        let model = adapted(base);
        let logits = model.forward(&batch(&io, 1), false).unwrap().logits;
        loss(&logits, &io["batch1.labels"]).backward();
        (model, logits)
    };
    let ((fp32, exact), (bf16, rough)) = (run(Kind::Float), run(Kind::BFloat16));
    assert_eq!(rough.kind(), Kind::Float);
    let error = relative(&rough, &exact);
    // bf16 keeps 8 bits: 2⁻⁹ a rounding, some dozens of them in a row.
    assert!(error > 0.0 && error < 0.05, "{error}");
    let (mut dot, mut norms) = (0.0, (0.0, 0.0));
    for (a, b) in fp32.parameters().iter().zip(bf16.parameters()) {
        assert_eq!((b.leaf.kind(), b.leaf.grad().kind()), (Kind::Float, Kind::Float), "{}", b.name);
        let sum = |x: &Tensor, y: &Tensor| (x * y).sum(Kind::Double).double_value(&[]);
        let (x, y) = (a.leaf.grad(), b.leaf.grad());
        dot += sum(&x, &y);
        norms = (norms.0 + sum(&x, &x), norms.1 + sum(&y, &y));
    }
    let cosine = dot / f64::sqrt(norms.0 * norms.1);
    assert!(cosine > 0.99, "the gradients point the same way: {cosine}");
}

#[test]
fn dropout_acts_in_training_only() {
    let model = adapted(Kind::Float);
    let io = tensors("bert_classes/io.safetensors");
    let logits = |train| model.forward(&batch(&io, 0), train).unwrap().logits;
    assert_eq!(logits(false), logits(false));
    assert_ne!(logits(true), logits(true));
}
