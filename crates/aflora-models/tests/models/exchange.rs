//! Adapter folders, to the bit with ourselves and to the logits with Hugging Face PEFT.

use crate::common::adapters::{self, describe, methods};
use crate::common::{batch, bert, cpu, fixture, relative, tensors, writers};
use aflora_core::adapter::{normal, LoraConfig, MethodConfig};
use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::generate::GenerationSettings;
use aflora_models::merged::StoredKind;
use aflora_models::rounding::Rounding;
use aflora_models::{gguf, AdaptedModel, Head, Pattern, Targets};
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Kind, Tensor};

fn opened(folder: &Path) -> Result<AdaptedModel, String> {
    let folder = AdapterFolder::open(folder).map_err(|e| e.to_string())?;
    folder.attach(bert("bert_classes", 2), Kind::Float).map_err(|e| e.to_string())
}

fn logits(model: &AdaptedModel) -> Tensor {
    let io = tensors("bert_classes/io.safetensors");
    tch::no_grad(|| model.forward(&batch(&io, 1), false).unwrap().logits)
}

#[test]
fn folders_made_by_peft_give_pefts_logits() {
    let golden = tensors("peft/logits.safetensors");
    for (name, expected) in golden {
        let model = opened(&fixture("peft").join(&name)).unwrap();
        let error = relative(&logits(&model), &expected);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

/// The tiny BERT with adapters whose values are not those of the start, some components zero.
fn trained(config: &MethodConfig) -> AdaptedModel {
    let names = ["query", "value", "intermediate.dense", "attention.output.dense"];
    let targets = Pattern::Names(names.map(String::from).to_vec());
    adapters::trained(config, bert("bert_classes", 2), targets)
}

#[test]
fn every_method_saves_and_loads_to_the_same_logits() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    for config in methods() {
        let model = trained(&config);
        adapter_folder::save(&model, &folder, &describe(&config, &model)).unwrap();
        let again = opened(&folder).unwrap();
        let error = relative(&logits(&again), &logits(&model));
        // Dropped components change the order of sums, AdaLoRA's also a scale.
        let slims = matches!(
            config,
            MethodConfig::AdaLora(_) | MethodConfig::Sora(_) | MethodConfig::AfloraRank(_)
        );
        assert!(error < if slims { 1e-5 } else { f64::MIN_POSITIVE }, "{config:?}: {error:e}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "no temporary folder");
        // And once more, to the bit: what is slim stays so.
        let other = place.path().join("again");
        adapter_folder::save(&again, &other, &describe(&config, &again)).unwrap();
        let bytes = |f: &Path| std::fs::read(f.join("adapter_model.safetensors")).unwrap();
        assert!(bytes(&other) == bytes(&folder), "{config:?}");
        std::fs::remove_dir_all(&other).unwrap();
    }
}

#[test]
fn modules_that_trained_beside_the_head_come_back_with_the_adapter() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    let config = MethodConfig::Lora(LoraConfig::default());
    let method = config.build().unwrap();
    let targets =
        Targets { target_modules: Pattern::Names(vec!["query".into()]), ..Default::default() };
    let modules = ["bert.pooler".to_string()];
    let backbone = bert("bert_classes", 2);
    let model =
        AdaptedModel::new(backbone, method.as_ref(), &targets, &modules, Kind::Float, 1).unwrap();
    tch::no_grad(|| {
        for (name, mut weight) in model.trained_weights() {
            let _ = weight.g_add_(&normal(&weight.size(), 0.1, 7, &name));
        }
    });
    adapter_folder::save(&model, &folder, &describe(&config, &model)).unwrap();
    let again = opened(&folder).unwrap();
    assert_eq!(logits(&again), logits(&model));
    assert_eq!(again.trained_modules(), model.trained_modules());
}

#[test]
fn any_adapter_exports_as_plain_lora() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("lora");
    for config in methods() {
        let model = trained(&config);
        let exported = adapter_folder::export(
            &model,
            &config,
            Some("tiny".into()),
            &fixture("bert_classes"),
            &GenerationSettings::default(),
            &aflora_models::chat::ChatFormat::default(),
            &folder,
        );
        if !config.build().unwrap().adapts() {
            assert!(exported.unwrap_err().to_string().contains("no adapters"));
            continue;
        }
        exported.unwrap();
        let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
        assert!(text.contains("\"peft_type\": \"LORA\""), "{text}");
        let dora = matches!(config, MethodConfig::Dora(_));
        assert_eq!(text.contains("\"use_dora\": true"), dora, "{text}");
        let error = relative(&logits(&opened(&folder).unwrap()), &logits(&model));
        assert!(error < 1e-5, "{config:?}: {error:e}");
    }
}

#[test]
fn gpt2_folders_made_by_peft_give_pefts_logits() {
    let golden = tensors("peft_gpt2/logits.safetensors");
    assert_eq!(golden.len(), 4);
    for (name, expected) in golden {
        let (backbone, io) = writers::load("gpt2", &cpu());
        let folder = AdapterFolder::open(&fixture("peft_gpt2").join(&name)).unwrap();
        let model = folder.attach(backbone, Kind::Float).unwrap();
        let mut given = writers::batch(&io, "right");
        given.attention_mask = given.attention_mask.ones_like();
        let found = tch::no_grad(|| model.forward(&given, false).unwrap().logits);
        let error = relative(&found, &expected);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

#[test]
fn a_layer_of_rank_0_is_saved_exported_and_opened_again() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    let model = opened(&fixture("peft/adalora_zero")).unwrap();
    assert_eq!(model.adapters().map(|a| a.rank()).min(), Some(0));
    let expected = logits(&model);
    let config = AdapterFolder::open(&fixture("peft/adalora_zero")).unwrap();
    let method = config.description().method.clone();
    adapter_folder::save(&model, &folder, &describe(&method, &model)).unwrap();
    assert_eq!(logits(&opened(&folder).unwrap()), expected);
    adapter_folder::export(
        &model,
        &method,
        None,
        &fixture("bert_classes"),
        &GenerationSettings::default(),
        &aflora_models::chat::ChatFormat::default(),
        &folder,
    )
    .unwrap();
    assert!(relative(&logits(&opened(&folder).unwrap()), &expected) < 1e-5);
}

/// A fixture's folder with keys of its configuration changed.
fn changed(name: &str, changes: Value) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    std::fs::create_dir(&folder).unwrap();
    let from = fixture("peft").join(name);
    let weights = "adapter_model.safetensors";
    std::fs::copy(from.join(weights), folder.join(weights)).unwrap();
    let text = std::fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    (place, folder)
}

#[test]
fn folders_that_would_be_read_wrongly_are_refused_in_words() {
    for (name, changes, expected) in [
        ("lora", json!({ "peft_type": "IA3" }), "peft_type is `IA3`"),
        ("lora", json!({ "r": 5 }), "has rank 4 there, 5 by adapter_config.json"),
        ("lora", json!({ "lora_alpha": "six" }), "`lora_alpha` is \"six\", no number"),
        ("vera", json!({ "r": 7 }), "has rank 6 there, 7 by adapter_config.json"),
        ("lora", json!({ "rank_pattern": { "query": 2 } }), "has rank 4 there, 2 by adapter_"),
        ("lora", json!({ "rank_pattern": { "query": "2" } }), "`rank_pattern` of \"query\" is"),
        ("lora", json!({ "rank_pattern": [2] }), "`rank_pattern` is [2], no object of numbers"),
        ("lora", json!({ "alpha_pattern": { "(?=q)": 2 } }), "only Python reads"),
        ("lora", json!({ "trainable_token_indices": [1] }), "is on, but the file has no words"),
    ] {
        let (_place, folder) = changed(name, changes);
        let error = opened(&folder).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let (_place, folder) = changed("lora", json!({}));
    std::fs::write(folder.join("adapter_config.json"), "[]").unwrap();
    assert!(opened(&folder).unwrap_err().contains("not an adapter's configuration"));
}

#[test]
fn a_configuration_is_read_as_python_reads_it() {
    let (_place, folder) = changed("lora", json!({}));
    let expected = logits(&opened(&folder).unwrap());
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let odd = text.replace(r#""eva_config":null"#, r#""eva_config":{"tau":NaN,"rho":-Infinity}"#);
    assert_ne!(odd, text);
    let odd = format!("\u{feff}{odd}");
    std::fs::write(&path, odd).unwrap();
    assert_eq!(logits(&opened(&folder).unwrap()), expected);
    let alpha = text.replace(r#""lora_alpha":6"#, r#""lora_alpha":NaN"#);
    assert_ne!(alpha, text);
    std::fs::write(&path, alpha).unwrap();
    let error = opened(&folder).unwrap_err();
    assert!(error.contains("`lora_alpha` is \"NaN\", no number"), "{error}");
}

#[test]
fn a_start_that_changes_the_base_by_more_than_the_folder_tells_is_refused_by_name() {
    for start in ["pissa_niter_4", "PISSA", "OLORA", "loftq", "corda", "lora_ga", "new"] {
        let (_place, folder) = changed("lora", json!({ "init_lora_weights": start }));
        let error = opened(&folder).unwrap_err();
        let expected = format!("`init_lora_weights` is \"{start}\", which changes the base model");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn whatever_is_switched_on_and_not_built_is_refused_by_name() {
    for (name, key, value) in [
        ("lora", "bias", json!("some")),
        ("lora", "lora_bias", json!(true)),
        ("lora", "use_rslora", json!("true")),
        ("lora", "layer_replication", json!([[0, 2]])),
        ("lora", "target_parameters", json!(["weight"])),
        ("lora", "alora_invocation_tokens", json!([1])),
        ("lora", "megatron_config", json!({})),
        ("lora", "ensure_weight_tying", json!(true)),
        ("lora", "use_qalora", json!(true)),
        // For PEFT, an empty one is a switch with its defaults.
        ("lora", "kasa_config", json!({})),
        ("lora", "use_bdlora", json!({})),
        ("lora", "velora_config", json!({ "rank": 1 })),
        ("lora", "monteclora_config", json!({})),
        ("lora", "arrow_config", json!({ "top_k": 1 })),
        ("lora", "task_type", json!("QUESTION_ANS")),
        ("lora", "a_key_of_a_later_version", json!("on")),
        ("lora", "a_number", json!(0)),
        ("vera", "trainable_token_indices", json!([1])),
        ("vera", "use_rslora", json!(true)),
        ("adalora", "use_dora", json!(true)),
        ("adalora", "init_lora_weights", json!("pissa")),
    ] {
        let mut changes = json!({});
        changes[key] = value.clone();
        let (_place, folder) = changed(name, changes);
        let error = opened(&folder).unwrap_err();
        assert!(error.contains(&format!("`{key}` is {value}, which ")), "{error}");
    }
}

#[test]
fn what_changes_nothing_in_peft_changes_nothing_here() {
    let golden = tensors("peft/logits.safetensors");
    for (name, changes) in [
        ("lora", json!({ "init_lora_weights": false })),
        ("lora", json!({ "init_lora_weights": "gaussian" })),
        ("lora", json!({ "init_lora_weights": "eva", "eva_config": { "rho": 2.0 } })),
        ("lora", json!({ "init_lora_weights": "orthogonal" })),
        ("lora", json!({ "init_lora_weights": "mica" })),
        ("lora", json!({ "loftq_config": { "loftq_bits": 4 }, "corda_config": {} })),
        ("lora", json!({ "fan_in_fan_out": true, "megatron_core": "x", "qalora_group_size": 8 })),
        ("lora", json!({ "revision": "main", "auto_mapping": { "a": "b" }, "task_type": null })),
        ("lora", json!({ "layers_to_transform": [0, 1], "layers_pattern": "layer" })),
        ("lora", json!({ "target_modules": ".*(query|value|dense)", "exclude_modules": ["key"] })),
        ("lora", json!({ "target_modules": "(?!x).*", "later": null, "off": false, "none": [] })),
        ("vera", json!({ "save_projection": false, "init_weights": false })),
        ("adalora", json!({ "use_rslora": true, "r": 3, "total_step": null })),
    ] {
        let (_place, folder) = changed(name, changes.clone());
        let error = relative(&logits(&opened(&folder).unwrap()), &golden[name]);
        assert!(error < 1e-5, "{changes}: {error:e}");
    }
}

#[test]
fn tensors_of_a_layer_that_the_configuration_leaves_out_are_no_secret() {
    for (changes, key) in [
        (json!({ "target_modules": ["query", "value", "intermediate.dense"] }), "target_modules"),
        (json!({ "target_modules": ".*query" }), "target_modules"),
        (json!({ "exclude_modules": ["value"] }), "exclude_modules"),
        (json!({ "layers_to_transform": [0] }), "layers_to_transform"),
        (json!({ "layers_to_transform": 1, "layers_pattern": ["layer"] }), "layers_to_transform"),
    ] {
        let (_place, folder) = changed("lora", changes);
        let error = opened(&folder).unwrap_err();
        let expected = format!("has tensors in it, but `{key}` of adapter_config.json leaves it");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn modules_to_save_are_named_by_their_ending() {
    let golden = tensors("peft/logits.safetensors");
    // With or without a dot before it, as PEFT has it.
    for names in [json!(["pooler"]), json!(["score", "ooler"]), json!(["bert.pooler"])] {
        let (_place, folder) = changed("pooler", json!({ "modules_to_save": names }));
        let model = opened(&folder).unwrap();
        assert!(relative(&logits(&model), &golden["pooler"]) < 1e-5);
        assert_eq!(model.trained_modules(), ["classifier", "bert.pooler"]);
    }
}

#[test]
fn a_folder_for_another_model_is_refused_with_what_differs() {
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("config.json");
    let text = std::fs::read_to_string(fixture("bert_classes/config.json")).unwrap();
    let wide = text.replace("\"intermediate_size\": 64", "\"intermediate_size\": 80");
    std::fs::write(&config, wide).unwrap();
    let folder = AdapterFolder::open(&fixture("peft/lora")).unwrap();
    let build = || aflora_models::build("bert", &config, Head::Classes(2), &cpu()).unwrap();
    let error = folder.attach(build(), Kind::Float).unwrap_err().to_string();
    assert!(
        error.contains("intermediate.dense.lora_B.weight` has shape [64, 4] there, [80, 4] in"),
        "{error}"
    );

    let shallow = text.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    std::fs::write(&config, shallow).unwrap();
    let error = folder.attach(build(), Kind::Float).unwrap_err().to_string();
    assert!(error.contains("no adaptable layer `bert.encoder.layer.1."), "{error}");
}

/// Runs PEFT itself over folders of ours, where `AFLORA_PEFT_PYTHON` names a Python that has it.
#[test]
fn peft_opens_our_folders_and_gives_our_logits() {
    use std::io::Write;
    let Some(python) = std::env::var_os("AFLORA_PEFT_PYTHON") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped, it needs a Python with peft and transformers: AFLORA_PEFT_PYTHON=python"
        );
        return;
    };
    let place = tempfile::tempdir().unwrap();
    for (i, config) in methods().iter().enumerate() {
        let model = trained(config);
        let folder = place.path().join(i.to_string());
        match config {
            MethodConfig::Lora(_) | MethodConfig::Dora(_) | MethodConfig::AdaLora(_) => {
                adapter_folder::save(&model, &folder, &describe(config, &model)).unwrap();
            }
            MethodConfig::Elora(elora) if elora.shared => {
                adapter_folder::save(&model, &folder, &describe(config, &model)).unwrap();
            }
            other if other.build().unwrap().adapts() => {
                adapter_folder::export(
                    &model,
                    config,
                    Some("tiny".into()),
                    &fixture("bert_classes"),
                    &GenerationSettings::default(),
                    &aflora_models::chat::ChatFormat::default(),
                    &folder,
                )
                .unwrap();
            }
            _ => continue,
        }
        let output = Command::new(&python)
            .arg(fixture("open_with_peft.py"))
            .arg(&folder)
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{config:?}: {errors}");
        let theirs: Vec<f32> = serde_json::from_slice(&output.stdout).unwrap();
        let theirs = Tensor::from_slice(&theirs).view([-1, 2]);
        let error = relative(&logits(&model), &theirs);
        println!("{}: {error:.1e}", config.build().unwrap().name());
        assert!(error < 1e-5, "{config:?}: {error:e}");
    }
}

#[test]
fn rounding_costs_what_numpy_and_the_gguf_package_count() {
    let golden = std::fs::read(fixture("rounding.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let cost = |round: &dyn Fn(&Tensor) -> aflora_models::Result<Tensor>| {
        let model = opened(&fixture("peft/lora")).unwrap();
        Rounding::of(model, &fixture("word_piece"), round).unwrap().unwrap()
    };
    for (name, found) in [
        ("bf16", cost(&|weight| StoredKind::Bf16.rounded(weight))),
        ("f16", cost(&|weight| StoredKind::F16.rounded(weight))),
        ("q8_0", cost(&|weight| gguf::rounded(weight, gguf::Precision::Q8_0))),
    ] {
        let expected = &golden[name];
        let Rounding { weights, largest, mean, of_added, worst: (layer, worst), logits } = found;
        assert_eq!(weights, expected["weights"].as_u64().unwrap() as usize, "{name}");
        assert_eq!(layer, expected["layer"], "{name}");
        for (key, found) in
            [("largest", largest), ("mean", mean), ("of_added", of_added), ("worst", worst)]
        {
            let expected = expected[key].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-3 * expected, "{name}: {key} {found} {expected}");
        }
        let (difference, most) = logits.unwrap();
        assert!(difference > 0.0 && difference < 0.2 * most, "{name}: {difference} of {most}");
    }
}
