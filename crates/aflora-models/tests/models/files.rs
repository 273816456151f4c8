//! Weights and adapter folders: what loads, and what is refused in words.

use crate::common::{bert, cpu, fixture, tensors};
use aflora_core::adapter::Plain;
use aflora_models::{build, weights, AdaptedModel, Head, Targets};
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn write(path: &Path, tensors: &[(String, Tensor)]) {
    Tensor::write_safetensors(tensors, path).unwrap();
}

fn checkpoint() -> Vec<(String, Tensor)> {
    tensors("bert_classes/model.safetensors").into_iter().collect()
}

fn load(path: &Path) -> Result<weights::LoadReport, String> {
    let config = fixture("bert_classes/config.json");
    let model = build("bert", &config, Head::Classes(2), &cpu()).unwrap();
    weights::load(model.as_ref(), path).map_err(|e| e.to_string())
}

#[test]
fn a_bare_encoder_without_prefix_loads_and_its_head_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut bare: Vec<(String, Tensor)> = checkpoint()
        .into_iter()
        .filter_map(|(name, t)| Some((name.strip_prefix("bert.")?.to_string(), t)))
        .collect();
    bare.push(("embeddings.position_ids".into(), Tensor::arange(64, (Kind::Float, Device::Cpu))));
    bare.push(("cls.predictions.bias".into(), Tensor::zeros([3], (Kind::Float, Device::Cpu))));
    write(&path, &bare);
    let report = load(&path).unwrap();
    assert_eq!(report.new, ["classifier.bias", "classifier.weight"]);
    assert_eq!(report.unused, ["cls.predictions.bias"]);
    assert_eq!(report.loaded, 39);
}

#[test]
fn old_layer_norm_names_and_half_precision_load() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let old: Vec<(String, Tensor)> = checkpoint()
        .into_iter()
        .map(|(name, t)| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
            (name.replace("LayerNorm.bias", "LayerNorm.beta"), t.to_kind(Kind::Half))
        })
        .collect();
    write(&path, &old);
    assert_eq!(load(&path).unwrap().loaded, 41);
}

#[test]
fn every_tensor_that_does_not_fit_is_named_and_nothing_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut broken = checkpoint();
    broken.retain(|(name, _)| name != "bert.pooler.dense.bias");
    for (name, tensor) in &mut broken {
        if name.contains("layer.1.attention.self.query.weight") {
            *tensor = tensor.narrow(0, 0, 8).copy();
        }
    }
    write(&path, &broken);
    let config = fixture("bert_classes/config.json");
    let model = build("bert", &config, Head::Classes(2), &cpu()).unwrap();
    let word = || model.var_store().variables()["bert.embeddings.word_embeddings.weight"].copy();
    let before = word();
    let error = weights::load(model.as_ref(), &path).unwrap_err().to_string();
    assert!(error.contains("`bert.pooler.dense.bias` is missing"), "{error}");
    assert!(error.contains("query.weight` has shape [8, 32] there, [32, 32] in"), "{error}");
    assert_eq!(word(), before);
}

#[test]
fn a_weight_of_whole_numbers_is_named_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut broken = checkpoint();
    for (name, tensor) in &mut broken {
        // Late in the order in which tensors are copied.
        if name == "bert.pooler.dense.weight" {
            *tensor = tensor.to_kind(Kind::Int64);
        }
    }
    write(&path, &broken);
    let config = fixture("bert_classes/config.json");
    let model = build("bert", &config, Head::Classes(2), &cpu()).unwrap();
    let word = || model.var_store().variables()["bert.embeddings.word_embeddings.weight"].copy();
    let before = word();
    let error = weights::load(model.as_ref(), &path).unwrap_err().to_string();
    assert!(error.contains("`bert.pooler.dense.weight` is of type Int64; expected"), "{error}");
    assert_eq!(word(), before);
}

#[test]
fn a_head_for_other_labels_is_new() {
    let config = fixture("bert_classes/config.json");
    let model = build("bert", &config, Head::Classes(3), &cpu()).unwrap();
    let path = fixture("bert_classes/model.safetensors");
    let report = weights::load_for(model.as_ref(), &path, &[]).unwrap();
    assert_eq!(report.new, ["classifier.bias", "classifier.weight"]);
    let said =
        "`classifier.bias` of the weights has shape [2], the task's head [3]: it starts anew";
    assert_eq!(report.warnings[0], said);
    weights::initialise(model.as_ref(), &report.new, 1).unwrap();
    let head = &model.var_store().variables()["classifier.bias"];
    assert_eq!(head.abs().max().double_value(&[]), 0.0);
}

#[test]
fn a_truncated_or_foreign_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(fixture("bert_classes/model.safetensors")).unwrap();
    for cut in [0, 5, 200, whole.len() - 100] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = load(&path).unwrap_err();
        assert!(error.contains("not a readable safetensors file"), "{cut}: {error}");
    }
    std::fs::write(&path, vec![0xff; 64]).unwrap();
    assert!(load(&path).is_err());
    assert!(load(&folder.path().join("absent")).unwrap_err().contains("absent"));
}

#[test]
fn a_config_that_would_be_built_wrongly_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(fixture("bert_classes/config.json")).unwrap();
    for (from, to, expected) in [
        ("\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"", "model_type is `gpt2`"),
        ("\"num_attention_heads\": 4", "\"num_attention_heads\": 5", "no multiple"),
        ("\"num_attention_heads\": 4", "\"num_attention_heads\": 0", "`num_attention_heads` must"),
        ("{", "{ \"position_embedding_type\": \"relative_key\",", "relative_key"),
        (
            "\"add_cross_attention\": false",
            "\"add_cross_attention\": true",
            "`add_cross_attention` is true",
        ),
        ("\"is_decoder\": false", "\"is_decoder\": true", "`is_decoder` is true"),
        (
            "\"hidden_dropout_prob\": 0.1",
            "\"hidden_dropout_prob\": 1.5",
            "`hidden_dropout_prob` is 1.5; it must be at least 0 and below 1",
        ),
        ("{", "", "not a Hugging Face config.json"),
        ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"sine\"", "sine"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = build("bert", &path, Head::Classes(2), &cpu()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = build("xlnet", &path, Head::Classes(2), &cpu()).unwrap_err().to_string();
    assert!(error.contains("`xlnet` are not built"), "{error}");
}

#[test]
fn module_names_that_match_nothing_are_refused() {
    let modules = ["pooler".to_string()];
    let model = AdaptedModel::new(
        bert("bert_classes", 2),
        &Plain::Head,
        &Targets::default(),
        &modules,
        Kind::Float,
        1,
    );
    let error = model.unwrap_err().to_string();
    assert!(error.contains("train_modules: `pooler` names no module"), "{error}");
    let modules = ["bert.pooler".to_string()];
    let model = AdaptedModel::new(
        bert("bert_classes", 2),
        &Plain::Head,
        &Targets::default(),
        &modules,
        Kind::Float,
        1,
    )
    .unwrap();
    assert_eq!(model.parameters().len(), 4);
}
