//! Classes of every token, against transformers (`fixtures/make_tokens.py`).

use crate::common::{cpu, fixture, relative, tensors};
use aflora_models::{build, check_kind, kind_of, weights, Backbone, Batch, Head};
use std::collections::BTreeMap;
use std::fs;
use tch::{Kind, Reduction, Tensor};

/// A tiny model, its name, and what transformers gives for it.
type Model = (String, Box<dyn Backbone>, BTreeMap<String, Tensor>);

fn models() -> Vec<Model> {
    let files = fs::read_dir(fixture("tokens")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> =
        files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    names.sort();
    assert!(names.len() >= 9);
    let model = |name: String| {
        let io = tensors(&format!("tokens/{name}.safetensors"));
        let config = fixture(&format!("models/{name}/config.json"));
        let head = Head::Tokens(io["logits"].size()[2]);
        let model = build(kind_of(&config).unwrap().kind, &config, head, &cpu()).unwrap();
        let body = tensors(&format!("models/{name}/model.safetensors"));
        for (weight, mut variable) in model.var_store().variables() {
            let own = io.get(&format!("head.{weight}")).or_else(|| body.get(&weight));
            let own = own.unwrap_or_else(|| panic!("{name} has no {weight}"));
            tch::no_grad(|| variable.copy_(own));
        }
        (name, model, io)
    };
    names.into_iter().map(model).collect()
}

fn batch(io: &BTreeMap<String, Tensor>) -> Batch {
    let get = |name: &str| io[name].shallow_clone();
    Batch {
        token_type_ids: Some(get("token_type_ids")),
        ..Batch::new(get("input_ids"), get("attention_mask"))
    }
}

#[test]
fn classes_of_tokens_and_their_gradients_agree_with_transformers() {
    for (name, model, io) in models() {
        for (weight, variable) in model.var_store().variables() {
            let _ = variable.set_requires_grad(io.contains_key(&format!("grad.{weight}")));
        }
        let logits = model.forward(&batch(&io), false).unwrap().logits;
        let real = io["attention_mask"].unsqueeze(-1).to_kind(Kind::Float);
        let error = relative(&(&logits * &real), &(&io["logits"] * &real));
        assert!(error < 2e-5, "{name}: {error:e}");
        let (flat, labels) = (logits.flatten(0, 1), io["labels"].flatten(0, 1));
        let none = None::<&Tensor>;
        let loss = flat.cross_entropy_loss(&labels, none, Reduction::Mean, -100, 0.0);
        assert!(relative(&loss, &io["loss"]) < 1e-5, "{name}");
        loss.backward();
        let mut compared = 0;
        for (weight, variable) in model.var_store().variables() {
            if let Some(expected) = io.get(&format!("grad.{weight}")) {
                let error = relative(&variable.grad(), expected);
                assert!(error < 1e-4, "{name}, {weight}: {error:e}");
                compared += 1;
            }
        }
        assert_eq!(compared, 3, "{name}");
    }
}

#[test]
fn a_kind_without_classes_of_tokens_is_named_as_such() {
    for kind in ["bart", "gptj", "gemma3_text"] {
        let words = check_kind(kind, Head::Tokens(3)).unwrap_err().to_string();
        assert!(
            words.contains("labels tokens") && words.contains("albert, bert, deberta, deberta-v2"),
            "{words}"
        );
        let config = fixture(&format!("models/{kind}/config.json"));
        assert!(build(kind, &config, Head::Tokens(3), &cpu()).is_err());
    }
}

/// A pretrained T5 has both sides, under names without a model's before them.
#[test]
fn a_t5_that_writes_gives_its_encoder_to_classes_of_tokens() {
    for folder in ["writers/t5", "writers/t5_gated"] {
        let config = fixture(folder).join("config.json");
        let model = build("t5", &config, Head::Tokens(3), &cpu()).unwrap();
        let report = weights::load(model.as_ref(), &fixture(folder)).unwrap();
        assert_eq!(report.new, ["classifier.bias", "classifier.weight"], "{folder}");
        let other = |name: &&String| !name.starts_with("decoder.") && *name != "lm_head.weight";
        assert_eq!(report.unused.iter().find(other), None, "{folder}");
        let layers = model.linears().iter().map(|layer| layer.site.name.as_str());
        let apart: Vec<&str> =
            layers.filter(|name| !name.starts_with("transformer.encoder.")).collect();
        assert!(apart.is_empty(), "{apart:?}");
    }
}
