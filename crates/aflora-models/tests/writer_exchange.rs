//! Adapters of models that write: to disk and back, merged, and opened by PEFT and transformers.

mod common;

use aflora_core::adapter::{AfloraConfig, LoraConfig, MethodConfig};
use aflora_models::adapter_folder;
use aflora_models::generate::{EarlyStopping, GenerationSettings, ModelSettings};
use aflora_models::merged::{self, OutputKind, StoredKind};
use aflora_models::{AdaptedModel, Batch, Pattern};
use common::adapters::{self, describe};
use common::tiny::Tiny;
use common::{cpu, fixture, relative};
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
            let error = relative(&(&ours * &mask), &(theirs * &mask));
            println!("{name}, {}: {error:.1e}", more.unwrap_or("PEFT"));
            assert!(error < 1e-5, "{name}: {error:e}");
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
