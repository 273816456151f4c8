//! Every backbone's logits, losses and gradients equal to those of Hugging Face transformers.

mod common;

use aflora_models::{build, build_writer, shapes_only, weights, Backbone, WriterOptions};
use common::{batch, fixture, loss, relative, tensors};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

const LIMIT: f64 = 1e-5;

fn load(name: &str, kind: &str, labels: i64) -> (Box<dyn Backbone>, BTreeMap<String, Tensor>) {
    let folder = fixture("models").join(name);
    let model = build(kind, &folder.join("config.json"), labels, Device::Cpu).unwrap();
    let report = weights::load(model.as_ref(), &folder).unwrap();
    assert_eq!((report.new.len(), report.unused.len()), (0, 0), "{report:?}");
    (model, tensors(&format!("models/{name}/io.safetensors")))
}

/// The largest relative errors of the logits and of the gradients.
fn compare(name: &str, kind: &str, labels: i64) -> (f64, f64) {
    let (model, io) = load(name, kind, labels);
    let mut of_logits: f64 = 0.0;
    for i in 0..3 {
        let logits = model.forward(&batch(&io, i), false).unwrap();
        of_logits = of_logits.max(relative(&logits, &io[&format!("batch{i}.logits")]));
        let loss = loss(&logits, &io[&format!("batch{i}.labels")]);
        of_logits = of_logits.max(relative(&loss, &io[&format!("batch{i}.loss")]));
    }
    let variables = model.var_store().variables();
    for variable in variables.values() {
        let _ = variable.set_requires_grad(true);
    }
    let logits = model.forward(&batch(&io, 2), false).unwrap();
    loss(&logits, &io["batch2.labels"]).backward();
    let golden: Vec<(&str, &Tensor)> =
        io.iter().filter_map(|(key, t)| Some((key.strip_prefix("grad.")?, t))).collect();
    assert!(golden.len() + 1 >= variables.len(), "{name}: all but the word embeddings");
    let max = |t: &Tensor| t.abs().max().double_value(&[]);
    let largest = golden.iter().map(|(_, g)| max(g)).fold(0.0, f64::max);
    let mut of_gradients: f64 = 0.0;
    for (weight, expected) in golden {
        let found = variables[weight].grad();
        // A key's bias that softmax takes away has a gradient of nothing but rounding.
        if max(expected) < 1e-6 * largest {
            assert!(max(&found) < 1e-5 * largest, "{name}: {weight} {}", max(&found));
            continue;
        }
        let error = relative(&found, expected);
        assert!(error < 10.0 * LIMIT, "{name}: gradient of {weight} {error:e}");
        of_gradients = of_gradients.max(error);
    }
    (of_logits, of_gradients)
}

fn agrees(name: &str, kind: &str, labels: i64) {
    let (logits, gradients) = compare(name, kind, labels);
    println!("{name}: logits {logits:.1e}, gradients {gradients:.1e}");
    assert!(logits < LIMIT, "{name}: logits {logits:e}");
    assert!(gradients < LIMIT, "{name}: gradients {gradients:e}");
}

#[test]
fn deberta_v3_agrees_up_to_lengths_whose_distances_share_buckets() {
    agrees("deberta_v3", "deberta-v2", 2);
}

#[test]
fn every_switch_of_deberta_agrees() {
    agrees("deberta_v2_conv", "deberta-v2", 1);
    agrees("deberta_own_projections", "deberta-v2", 3);
    agrees("deberta_c2p", "deberta-v2", 2);
    agrees("deberta_p2c", "deberta-v2", 2);
    agrees("deberta_absolute", "deberta-v2", 2);
}

#[test]
fn roberta_agrees_with_its_own_epsilon() {
    agrees("roberta", "roberta", 2);
}

#[test]
fn roberta_counts_positions_from_any_padding_id() {
    agrees("roberta_pad", "roberta", 2);
}

#[test]
fn bert_agrees_with_another_epsilon_and_activation() {
    agrees("bert_eps", "bert", 2);
}

#[test]
fn distilbert_agrees() {
    agrees("distilbert", "distilbert", 3);
}

#[test]
fn electra_agrees_on_padded_batches() {
    agrees("electra", "electra", 2);
}

#[test]
fn albert_agrees_with_its_shared_block() {
    agrees("albert", "albert", 1);
}

#[test]
fn a_bf16_base_stays_near_single_precision() {
    for (name, kind) in
        [("deberta_v3", "deberta-v2"), ("roberta", "roberta"), ("electra", "electra")]
    {
        let (model, io) = load(name, kind, 2);
        let exact = model.forward(&batch(&io, 0), false).unwrap();
        tch::no_grad(|| {
            for variable in model.var_store().variables().into_values() {
                let mut variable = variable;
                variable.set_data(&variable.to_kind(Kind::BFloat16));
            }
        });
        let rough = model.forward(&batch(&io, 0), false).unwrap();
        assert_eq!(rough.kind(), Kind::Float);
        let error = relative(&rough, &exact);
        println!("{name}: bf16 {error:.1e}");
        // 2⁻⁹ a rounding, some hundred of them one after the other.
        assert!(error > 0.0 && error < 0.08, "{name}: {error}");
    }
}

#[test]
fn a_model_of_shapes_alone_is_the_model_and_its_large_weights_take_no_memory() {
    let of = |kind: &str, folder: &str| -> BTreeMap<String, Tensor> {
        let config = fixture(folder).join("config.json");
        let options = WriterOptions::new(Device::Cpu);
        let model = match folder.starts_with("writers") {
            true => build_writer(kind, &config, &options),
            false => build(kind, &config, 2, Device::Cpu),
        };
        model.unwrap().var_store().variables().into_iter().collect()
    };
    for (kind, folder) in [
        ("bert", "bert_classes"),
        ("deberta-v2", "models/deberta_v3"),
        ("llama", "writers/llama"),
        ("gpt2", "writers/gpt2"),
        ("bart", "writers/bart"),
    ] {
        let (whole, shapes) = (of(kind, folder), shapes_only(|| of(kind, folder)));
        let sizes = |model: &BTreeMap<String, Tensor>| -> Vec<(String, Vec<i64>)> {
            model.iter().map(|(name, t)| (name.clone(), t.size())).collect()
        };
        assert_eq!(sizes(&shapes), sizes(&whole), "{kind}");
        // One row stands for all of them.
        let large = shapes.iter().filter(|(_, t)| t.dim() == 2 && t.size()[0] > 1);
        for (name, weight) in large {
            assert_eq!(weight.stride()[0], 0, "{kind}: {name}");
        }
    }
}
