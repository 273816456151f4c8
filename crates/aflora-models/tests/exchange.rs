//! Adapter folders, to the bit with ourselves and to the logits with Hugging Face PEFT.

mod common;

use aflora_core::adapter::{
    normal, AdaLoraConfig, AfloraConfig, AfloraRankConfig, EloraConfig, LoraConfig, MethodConfig,
    SoraConfig,
};
use aflora_models::adapter_folder::{self, AdapterFolder, Description, TaskType};
use aflora_models::{AdaptedModel, Pattern, Targets};
use common::{batch, bert, fixture, relative, tensors};
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Kind, Tensor};

fn opened(folder: &Path) -> Result<AdaptedModel, String> {
    let folder = AdapterFolder::open(folder).map_err(|e| e.to_string())?;
    folder.attach(bert("bert_classes", 2), Kind::Float).map_err(|e| e.to_string())
}

fn logits(model: &AdaptedModel) -> Tensor {
    let io = tensors("bert_classes/io.safetensors");
    tch::no_grad(|| model.forward(&batch(&io, 1), false).unwrap())
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

fn methods() -> Vec<MethodConfig> {
    vec![
        MethodConfig::Aflora(AfloraConfig::default()),
        MethodConfig::Aflora(AfloraConfig { alpha: Some(16.0), ..Default::default() }),
        MethodConfig::Lora(LoraConfig { rank: 3, alpha: 5.0, ..Default::default() }),
        MethodConfig::Lora(LoraConfig { rslora: true, ..Default::default() }),
        MethodConfig::Elora(EloraConfig { rank: 16, projection_seed: 3, ..Default::default() }),
        MethodConfig::Elora(EloraConfig { rank: 5, shared: false, ..Default::default() }),
        MethodConfig::AdaLora(AdaLoraConfig { rank: 4, target_rank: 2, ..Default::default() }),
        MethodConfig::Sora(SoraConfig::default()),
        MethodConfig::AfloraRank(AfloraRankConfig::default()),
        MethodConfig::BitFit {},
        MethodConfig::Full {},
        MethodConfig::Head {},
    ]
}

/// The tiny BERT with adapters whose values are not those of the start, some components zero.
fn trained(config: &MethodConfig) -> AdaptedModel {
    let names = ["query", "value", "intermediate.dense", "attention.output.dense"];
    let target_modules = Pattern::Names(names.map(String::from).to_vec());
    let targets = Targets { target_modules, ..Default::default() };
    let method = config.build().unwrap();
    let backbone = bert("bert_classes", 2);
    let model =
        AdaptedModel::new(backbone, method.as_ref(), &targets, &[], Kind::Float, 1).unwrap();
    tch::no_grad(|| {
        for (i, adapter) in model.adapters().enumerate() {
            for mut t in adapter.tensors().into_iter().filter(|t| t.trainable) {
                let noise = normal(&t.tensor.size(), 0.2, i as u64, t.name);
                let _ = t.tensor.g_add_(&noise);
                if ["lora_E", "gate"].contains(&t.name)
                    || (t.name == "aflora_d" && method.name() == "aflora_rank")
                {
                    // Of the first layer none is left, of the others the first one goes.
                    let gone = if i == 0 { t.tensor.numel() as i64 } else { 1 };
                    let _ = t.tensor.view([-1]).narrow(0, 0, gone).fill_(0.0);
                }
            }
        }
        for (name, mut weight) in model.trained_weights() {
            let _ = weight.g_add_(&normal(&weight.size(), 0.02, 7, &name));
        }
    });
    model
}

fn describe(method: &MethodConfig, model: &AdaptedModel) -> Description {
    Description {
        method: method.clone(),
        base_model: Some("tiny".into()),
        length: None,
        modules_to_save: model.saved_modules(),
        task_type: TaskType::of(model.backbone()),
    }
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
        let exported = adapter_folder::export_lora(&model, &folder, Some("tiny"));
        if !config.build().unwrap().adapts() {
            assert!(exported.unwrap_err().to_string().contains("no adapters"));
            continue;
        }
        exported.unwrap();
        let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
        assert!(text.contains("\"peft_type\": \"LORA\""), "{text}");
        let error = relative(&logits(&opened(&folder).unwrap()), &logits(&model));
        assert!(error < 1e-5, "{config:?}: {error:e}");
    }
}

/// Copies a fixture's folder with a changed configuration.
fn changed(name: &str, from: &str, to: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("adapter");
    std::fs::create_dir(&folder).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(fixture("peft").join(name).join(file), folder.join(file)).unwrap();
    }
    let path = folder.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    (place, folder)
}

#[test]
fn folders_that_would_be_read_wrongly_are_refused_in_words() {
    for (name, from, to, expected) in [
        ("lora", "\"use_dora\": false", "\"use_dora\": true", "`use_dora` is true"),
        ("lora", "\"bias\": \"none\"", "\"bias\": \"all\"", "`bias` is `all`"),
        ("lora", "\"LORA\"", "\"IA3\"", "peft_type is `IA3`"),
        ("lora", "\"r\": 4", "\"r\": 5", "has rank 4 there, 5 by adapter_config.json"),
        ("lora", "\"lora_alpha\": 6", "\"lora_alpha\": \"six\"", "`lora_alpha` is missing"),
        ("vera", "\"r\": 6", "\"r\": 7", "has shape [6]"),
        ("lora", "{", "", "not an adapter's configuration"),
    ] {
        let (_place, folder) = changed(name, from, to);
        let error = opened(&folder).unwrap_err();
        assert!(error.contains(expected), "{to}: {error}");
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
    let build = || aflora_models::build("bert", &config, 2, tch::Device::Cpu).unwrap();
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
            MethodConfig::Lora(_) | MethodConfig::AdaLora(_) => {
                adapter_folder::save(&model, &folder, &describe(config, &model)).unwrap();
            }
            MethodConfig::Elora(elora) if elora.shared => {
                adapter_folder::save(&model, &folder, &describe(config, &model)).unwrap();
            }
            other if other.build().unwrap().adapts() => {
                adapter_folder::export_lora(&model, &folder, Some("tiny")).unwrap();
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
