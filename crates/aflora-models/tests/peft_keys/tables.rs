//! Tables and heads in a folder, held against the base model's.

use crate::common::{cpu, fixture, relative, tensors};
use crate::{changed, given, model, opened};
use aflora_models::adapter_folder::AdapterFolder;
use aflora_models::{build, weights, Backbone, Head};
use std::path::Path;
use tch::{Kind, Reduction, Tensor};

fn refused(name: &str, backbone: Box<dyn Backbone>, folder: &Path) -> String {
    let open = AdapterFolder::open(folder).unwrap();
    match open.attach(backbone, Kind::Float) {
        Ok(_) => panic!("{name} was not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_vocabulary_that_is_enlarged_in_one_of_two_tables_is_refused() {
    let folder = changed("llama/enlarged", |all| {
        assert!(all.remove("base_model.model.lm_head.weight").is_some());
    });
    let error = refused("llama", model("llama").0, folder.path());
    let words = "has 83 words there, which asks for `lm_head.weight` of shape [83, 32]";
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_vocabulary_without_the_tokens_that_end_a_text_is_refused() {
    let folder = changed("llama/enlarged", |all| {
        for name in ["model.embed_tokens", "lm_head"] {
            let table = all.get_mut(&format!("base_model.model.{name}.weight")).unwrap();
            *table = table.narrow(0, 0, 1).copy();
        }
    });
    let error = refused("llama", model("llama").0, folder.path());
    assert!(error.contains("has 1 words there, the model needs"), "{error}");
}

#[test]
fn an_adapter_on_a_head_that_the_base_model_lacks_is_refused() {
    let bare = tempfile::tempdir().unwrap();
    let from = fixture("bert_classes");
    std::fs::copy(from.join("config.json"), bare.path().join("config.json")).unwrap();
    let mut all = tensors("bert_classes/model.safetensors");
    all.retain(|name, _| !name.starts_with("classifier"));
    let all: Vec<_> = all.into_iter().collect();
    Tensor::write_safetensors(&all, bare.path().join("model.safetensors")).unwrap();
    let config = bare.path().join("config.json");
    let backbone = build("bert", &config, Head::Classes(2), &cpu()).unwrap();
    weights::load(backbone.as_ref(), bare.path()).unwrap();
    let error = refused("bert", backbone, &fixture("peft_keys/bert/head"));
    assert!(error.contains("`classifier.weight` is not the folder's, but has an"), "{error}");
}

#[test]
fn what_stands_in_the_folder_as_the_base_model_has_it_is_not_saved_again() {
    let path = fixture("peft_keys/gpt2/head");
    let adapted = opened("gpt2", &path);
    assert_eq!(adapted.saved_weights().len(), 0);
    assert!(tensors("peft_keys/gpt2/head/adapter_model.safetensors")
        .contains_key("base_model.model.lm_head.base_layer.weight"));
}

#[test]
fn a_loss_in_chunks_trains_whatever_is_on_the_head() {
    for (name, folder) in
        [("llama", "head"), ("llama", "whole"), ("gpt2", "head"), ("bart", "all_tables")]
    {
        let adapted = opened(name, &fixture("peft_keys").join(name).join(folder));
        let given = given(name, folder);
        let read = given.decoder_input_ids.as_ref().unwrap_or(&given.input_ids);
        let labels = read.roll([-1], [1]);
        let _ = labels.narrow(1, 0, 2).fill_(-100);
        let parameters = adapted.parameters();
        let leaves: Vec<&Tensor> = parameters.iter().map(|parameter| &parameter.leaf).collect();
        let gradients = |loss: &Tensor| Tensor::run_backward(&[loss], &leaves, false, false);

        let logits = adapted.forward(&given, false).unwrap().logits.flatten(0, 1);
        let (labels_in_row, none) = (labels.flatten(0, 1), None::<&Tensor>);
        let whole = logits.cross_entropy_loss(&labels_in_row, none, Reduction::Sum, -100, 0.1);
        let tokens = adapted.next_tokens(&given, false).unwrap().in_chunks_of(3);
        let chunked = tokens.loss(&labels, 0.1).unwrap();
        assert!(relative(&chunked, &whole) < 1e-6, "{name}/{folder}");

        let mut of_head = 0;
        let found = gradients(&(chunked / 7.0));
        let expected = gradients(&(whole / 7.0));
        for ((parameter, found), expected) in parameters.iter().zip(&found).zip(&expected) {
            let name = format!("{name}/{folder}: {}", parameter.name);
            assert!(found.defined() && expected.defined(), "{name}");
            assert!(relative(found, expected) < 1e-5, "{name}");
            of_head += usize::from(parameter.name.starts_with("lm_head."));
        }
        assert!(of_head > 0, "{name}/{folder}: nothing trains on the head");
    }
}
