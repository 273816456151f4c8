//! Adapters of models that write: to disk and back, merged, and opened by PEFT and transformers.

use crate::common::adapters::{self, describe};
use crate::common::tiny::Tiny;
use crate::common::{self, cpu, fixture, relative};
use aflora_core::adapter::{AfloraConfig, LoraConfig, MethodConfig};
use aflora_core::weight::{FrozenWeight, WeightFormat};
use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::generate::{EarlyStopping, GenerationSettings, ModelSettings};
use aflora_models::merged::{self, OutputKind, StoredKind};
use aflora_models::{build, quantised_base, weights, AdaptedModel, Batch, Head, Options, Pattern};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tch::{Device, Kind, Tensor};

/// Adapters on every layer, away from their start.
fn trained(tiny: &Tiny, config: &MethodConfig) -> AdaptedModel {
    adapters::trained(config, tiny.load(&cpu()), Pattern::Regex(".*".into()))
}

fn aflora() -> MethodConfig {
    MethodConfig::Aflora(AfloraConfig { alpha: Some(8.0), ..Default::default() })
}

#[test]
fn folders_say_what_the_model_does_and_how_its_weights_lie() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    let method = MethodConfig::Lora(LoraConfig::default());
    for (name, task, transposed) in [
        ("llama", "CAUSAL_LM", false),
        ("gpt2", "CAUSAL_LM", true),
        ("bart", "SEQ_2_SEQ_LM", false),
    ] {
        let model = trained(&Tiny::of(&format!("writers/{name}")), &method);
        adapter_folder::save(&model, &folder, &describe(&method, &model)).unwrap();
        let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&config["task_type"], &config["fan_in_fan_out"]),
            (&task.into(), &transposed.into())
        );
    }
}

/// Runs PEFT and transformers themselves, where `AFLORA_PEFT_PYTHON` names a Python that has them.
#[test]
fn peft_and_transformers_give_our_logits() {
    let Some(python) = std::env::var_os("AFLORA_PEFT_PYTHON") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped, it needs a Python with peft and transformers: AFLORA_PEFT_PYTHON=python"
        );
        return;
    };
    let place = tempfile::tempdir().unwrap();
    for tiny in Tiny::writers() {
        let (name, io, model) = (tiny.name(), &tiny.io, trained(&tiny, &aflora()));
        let (adapter, plain) = (place.path().join("adapter"), place.path().join("plain"));
        let source = tiny.path();
        adapter_folder::export(
            &model,
            &aflora(),
            Some("tiny".into()),
            &source,
            &GenerationSettings::default(),
            &aflora_models::chat::ChatFormat::default(),
            &adapter,
        )
        .unwrap();
        merged::save(
            &model,
            tiny.kind,
            &source,
            &plain,
            OutputKind::Text(GenerationSettings::default()),
            StoredKind::F32,
        )
        .unwrap();
        let given = tiny.batch(0);
        let ours = tch::no_grad(|| model.forward(&given, false).unwrap().logits);
        // Only tokens: transformers sees padding where we do not.
        let mask = match &given.decoder_input_ids {
            None => given.attention_mask.shallow_clone(),
            Some(_) => io["right.labels"].ne(-100).to_kind(Kind::Int64),
        };
        for (folder, more) in [(&adapter, None), (&plain, Some("merged"))] {
            let theirs = opened_in_python(&python, name, folder, more).view_as(&ours);
            let mask = mask.unsqueeze(2);
            assert!(
                (&ours * &mask).abs().max().double_value(&[]) > 0.0,
                "{name}: nothing to compare"
            );
            let error = relative(&(&ours * &mask), &(theirs * &mask));
            println!("{name}, {}: {error:.1e}", more.unwrap_or("PEFT"));
            assert!(error < 1e-5, "{name}: {error:e}");
        }
    }
}

#[test]
fn layers_in_few_bits_without_an_adapter_are_restored_where_a_model_of_ones_own_is_merged() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    let (tiny, method) = (Tiny::of("writers/llama"), MethodConfig::Lora(LoraConfig::default()));
    let options = Options { format: Some(WeightFormat::Nf4), ..cpu() };
    let some = Pattern::Regex(".*q_proj".into());
    let model = adapters::trained(&method, tiny.load(&options), some);
    adapter_folder::save(&model, &folder, &describe(&method, &model)).unwrap();
    let own = tiny.load(&options);
    let opened = AdapterFolder::open(&folder).unwrap();
    let merged = opened.inject(own.var_store(), own.linears()).unwrap().merged_weights();
    for (name, weight) in model.merged_weights() {
        assert!(merged[&name].equal(&weight), "{name}");
    }
}

/// A model like `tiny` in `folder`, of widths that bitsandbytes multiplies by on a CPU: whole blocks.
fn make_wide(tiny: &Tiny, folder: &Path) {
    let text = std::fs::read_to_string(tiny.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let wider =
        [("hidden_size", 64), ("d_model", 64), ("head_dim", 16), ("intermediate_size", 128)];
    for (key, size) in wider.into_iter().chain([("encoder_ffn_dim", 128), ("decoder_ffn_dim", 128)])
    {
        if config.get(key).is_some() {
            config[key] = size.into();
        }
    }
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let model = build(tiny.kind, &path, Head::Language, &cpu()).unwrap();
    weights::initialise_all(model.as_ref(), 7).unwrap();
    let weights: Vec<(String, Tensor)> = model.var_store().variables().into_iter().collect();
    Tensor::write_safetensors(&weights, folder.join("model.safetensors")).unwrap();
}

/// A base in few bits beside its adapter, as bitsandbytes, transformers and PEFT open them.
#[test]
fn a_base_in_few_bits_is_written_as_it_lies_and_bitsandbytes_gives_its_logits() {
    let python = std::env::var_os("AFLORA_PEFT_PYTHON");
    if python.is_none() {
        let _ = writeln!(
            std::io::stderr(),
            "nothing is opened by bitsandbytes: AFLORA_PEFT_PYTHON=python"
        );
    }
    let place = tempfile::tempdir().unwrap();
    let method = MethodConfig::Lora(LoraConfig::default());
    for (name, format) in [
        ("llama", WeightFormat::Nf4),
        ("llama", WeightFormat::Nf4Nested),
        ("llama", WeightFormat::Int8),
        ("bart", WeightFormat::Nf4Nested),
    ] {
        let tiny = Tiny::of(&format!("writers/{name}"));
        let (base, adapter) = (place.path().join("base"), place.path().join("adapter"));
        let wide = place.path().join(name);
        let read = |folder: &Path, format| {
            let options = Options { format, ..cpu() };
            let config = folder.join("config.json");
            let read = build(tiny.kind, &config, Head::Language, &options).unwrap();
            let report = weights::load(read.as_ref(), folder).unwrap();
            assert_eq!((report.new, report.unused.len()), (Vec::new(), 0), "{name}");
            read
        };
        make_wide(&tiny, &wide);
        let model = read(&wide, Some(format));
        quantised_base::save(model.as_ref(), &wide, &base, StoredKind::F32).unwrap();
        let (codes, whole) = (read(&base, Some(format)), read(&base, None));
        let (codes, whole) = (codes.quantised(), whole.var_store().variables());
        assert!(!codes.is_empty());
        for (weight, layer) in model.quantised() {
            let (FrozenWeight::Quantised(ours), FrozenWeight::Quantised(found)) =
                (layer.weight(), codes[&weight].weight())
            else {
                panic!("{name}: {weight} is whole")
            };
            assert_eq!(found.format(), Some(format), "{name}: {weight}");
            assert!(ours.codes().equal(found.codes()), "{name}: {weight}");
            assert!(layer.stored().equal(&whole[&weight]), "{name}: {weight}");
        }
        // bitsandbytes multiplies in 8 bits, not by the restored weight.
        let Some(python) = python.as_ref().filter(|_| format != WeightFormat::Int8) else {
            continue;
        };
        let targets = Pattern::Regex(".*".into());
        let adapted = adapters::trained(&method, read(&wide, Some(format)), targets);
        adapter_folder::export(
            &adapted,
            &method,
            Some(base.to_str().unwrap().into()),
            &wide,
            &GenerationSettings::default(),
            &aflora_models::chat::ChatFormat::default(),
            &adapter,
        )
        .unwrap();
        let given = tiny.batch(0);
        let mask = match &given.decoder_input_ids {
            None => given.attention_mask.shallow_clone(),
            Some(_) => tiny.io["right.labels"].ne(-100).to_kind(Kind::Int64),
        };
        let bare = tch::no_grad(|| model.forward(&given, false).unwrap().logits);
        let with = tch::no_grad(|| adapted.forward(&given, false).unwrap().logits);
        for (folder, more, ours) in [(&base, "merged", bare), (&adapter, "base", with)] {
            let theirs = opened_in_python(python, name, folder, Some(more)).view_as(&ours);
            let mask = mask.unsqueeze(2);
            assert!(
                (&ours * &mask).abs().max().double_value(&[]) > 0.0,
                "{name}: nothing to compare"
            );
            let error = relative(&(&ours * &mask), &(theirs * &mask));
            println!("{name} {format:?}, {more}: {error:.1e}");
            assert!(error < 1e-5, "{name} {format:?}, {more}: {error:e}");
        }
    }
}

fn opened_in_python(
    python: &std::ffi::OsStr,
    name: &str,
    folder: &Path,
    more: Option<&str>,
) -> Tensor {
    let output = Command::new(python)
        .arg(fixture("open_writer_with_peft.py"))
        .args([std::ffi::OsStr::new(name), folder.as_os_str()])
        .args(more)
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let values: Vec<f32> = serde_json::from_slice(&output.stdout).unwrap();
    Tensor::from_slice(&values)
}

/// What the model writes after its left-padded batch as `settings` say over its files.
fn written(tiny: &Tiny, model: &AdaptedModel, settings: &GenerationSettings) -> Vec<Vec<i64>> {
    let start = model.writer().unwrap().tokens().decoder_start;
    let config = tiny.path().join("config.json");
    let said = ModelSettings::read(&config, start.is_some()).unwrap();
    let given = common::writers::batch(&tiny.io, "left");
    let rows = given.input_ids.size()[0];
    let first = start.map(|id| Tensor::full([rows, 1], id, (Kind::Int64, Device::Cpu)));
    let given = Batch { left_padded: start.is_none(), decoder_input_ids: first, ..given };
    model.write(&given, &settings.over(&said.settings)).unwrap()
}

/// Runs transformers itself over merged folders, which are all that it is given.
#[test]
fn transformers_writes_our_texts_from_a_merged_folder() {
    let Some(python) = std::env::var_os("AFLORA_PEFT_PYTHON") else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped, it needs a Python with transformers: AFLORA_PEFT_PYTHON=python"
        );
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let greedy = GenerationSettings { max_new_tokens: Some(14), ..Default::default() };
    let beams = GenerationSettings {
        num_beams: Some(3),
        early_stopping: Some(EarlyStopping::Full),
        length_penalty: Some(0.5),
        no_repeat_ngram_size: Some(2),
        ..greedy.clone()
    };
    let rarer = GenerationSettings {
        repetition_penalty: Some(1.4),
        min_new_tokens: Some(5),
        ..greedy.clone()
    };
    // One process for all: it takes seconds to start.
    let mut asked = Command::new(&python);
    asked.arg(fixture("generate_with_transformers.py")).env_remove("LD_LIBRARY_PATH");
    let mut expected = Vec::new();
    for tiny in Tiny::writers() {
        let model = trained(&tiny, &aflora());
        for settings in [&greedy, &beams, &rarer] {
            let folder = place.path().join(format!("merged{}", expected.len()));
            let answers = OutputKind::Text(settings.clone());
            merged::save(&model, tiny.kind, &tiny.path(), &folder, answers, StoredKind::F32)
                .unwrap();
            asked.args([std::ffi::OsStr::new(tiny.name()), folder.as_os_str()]);
            let what = format!("{} {settings:?}", tiny.name());
            expected.push((what, written(&tiny, &model, settings)));
        }
    }
    let output = asked.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<Vec<Vec<i64>>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(theirs.len(), expected.len());
    for ((what, ours), theirs) in expected.into_iter().zip(theirs) {
        assert_eq!(ours, theirs, "{what}");
    }
}

#[test]
fn a_merged_folder_says_how_the_run_wrote() {
    let tiny = Tiny::of("writers/llama");
    let source = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny.path().join(file), source.path().join(file)).unwrap();
    }
    let model_s = serde_json::json!({
        "eos_token_id": 2, "max_length": 100, "do_sample": true, "temperature": 0.6, "top_p": 0.9,
        "num_beams": 2, "suppress_tokens": [5], "repetition_penalty": 1.1,
    });
    let name = "generation_config.json";
    std::fs::write(source.path().join(name), model_s.to_string()).unwrap();
    let model = trained(&tiny, &aflora());
    let read = |settings: GenerationSettings| -> serde_json::Value {
        let folder = source.path().join("merged");
        let answers = OutputKind::Text(settings.clone());
        merged::save(&model, tiny.kind, source.path(), &folder, answers, StoredKind::F32).unwrap();
        let merged = std::fs::read(folder.join(name)).unwrap();
        let export = source.path().join("exported");
        adapter_folder::export(
            &model,
            &aflora(),
            None,
            source.path(),
            &settings,
            &aflora_models::chat::ChatFormat::default(),
            &export,
        )
        .unwrap();
        assert_eq!(merged, std::fs::read(export.join(name)).unwrap());
        serde_json::from_slice(&merged).unwrap()
    };
    let found = read(GenerationSettings { max_new_tokens: Some(9), ..Default::default() });
    assert_eq!((&found["max_new_tokens"], &found["do_sample"]), (&9.into(), &false.into()));
    assert_eq!((&found["num_beams"], &found["repetition_penalty"]), (&2.into(), &1.1.into()));
    for key in ["max_length", "temperature", "top_p", "suppress_tokens"] {
        assert!(found[key].is_null(), "{key}: {found}");
    }
    let found = read(GenerationSettings { do_sample: Some(true), ..Default::default() });
    assert_eq!((&found["num_beams"], &found["temperature"]), (&1.into(), &0.6.into()));
    assert_eq!(found["max_new_tokens"], 128);
}
