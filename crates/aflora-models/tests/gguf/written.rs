//! A model of each architecture, with adapters merged into it, as a file: read again by ourselves, and
//! by the `gguf` package with transformers.

use crate::common::adapters;
use crate::common::tiny::Tiny;
use crate::common::{cpu, fixture, relative};
use aflora_core::adapter::{LoraConfig, MethodConfig};
use aflora_models::gguf::Precision;
use aflora_models::weights::{self, read_tensors};
use aflora_models::{
    build, kind_of, merged_gguf, AdaptedModel, Backbone, Batch, Head, Pattern, TextEncoder,
};
use serde_json::{json, Value};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Kind, Tensor};

/// Tiny models of `writers`, and what their config.json has otherwise, so that files can tell it.
fn models() -> [(&'static str, Value); 10] {
    let scaled = json!({
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    [
        ("llama", json!({})),
        ("llama3", json!({ "rope_parameters": scaled })),
        ("llama_linear", json!({})),
        ("qwen2", json!({ "use_sliding_window": false, "layer_types": null })),
        ("qwen3", json!({})),
        ("qwen3_bias", json!({})),
        ("gemma", json!({})),
        ("gemma2", json!({ "query_pre_attn_scalar": 8 })),
        ("gemma3_text", json!({ "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0 })),
        ("phi3", json!({})),
    ]
}

/// The folder of a model with few tokens beside its config.json.
fn source(place: &Path, name: &str, otherwise: &Value) -> PathBuf {
    let folder = place.join(name);
    fs::create_dir(&folder).unwrap();
    let text = fs::read(fixture("writers").join(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config.as_object_mut().unwrap().extend(otherwise.as_object().unwrap().clone());
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let special = ["<s>", "<pad>", "</s>"];
    let added = special.iter().enumerate().map(|(id, token)| {
        json!({
            "id": id, "content": token, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        })
    });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": bytes,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "vocab": { "<s>": 0, "<pad>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5 },
            "merges": [["a", "b"]],
        },
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let named = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>",
    });
    fs::write(folder.join("tokenizer_config.json"), named.to_string()).unwrap();
    folder
}

/// A model with adapters on every layer, away from their start, made by `config`.
fn model(tiny: &Tiny, config: &Path) -> AdaptedModel {
    let backbone = build(tiny.kind, config, Head::Language, &cpu()).unwrap();
    weights::load(backbone.as_ref(), &tiny.path()).unwrap();
    adapted(backbone)
}

fn adapted(backbone: Box<dyn Backbone>) -> AdaptedModel {
    let lora = MethodConfig::Lora(LoraConfig::default());
    adapters::trained(&lora, backbone, Pattern::Regex(".*".into()))
}

fn write(model: &AdaptedModel, kind: &str, source: &Path, precision: Precision) -> PathBuf {
    let file = merged_gguf::make(model, kind, source, precision).unwrap();
    let path = source.join(format!("{precision:?}.gguf"));
    file.write(&mut fs::File::create(&path).unwrap()).unwrap();
    path
}

/// A row of tokens without padding.
fn given(tiny: &Tiny) -> Batch {
    let ids = tiny.io["right.input_ids"].narrow(0, 0, 1);
    Batch::new(ids.shallow_clone(), ids.ones_like())
}

#[test]
fn a_model_of_every_architecture_is_written_and_read_again() {
    let place = tempfile::tempdir().unwrap();
    for (name, otherwise) in models() {
        let tiny = Tiny::of(&format!("writers/{name}"));
        let source = source(place.path(), name, &otherwise);
        let model = model(&tiny, &source.join("config.json"));
        let raised = name.starts_with("gemma");
        let merged = model.merged_weights();
        for (precision, kind) in [(Precision::F32, Kind::Float), (Precision::Bf16, Kind::BFloat16)]
        {
            let path = write(&model, tiny.kind, &source, precision);
            let found = read_tensors(&path).unwrap();
            assert!(found.keys().eq(merged.keys()), "{name}: {:?}", found.keys());
            for (own, weight) in &merged {
                let expected = match (weight.dim(), raised && own.ends_with("norm.weight")) {
                    (1, true) => (weight + 1.0) - 1.0,
                    (1, false) => weight.shallow_clone(),
                    _ => weight.to_kind(kind).to_kind(Kind::Float),
                };
                assert!(found[own].equal(&expected), "{name}, {precision:?}: {own}");
            }
        }
        let path = source.join("F32.gguf");
        assert_eq!(kind_of(&path.join("config.json")).unwrap().kind, tiny.kind, "{name}");
        let again = build(tiny.kind, &path.join("config.json"), Head::Language, &cpu()).unwrap();
        let report = weights::load(again.as_ref(), &path).unwrap();
        assert_eq!((report.new.len(), report.unused.len()), (0, 0), "{name}: {report:?}");
        let given = given(&tiny);
        let logits = tch::no_grad(|| {
            [model.forward(&given, false), again.forward(&given, false)].map(|x| x.unwrap().logits)
        });
        let apart = relative(&logits[1], &logits[0]);
        assert!(apart < 1e-5, "{name}: {apart:e}");
        let encode = |folder: &Path| {
            TextEncoder::from_folder(folder, 8).unwrap().encode(&[("abba", None)]).unwrap()
        };
        assert_eq!(encode(&path), encode(&source), "{name}");
    }
}

#[test]
fn angles_scaled_by_yarn_are_written_for_the_architectures_that_llama_cpp_writes_them_for() {
    let place = tempfile::tempdir().unwrap();
    let yarn = |more: Value| {
        let mut scaling = json!({ "rope_type": "yarn", "factor": 4.0, "rope_theta": 500.0 });
        scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let windows = json!({ "use_sliding_window": false, "layer_types": null });
        let mut keys = json!({ "rope_parameters": scaling, "max_position_embeddings": 128 });
        keys.as_object_mut().unwrap().extend(windows.as_object().unwrap().clone());
        keys
    };
    let inner = json!({ "original_max_position_embeddings": 32, "beta_fast": 32, "mscale": null });
    for (name, otherwise) in
        [("llama_yarn", yarn(inner)), ("qwen2", yarn(json!({}))), ("qwen3", yarn(json!({})))]
    {
        let tiny = Tiny::of(&format!("writers/{name}"));
        let source = source(place.path(), name, &otherwise);
        let model = model(&tiny, &source.join("config.json"));
        let path = write(&model, tiny.kind, &source, Precision::F32);
        let again = build(tiny.kind, &path.join("config.json"), Head::Language, &cpu()).unwrap();
        weights::load(again.as_ref(), &path).unwrap();
        let given = given(&tiny);
        let of =
            |model: &dyn Backbone| tch::no_grad(|| model.forward(&given, false)).unwrap().logits;
        let (expected, found) = (of(model.backbone()), of(again.as_ref()));
        assert!(relative(&found, &expected) < 1e-5, "{name}");
        // The scaling says something.
        let plain = json!({ "rope_type": "default", "rope_theta": 500.0 });
        let mut config: Value =
            serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
        config["rope_parameters"] = plain;
        fs::write(source.join("config.json"), config.to_string()).unwrap();
        let other = build(tiny.kind, &source.join("config.json"), Head::Language, &cpu()).unwrap();
        weights::load(other.as_ref(), &path).unwrap();
        assert!(relative(&of(other.as_ref()), &expected) > 1e-3, "{name}");
    }
}

#[test]
fn what_a_file_does_not_tell_is_not_written_and_named() {
    let place = tempfile::tempdir().unwrap();
    let local = json!({
        "full_attention": { "rope_type": "default", "rope_theta": 1e6 },
        "sliding_attention": { "rope_type": "linear", "factor": 2.0, "rope_theta": 1e4 },
    });
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "rope_theta": 500.0 });
    for (name, otherwise, expected) in [
        ("gemma2", json!({}), "`query_pre_attn_scalar` is 6, which a GGUF file does not tell"),
        (
            "gemma2",
            json!({ "query_pre_attn_scalar": 8, "attn_logit_softcapping": null }),
            "`attn_logit_softcapping` is null, which a GGUF file of a Gemma 2 does not tell",
        ),
        (
            "gemma3_text",
            json!({ "query_pre_attn_scalar": 8, "layer_types":
                ["full_attention", "sliding_attention", "full_attention"] }),
            "`layer_types` does not come again after some layers",
        ),
        (
            "gemma3_text",
            json!({ "query_pre_attn_scalar": 8, "rope_parameters": local }),
            "the rotary scaling `linear` of layers with a window is not written",
        ),
        ("gemma", json!({ "hidden_act": "relu" }), "`hidden_act` is `relu`, which a GGUF file"),
        ("qwen2", json!({}), "`use_sliding_window` is true, which a GGUF file does not tell"),
        ("llama_yarn", json!({}), "`beta_fast` of the rotary scaling `yarn` is 4.0: that is not"),
        (
            "gemma",
            json!({ "rope_parameters": yarn }),
            "the rotary scaling `yarn` is not written to GGUF files of a gemma",
        ),
        (
            "llama3",
            json!({}),
            "`original_max_position_embeddings` of the rotary scaling is not 8192",
        ),
        (
            "mistral",
            json!({}),
            "GGUF files are written of models of the types llama, qwen2, qwen3,",
        ),
    ] {
        let folder = tempfile::tempdir_in(place.path()).unwrap();
        let tiny = Tiny::of(&format!("writers/{name}"));
        let source = source(folder.path(), name, &otherwise);
        let model = model(&tiny, &source.join("config.json"));
        let made = merged_gguf::make(&model, tiny.kind, &source, Precision::F16);
        let error = made.map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_head_apart_from_the_words_has_no_place_in_a_file_of_gemma_2() {
    let place = tempfile::tempdir().unwrap();
    let untied = json!({ "query_pre_attn_scalar": 8, "tie_word_embeddings": false });
    let source = source(place.path(), "gemma2", &untied);
    let backbone = build("gemma2", &source.join("config.json"), Head::Language, &cpu()).unwrap();
    weights::initialise_all(backbone.as_ref(), 1).unwrap();
    let model = adapted(backbone);
    let made = merged_gguf::make(&model, "gemma2", &source, Precision::F16);
    let error = made.map(drop).unwrap_err().to_string();
    assert!(error.contains("`lm_head.weight` has no place in a GGUF file of a gemma2"), "{error}");
}

/// Runs the `gguf` package and transformers themselves, where `AFLORA_PEFT_PYTHON` names a Python that
/// has them.
#[test]
fn the_gguf_package_and_transformers_read_our_files_as_our_model() {
    let Some(python) = std::env::var_os("AFLORA_PEFT_PYTHON") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped, it needs a Python with gguf and transformers: AFLORA_PEFT_PYTHON=python"
        );
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for (name, otherwise) in models() {
        let tiny = Tiny::of(&format!("writers/{name}"));
        let source = source(place.path(), name, &otherwise);
        let model = model(&tiny, &source.join("config.json"));
        write(&model, tiny.kind, &source, Precision::F32);
        let given = given(&tiny);
        let ids = [("input_ids", &given.input_ids)];
        Tensor::write_safetensors(&ids, source.join("ids.safetensors")).unwrap();
        expected.push((name, tch::no_grad(|| model.forward(&given, false).unwrap().logits)));
    }
    let output = Command::new(&python)
        .arg(fixture("open_with_gguf.py"))
        .args(models().map(|(name, _)| place.path().join(name)))
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (name, ours) in expected {
        let path = place.path().join(name).join("logits.safetensors");
        let theirs: std::collections::BTreeMap<String, Tensor> =
            Tensor::read_safetensors(path).unwrap().into_iter().collect();
        let apart = relative(&ours, &theirs["logits"]);
        println!("{name}: {apart:.1e}");
        assert!(apart < 1e-5, "{name}: {apart:e}");
    }
}
