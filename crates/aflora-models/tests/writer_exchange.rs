//! Adapters of models that write: to disk and back, merged, and opened by PEFT and transformers.

mod common;

use aflora_core::adapter::{AfloraConfig, LoraConfig, MethodConfig};
use aflora_models::adapter_folder;
use aflora_models::merged::{self, OutputKind};
use aflora_models::{AdaptedModel, Pattern};
use common::adapters::{self, describe};
use common::tiny::Tiny;
use common::{cpu, fixture, relative};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tch::{Kind, Tensor};

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
        adapter_folder::export(&model, &aflora(), Some("tiny".into()), &source, &adapter).unwrap();
        merged::save(&model, tiny.kind, &source, &plain, OutputKind::Text).unwrap();
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
