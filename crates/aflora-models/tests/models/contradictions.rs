//! A config.json and weights that do not agree: what transformers does of them is done, and said
//! with both names.

use crate::common::adapters::trained;
use crate::common::log::logged;
use crate::common::writers::{batch, load};
use crate::common::{self, cpu, fixture, relative, tensors};
use aflora_core::adapter::{LoraConfig, MethodConfig};
use aflora_models::generate::GenerationSettings;
use aflora_models::merged::{self, OutputKind, StoredKind};
use aflora_models::weights::{self, LoadReport};
use aflora_models::{build, shapes_only, Backbone, Head, Pattern};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

type Tensors = BTreeMap<String, Tensor>;

/// The model of `from` with other keys in its config.json and other weights.
fn changed(from: &str, keys: Value, change: impl FnOnce(&mut Tensors)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(fixture(from).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let mut weights = tensors(&format!("{from}/model.safetensors"));
    change(&mut weights);
    let weights: Vec<(String, Tensor)> = weights.into_iter().collect();
    Tensor::write_safetensors(&weights, folder.path().join("model.safetensors")).unwrap();
    folder
}

fn writer(kind: &str, folder: &Path) -> (Box<dyn Backbone>, Result<LoadReport, String>) {
    let config = folder.join("config.json");
    let build = || build(kind, &config, Head::Language, &cpu()).unwrap();
    let model = build();
    let report = weights::load(model.as_ref(), folder).map_err(|error| error.to_string());
    let checked = weights::check_for(shapes_only(build).as_ref(), folder, &[]);
    let refused = checked.map_err(|error| error.to_string()).err();
    assert_eq!(refused.as_ref(), report.as_ref().err(), "a check says what loading says");
    (model, report)
}

fn classifier(folder: &Path, classes: &[&[&str]]) -> (Box<dyn Backbone>, LoadReport) {
    let config = folder.join("config.json");
    let build = || build("bert", &config, Head::Classes(2), &cpu()).unwrap();
    let model = build();
    let report = weights::load_for(model.as_ref(), folder, classes).unwrap();
    weights::check_for(shapes_only(build).as_ref(), folder, classes).unwrap();
    (model, report)
}

#[test]
fn words_and_a_head_of_other_values_are_kept_apart_as_in_transformers() {
    // The golden logits are of a model whose words and head are two.
    let folder = changed("writers/llama", json!({ "tie_word_embeddings": true }), |_| {});
    let (model, report) = writer("llama", folder.path());
    let warnings = report.unwrap().warnings.join("\n");
    for part in ["`lm_head.weight`", "`model.embed_tokens.weight`", "`tie_word_embeddings`"] {
        assert!(warnings.contains(part), "{warnings}");
    }
    let io = tensors("writers/llama/io.safetensors");
    let right = batch(&io, "right");
    let mask = right.attention_mask.unsqueeze(2);
    let logits = model.forward(&right, false).unwrap().logits;
    assert!(relative(&(logits * &mask), &(&io["right.logits"] * &mask)) < 1e-5);
    assert!(!model.var_store().variables()["lm_head.weight"].requires_grad());

    for (name, kind, words) in
        [("gpt2", "gpt2", "transformer.wte.weight"), ("bart", "bart", "model.shared.weight")]
    {
        let from = format!("writers/{name}");
        let doubled = |weights: &mut Tensors| {
            let head = &weights[words] * 2.0;
            weights.insert("lm_head.weight".into(), head);
        };
        let folder = changed(&from, json!({}), doubled);
        let (model, report) = writer(kind, folder.path());
        assert_eq!(report.unwrap().warnings.len(), 1, "{name}");
        let (plain, io) = load(name, &cpu());
        let right = batch(&io, "right");
        let bias = plain.var_store().variables().get("final_logits_bias").map(Tensor::copy);
        let bias = bias.unwrap_or_else(|| Tensor::zeros([1], (Kind::Float, Device::Cpu)));
        let expected = (plain.forward(&right, false).unwrap().logits - &bias) * 2.0 + bias;
        assert!(
            relative(&model.forward(&right, false).unwrap().logits, &expected) < 1e-5,
            "{name}"
        );
    }
    // The same values again are no contradiction.
    let same = |weights: &mut Tensors| {
        let head = weights["transformer.wte.weight"].copy();
        weights.insert("lm_head.weight".into(), head);
    };
    let (model, report) = writer("gpt2", changed("writers/gpt2", json!({}), same).path());
    assert_eq!(report.unwrap().warnings, [""; 0]);
    assert!(!model.var_store().variables().contains_key("lm_head.weight"));
}

#[test]
fn a_head_that_is_not_tied_is_read_and_missed() {
    let untied = json!({ "tie_word_embeddings": false });
    let halved = |weights: &mut Tensors| {
        let head = &weights["transformer.wte.weight"] * 0.5;
        weights.insert("lm_head.weight".into(), head);
    };
    let (model, report) = writer("gpt2", changed("writers/gpt2", untied.clone(), halved).path());
    assert_eq!(report.unwrap().unused, [""; 0]);
    let (plain, io) = load("gpt2", &cpu());
    let right = batch(&io, "right");
    let expected = plain.forward(&right, false).unwrap().logits * 0.5;
    assert!(relative(&model.forward(&right, false).unwrap().logits, &expected) < 1e-5);
    let (_, report) = writer("gpt2", changed("writers/gpt2", untied, |_| {}).path());
    assert!(report.unwrap_err().contains("`lm_head.weight` is missing"));
}

#[test]
fn a_table_of_the_encoder_s_own_is_kept_apart_as_in_transformers() {
    let other = |weights: &mut Tensors| {
        let table = &weights["model.shared.weight"] + 1.0;
        weights.insert("model.encoder.embed_tokens.weight".into(), table);
    };
    let (model, report) = writer("bart", changed("writers/bart", json!({}), other).path());
    let warnings = report.unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    let expected =
        "`model.encoder.embed_tokens.weight` and `model.shared.weight` have other values";
    assert!(warning.starts_with(expected), "{warning}");
    let variables = model.var_store().variables();
    let own = &variables["model.encoder.embed_tokens.weight"];
    assert!(relative(own, &(&variables["model.shared.weight"] + 1.0)) < 1e-6);
    assert!(!variables.contains_key("model.decoder.embed_tokens.weight"));
}

#[test]
fn a_merged_model_whose_tables_are_said_to_be_apart_has_them_all() {
    // Here encoder and decoder read one table, and nothing says so but the numbers.
    let keys = json!({ "tie_word_embeddings": false });
    let copied = |weights: &mut Tensors| {
        let shared = weights["model.shared.weight"].copy();
        weights.insert("model.encoder.embed_tokens.weight".into(), shared.copy());
        weights.insert("lm_head.weight".into(), shared * 2.0);
    };
    let folder = changed("writers/bart", keys, copied);
    let (model, report) = writer("bart", folder.path());
    let warnings = report.unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(
        warning.starts_with("the weights have no `model.decoder.embed_tokens.weight`, though"),
        "{warning}"
    );
    let method = MethodConfig::Lora(LoraConfig::default());
    let model = trained(&method, model, Pattern::Regex(".*".into()));
    let merged = folder.path().join("merged");
    merged::save(
        &model,
        "bart",
        folder.path(),
        &merged,
        OutputKind::Text(GenerationSettings::default()),
        StoredKind::F32,
    )
    .unwrap();
    let stored = weights::read_tensors(&merged.join("model.safetensors")).unwrap();
    let table = |name: &str| &stored[name];
    let shared = table("model.shared.weight");
    for same in ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"] {
        assert_eq!(table(same), shared, "{same}");
    }
    assert_eq!(table("lm_head.weight"), &(shared * 2.0));
    assert_eq!(writer("bart", &merged).1.unwrap().warnings, [""; 0]);
}

#[test]
fn a_t5_whose_head_is_apart_reads_one_table_on_both_sides_without_a_word() {
    let untied = || json!({ "tie_word_embeddings": false });
    let without = |weights: &mut Tensors| {
        weights.retain(|name, _| !name.contains("embed_tokens"));
        assert!(weights.contains_key("lm_head.weight"));
    };
    let folder = changed("writers/t5_gated", untied(), without);
    let (_, report) = writer("t5", folder.path());
    assert_eq!(report.unwrap().warnings, [""; 0]);
    // The head is not the same table, by config.json.
    let headless = |weights: &mut Tensors| drop(weights.remove("lm_head.weight"));
    let (_, report) = writer("t5", changed("writers/t5_gated", untied(), headless).path());
    let warnings = report.unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.starts_with("the weights have no `lm_head.weight`, though"), "{warning}");
}

/// [`writer`] checks each by its shapes, too.
#[test]
fn whatever_tensor_is_missing_or_of_another_shape_a_check_of_shapes_finds_as_loading_does() {
    for (kind, from) in
        [("bart", "writers/bart"), ("gpt2", "writers/gpt2"), ("llama", "writers/llama")]
    {
        let names: Vec<String> =
            tensors(&format!("{from}/model.safetensors")).into_keys().collect();
        let mut refused = 0;
        for name in &names {
            let without = |weights: &mut Tensors| drop(weights.remove(name));
            let longer = |weights: &mut Tensors| {
                let tensor = weights[name].unsqueeze(0);
                weights.insert(name.clone(), tensor);
            };
            let missing = writer(kind, changed(from, json!({}), without).path()).1;
            let misfit = writer(kind, changed(from, json!({}), longer).path()).1.unwrap_err();
            assert!(misfit.contains(&format!("`{name}` has shape [1, ")), "{kind}: {misfit}");
            refused += usize::from(missing.is_err_and(|error| error.contains(name.as_str())));
        }
        assert!(refused + 2 >= names.len(), "{kind}: {refused} of {}", names.len());
    }
}

#[test]
fn of_an_old_and_a_new_key_the_one_counts_that_counts_in_transformers() {
    let linear = |factor: f64| json!({ "rope_type": "linear", "factor": factor });
    let logits = |keys: Value| {
        let folder = changed("writers/llama", keys, |_| {});
        let io = tensors("writers/llama/io.safetensors");
        writer("llama", folder.path()).0.forward(&batch(&io, "right"), false).unwrap().logits
    };
    let two = logits(json!({ "rope_parameters": linear(2.0) }));
    let log = logged(|| {
        let both = json!({ "rope_scaling": linear(2.0), "rope_parameters": linear(4.0) });
        assert_eq!(logits(both), two);
    });
    assert!(log.contains("WARN") && log.contains("`rope_scaling` is"), "{log}");
    assert!(log.contains("`rope_parameters`, its newer name, is"), "{log}");
    assert_ne!(logits(json!({ "rope_parameters": linear(4.0) })), two);
    assert_eq!(logits(json!({ "rope_scaling": {}, "rope_parameters": linear(2.0) })), two);

    let log = logged(|| {
        let folder =
            changed("writers/gpt2", json!({ "n_layer": 7, "num_hidden_layers": 2 }), |_| {});
        assert_eq!(writer("gpt2", folder.path()).1.unwrap().warnings, [""; 0]);
    });
    assert!(log.contains("`num_hidden_layers` is 2, but `n_layer`, which means the same, is 7"));
}

#[test]
fn a_warning_about_a_file_is_said_once_however_often_it_is_read() {
    let scaled = json!({ "rope_type": "linear", "rope_theta": 500.0, "factor": 2.0 });
    let keys = json!({ "rope_theta": 100.0, "rope_parameters": scaled, "pad_token_id": 80 });
    let broken = |weights: &mut Tensors| {
        let _ = weights.get_mut("lm_head.weight").unwrap().get(3).fill_(f64::NAN);
    };
    let folder = changed("writers/llama", keys.clone(), broken);
    let log = logged(|| (0..3).for_each(|_| drop(writer("llama", folder.path()))));
    for once in ["`rope_theta` is 100", "`pad_token_id` is 80", "of `lm_head.weight`, 32 are NaN"] {
        assert_eq!(log.matches(once).count(), 1, "{once}\n{log}");
    }
    // Another file with the same fault is another.
    let folder = changed("writers/llama", keys, |_| {});
    let log = logged(|| drop(writer("llama", folder.path())));
    assert!(log.contains("`rope_theta` is 100"), "{log}");
}

#[test]
fn weights_for_more_layers_or_biases_than_the_config_has_are_told_with_the_key() {
    let fewer = changed("bert_classes", json!({ "num_hidden_layers": 1 }), |_| {});
    let (_, report) = classifier(fewer.path(), &[]);
    let [warning] = &report.warnings[..] else { panic!("{report:?}") };
    assert!(warning.starts_with("16 tensors of the weights, such as `bert.encoder.layer.1."));
    assert!(
        warning.contains("config.json has fewer layers (`num_hidden_layers` is 1)"),
        "{warning}"
    );

    let keys = json!({ "attention_bias": false, "mlp_bias": false });
    let (_, report) = writer("llama", changed("writers/llama_bias", keys, |_| {}).path());
    let warnings = report.unwrap().warnings.join("\n");
    for part in ["no bias there (`attention_bias`)", "no bias there (`mlp_bias`)", "k_proj.bias`"] {
        assert!(warnings.contains(part), "{warnings}");
    }
    // Another task's head is no contradiction.
    let pretrained = changed("bert_classes", json!({}), |weights| {
        weights
            .insert("cls.predictions.bias".into(), Tensor::ones([3], (Kind::Float, Device::Cpu)));
    });
    assert_eq!(classifier(pretrained.path(), &[]).1.warnings, [""; 0]);
}

#[test]
fn a_weight_that_is_nan_in_the_file_is_named_at_load() {
    let broken = changed("bert_classes", json!({}), |weights| {
        let name = "bert.encoder.layer.1.output.dense.bias";
        let bias = weights.get_mut(name).unwrap();
        let _ = bias.get(3).fill_(f64::NAN);
        let _ = bias.get(4).fill_(f64::INFINITY);
    });
    let (_, report) = classifier(broken.path(), &[]);
    assert_eq!(
        report.warnings,
        ["of the 32 numbers of `bert.encoder.layer.1.output.dense.bias`, 1 are NaN and 1 are infinite"]
    );
}

#[test]
fn a_head_in_another_order_of_labels_is_put_into_the_tasks_by_name() {
    let classes: &[&[&str]] = &[&["0", "negative"], &["1", "positive"]];
    let labels = |zero: &str, one: &str| json!({ "id2label": { "0": zero, "1": one } });
    let io = tensors("bert_classes/io.safetensors");
    let golden = &io["batch0.logits"];
    let logits = |zero: &str, one: &str| {
        let folder = changed("bert_classes", labels(zero, one), |_| {});
        let (model, report) = classifier(folder.path(), classes);
        (model.forward(&common::batch(&io, 0), false).unwrap().logits, report)
    };
    let (same, _) = logits("NEGATIVE", "POSITIVE");
    assert!(relative(&same, golden) < 1e-5);
    let (turned, report) = logits("POSITIVE", "NEGATIVE");
    assert!(relative(&turned, &golden.flip([1])) < 1e-5);
    assert_eq!((report.new.len(), report.warnings.len()), (0, 0));
    let (_, report) = logits("contradiction", "entailment");
    assert_eq!(report.new, ["classifier.bias", "classifier.weight"]);
    let words = &report.warnings[0];
    assert!(words.contains("`id2label`") && words.contains("the head starts anew"), "{words}");
}

#[test]
fn names_behind_a_wrapper_are_read_and_foreign_ones_told() {
    let renamed = |name: &dyn Fn(&str) -> String| {
        changed("bert_classes", json!({}), |weights| {
            *weights = weights.iter().map(|(old, tensor)| (name(old), tensor.copy())).collect();
        })
    };
    for wrapper in ["module.", "_orig_mod.", "base_model.model.", "module._orig_mod."] {
        let folder = renamed(&|name| format!("{wrapper}{name}"));
        let (_, report) = classifier(folder.path(), &[]);
        assert_eq!((report.loaded, report.unused.len()), (41, 0), "{wrapper}");
    }
    // torch's AveragedModel counts its models beside them.
    let averaged = changed("bert_classes", json!({}), |weights| {
        *weights = weights.iter().map(|(name, t)| (format!("module.{name}"), t.copy())).collect();
        weights.insert("n_averaged".into(), Tensor::from(3_i64));
    });
    let (_, report) = classifier(averaged.path(), &[]);
    assert_eq!((report.loaded, report.unused), (41, vec!["n_averaged".to_string()]));
    let folder = renamed(&|name| format!("student.{name}"));
    let model =
        build("bert", &folder.path().join("config.json"), Head::Classes(2), &cpu()).unwrap();
    let error = weights::load(model.as_ref(), folder.path()).unwrap_err().to_string();
    let expected =
        "its tensors have other names: it has `student.bert.embeddings.LayerNorm.bias`, ";
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("and 35 more"), "{error}");
}

#[test]
fn a_special_id_that_is_no_token_is_none_or_refused_by_name() {
    let keys = json!({ "pad_token_id": -1, "eos_token_id": [2, -1], "bos_token_id": 500 });
    let (model, _) = writer("llama", changed("writers/llama", keys, |_| {}).path());
    let tokens = model.text_generator().unwrap().tokens();
    assert_eq!((tokens.pad, &tokens.eos[..]), (None, &[2][..]));
    let beyond = json!({ "pad_token_id": 80, "eos_token_id": [2, 81] });
    let folder = changed("writers/llama", beyond, |_| {});
    let words =
        logged(|| drop(build("llama", &folder.path().join("config.json"), Head::Language, &cpu())));
    for told in ["config.json: `pad_token_id` is 80", "config.json: `eos_token_id` is 81"] {
        let expected = format!("{told}, which is not among the model's 80 tokens: it is left out");
        assert!(words.contains(&expected), "{words}");
    }
    let key = "decoder_start_token_id";
    let folder = changed("writers/bart", json!({ key: 80 }), |_| {});
    let error =
        build("bart", &folder.path().join("config.json"), Head::Language, &cpu()).unwrap_err();
    let expected = format!("`{key}` is 80, which is not among the model's 80 tokens");
    assert!(error.to_string().contains(&expected), "{error}");
    let folder = changed("writers/bart", json!({ "decoder_start_token_id": -1 }), |_| {});
    let error =
        build("bart", &folder.path().join("config.json"), Head::Language, &cpu()).unwrap_err();
    assert!(error.to_string().contains("`decoder_start_token_id` is missing"), "{error}");
}

#[test]
fn numbers_that_python_reads_in_a_config_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(fixture("bert_classes/config.json")).unwrap();
    let floats = text.replace("\"hidden_size\": 32", "\"hidden_size\": 32.0");
    let odd = floats.replacen('{', "\u{feff}{\"limit\": -Infinity, \"mean\": [NaN],", 1);
    assert!(floats != text && odd != floats);
    fs::write(&path, odd).unwrap();
    let model = build("bert", &path, Head::Classes(2), &cpu()).unwrap();
    assert_eq!(model.linears()[0].site.in_features, 32);
    for (value, expected) in [("32.5", "`hidden_size` must be a positive"), ("NaN", "must be")] {
        let broken = text.replace("\"hidden_size\": 32", &format!("\"hidden_size\": {value}"));
        fs::write(&path, broken).unwrap();
        let error = build("bert", &path, Head::Classes(2), &cpu()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let deberta = fixture("models/deberta_v3/config.json");
    let text = fs::read_to_string(deberta).unwrap().replacen(
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 2.0",
        1,
    );
    fs::write(&path, text).unwrap();
    build("deberta-v2", &path, Head::Classes(2), &cpu()).unwrap();
}
