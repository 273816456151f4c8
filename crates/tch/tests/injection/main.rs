//! rust-bert's models, whose layers are private, take adapters by the slots of
//! aflora-core's linear layers, which the facade gives them: in a few lines of the user's own code.

mod models;

use aflora_core::adapter::{LoraConfig, MethodConfig};
use aflora_core::nn::{capture, capture_named, NamedLinear, VarStore};
use aflora_core::{Injection, Span, Tuner, TunerConfig};
use aflora_models::adapter_folder::{self, AdapterFolder, Description};
use aflora_models::{Pattern, Targets};
use models::{models, Logits, Model, EOS};
use rust_bert::bert::{BertConfig, BertForSequenceClassification};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::nn::Path;
use tch::{Device, Kind, Tensor};

/// A tiny model of aflora-models' tests, with what transformers makes of it.
fn fixture(name: &str) -> PathBuf {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../aflora-models/tests/fixtures");
    PathBuf::from(models).join(name)
}

/// ‖found - expected‖∞ / ‖expected‖∞.
fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let scale = expected.abs().max().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / scale.max(1e-30)
}

#[test]
fn what_is_put_into_the_layers_of_rust_berts_bert_counts_as_in_the_weights() {
    let text = std::fs::read(fixture("bert_classes/config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["id2label"] = json!({ "0": "a", "1": "b" });
    let config: BertConfig = serde_json::from_value(config).unwrap();
    let mut vs = VarStore::new(Device::Cpu);
    let (model, layers) =
        capture(|| BertForSequenceClassification::new(vs.root(), &config).unwrap());
    vs.load(fixture("bert_classes/model.safetensors")).unwrap();
    vs.freeze();
    let io: BTreeMap<String, Tensor> =
        Tensor::read_safetensors(fixture("bert_classes/io.safetensors"))
            .unwrap()
            .into_iter()
            .collect();
    let logits = || {
        let given = |name: &str| Some(&io[&format!("batch0.{name}")]);
        let (ids, mask, types) =
            (given("input_ids"), given("attention_mask"), given("token_type_ids"));
        model.forward_t(ids, mask, types, None, None, false).logits
    };
    let plain = logits();
    assert!(relative(&plain, &io["batch0.logits"]) < 1e-5);

    // Two blocks of six layers, the pooler and the classifier.
    assert_eq!(layers.len(), 14);
    let path = |ws: &Tensor| -> [Tensor; 2] {
        let (out, features) = ws.size2().unwrap();
        let random = |shape, name| aflora_core::adapter::normal(shape, 0.1, 1, name);
        [random(&[2, features], "down"), random(&[out, 2], "up")]
    };
    for layer in &layers {
        let [down, up] = path(&layer.ws);
        layer.set(Box::new(move |x, weight, bias| {
            let low = x.linear(&down, None::<Tensor>).linear(&up, None::<Tensor>);
            weight.linear(x, bias) + low
        }));
    }
    let adapted = logits();
    assert!(relative(&adapted, &plain) > 0.01);
    for layer in &layers {
        layer.clear();
        let [down, up] = path(&layer.ws);
        let _ = layer.ws.shallow_clone().g_add_(&up.matmul(&down));
    }
    assert_eq!(adapted.kind(), Kind::Float);
    assert!(relative(&logits(), &adapted) < 1e-5);
}

/// A model of rust-bert's with the layers that were captured while it was built.
struct Built {
    vs: VarStore,
    logits: Logits,
    layers: Vec<NamedLinear>,
}

fn built(build: fn(&Path) -> Logits) -> Built {
    let vs = VarStore::new(Device::Cpu);
    let (logits, layers) = capture_named(&vs, || build(&vs.root()));
    Built { vs, logits, layers }
}

fn lora() -> MethodConfig {
    MethodConfig::Lora(LoraConfig { rank: 4, alpha: 8.0, ..Default::default() })
}

fn targets(regex: &str) -> Targets {
    Targets { target_modules: Pattern::Regex(regex.into()), ..Default::default() }
}

/// Ids `[8, 6]` that end as texts do, and what they are to be taken for, `[8]`.
fn rows() -> (Tensor, Tensor) {
    let ids = Tensor::randint_low(3, 30, [8, 6], (Kind::Int64, Device::Cpu));
    let _ = ids.select(1, -1).fill_(EOS);
    (ids, Tensor::from_slice(&[0i64, 1, 0, 1, 1, 0, 1, 0]))
}

fn copies(vs: &VarStore) -> BTreeMap<String, Tensor> {
    vs.variables().into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
}

/// Trains; gives the first loss, the last, and the names of what no update moved.
fn train(built: &Built, injection: &Injection, method: &MethodConfig) -> (f64, f64, Vec<String>) {
    let config = TunerConfig {
        lr: 2e-2,
        head_lr: 2e-2,
        max_grad_norm: None,
        warmup: Span::Share(0.0),
        ..Default::default()
    };
    let method = method.build().unwrap();
    let mut tuner = Tuner::new(config, &*method, injection.parameters(), 20, 20).unwrap();
    let (ids, labels) = rows();
    injection.set_training(true);
    let losses: Vec<f64> = (0..20)
        .map(|_| {
            let loss = (built.logits)(&ids, true).cross_entropy_for_logits(&labels);
            tuner.step(&loss).unwrap().loss.double_value(&[])
        })
        .collect();
    injection.set_training(false);
    (losses[0], losses[19], tuner.unmoved().unwrap())
}

/// What every model must pass.
fn takes_adapters(model: &Model) {
    let Model { name, build, head, .. } = *model;
    tch::manual_seed(5);
    let tiny = built(build);
    let before = copies(&tiny.vs);
    let method = lora();
    let chosen = targets(model.targets).choose(&tiny.vs, &tiny.layers).unwrap();
    let injection = Injection::new(&tiny.vs, chosen, &*method.build().unwrap(), head, 42).unwrap();

    let (first, last, unmoved) = train(&tiny, &injection, &method);
    assert!(last < 0.9 * first, "{name}: the loss goes from {first} to {last}");
    assert_eq!(unmoved, [""; 0], "{name}");
    for (weight, now) in copies(&tiny.vs) {
        let same = now.equal(&before[&weight]);
        assert_eq!(same, !injection.is_trained(&weight), "{name}: {weight}");
    }
    assert_eq!(injection.trained_weights().is_empty(), head.is_empty(), "{name}");

    let (ids, _) = rows();
    let logits = |built: &Built| tch::no_grad(|| (built.logits)(&ids, false));
    let trained = logits(&tiny);
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("adapter");
    adapter_folder::save(&injection, &folder, &Description::new(method, &injection)).unwrap();
    let again = built(build);
    tch::no_grad(|| {
        for (name, mut weight) in again.vs.variables() {
            weight.copy_(&before[&name]);
        }
    });
    assert!(relative(&logits(&again), &trained) > 1e-2, "{name}");
    let opened = AdapterFolder::open(&folder).unwrap().inject(&again.vs, &again.layers).unwrap();
    assert_eq!(opened.trained_modules(), head, "{name}");
    assert!(relative(&logits(&again), &trained) < 1e-6, "{name}");

    injection.merge().unwrap();
    assert!(relative(&logits(&tiny), &trained) < 1e-4, "{name}");
    opened.remove();
    assert!(relative(&logits(&again), &trained) > 1e-3, "{name}");
}

#[test]
fn rust_berts_models_take_adapters_that_train_merge_and_come_back_from_their_folder() {
    for model in models() {
        takes_adapters(&model);
    }
}

#[test]
fn a_layer_that_has_no_slot_is_refused_by_its_name() {
    let built = built(models::gpt2);
    let refused = targets(r"transformer\.h\.\d+\.attn\.c_attn").choose(&built.vs, &built.layers);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("`transformer.h.0.attn.c_attn` is a weight of the model"), "{text}");
    let unknown = targets("nothing").choose(&built.vs, &built.layers).unwrap_err().to_string();
    assert!(unknown.contains("matches no linear layer"), "{unknown}");
}

#[test]
fn a_layer_that_the_model_goes_around_shows_as_unmoved() {
    let albert = models().into_iter().find(|model| model.name == "ALBERT").unwrap();
    let built = built(albert.build);
    let chosen = targets(r".*\.attention\.(dense|query)").choose(&built.vs, &built.layers).unwrap();
    let method = lora();
    let injection =
        Injection::new(&built.vs, chosen, &*method.build().unwrap(), albert.head, 1).unwrap();
    let (_, _, unmoved) = train(&built, &injection, &method);
    assert!(!unmoved.is_empty());
    assert!(unmoved.iter().all(|name| name.contains("attention.dense")), "{unmoved:?}");
}

#[test]
fn an_adapter_of_another_model_is_refused_layer_by_layer() {
    let tiny = models();
    let bert = built(tiny[0].build);
    let chosen = targets(tiny[0].targets).choose(&bert.vs, &bert.layers).unwrap();
    let method = lora();
    let injection =
        Injection::new(&bert.vs, chosen, &*method.build().unwrap(), tiny[0].head, 1).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("adapter");
    adapter_folder::save(&injection, &folder, &Description::new(method, &injection)).unwrap();
    let roberta = built(tiny[1].build);
    let refused = AdapterFolder::open(&folder).unwrap().inject(&roberta.vs, &roberta.layers);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("no adaptable layer `bert.encoder.layer.0"), "{text}");
}
