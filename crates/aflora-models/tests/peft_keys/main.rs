//! Folders that use further keys of PEFT's configuration: read as PEFT reads them, and written so that
//! PEFT reads them again.

mod beside;
#[path = "../common/mod.rs"]
mod common;
mod keys;
mod tables;

use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::chat::ChatFormat;
use aflora_models::generate::GenerationSettings;
use aflora_models::merged::{self, OutputKind, StoredKind};
use aflora_models::{build, kind_of, weights, AdaptedModel, Backbone, Batch, Head};
use common::tiny::Tiny;
use common::{batch, bert, cpu, fixture, relative, tensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Kind, Tensor};

const MODELS: [&str; 11] = [
    "bert",
    "roberta",
    "distilbert",
    "deberta_v3",
    "albert",
    "electra",
    "gpt2",
    "llama",
    "gemma",
    "bart",
    "t5",
];

/// A tiny model of [`MODELS`], where it lies, and what it is given.
fn model(name: &str) -> (Box<dyn Backbone>, PathBuf, Batch) {
    match name {
        "bert" => {
            let io = tensors("bert_classes/io.safetensors");
            (bert("bert_classes", 2), fixture("bert_classes"), batch(&io, 1))
        }
        "gpt2" | "llama" | "gemma" | "bart" | "t5" => {
            let tiny = Tiny::of(&format!("writers/{name}"));
            let mut given = tiny.batch(0);
            if given.decoder_input_ids.is_none() {
                given.attention_mask = given.attention_mask.ones_like();
            }
            (tiny.load(&cpu()), tiny.path(), given)
        }
        name => {
            let tiny = Tiny::of(&format!("models/{name}"));
            (tiny.load(&cpu()), tiny.path(), tiny.batch(1))
        }
    }
}

/// What the model is given with `folder`: if that has more words, the first and the last of them.
fn given(name: &str, folder: &str) -> Batch {
    let (model, _, given) = model(name);
    if folder.contains("enlarged") {
        let words = model.vocab_size();
        let texts = [Some(&given.input_ids), given.decoder_input_ids.as_ref()];
        for ids in texts.into_iter().flatten() {
            let _ = ids.narrow(1, 1, 1).fill_(words);
            let _ = ids.narrow(1, 2, 1).fill_(words + 2);
        }
    }
    given
}

fn opened(name: &str, folder: &Path) -> AdaptedModel {
    let folder = AdapterFolder::open(folder).unwrap();
    folder.attach(model(name).0, Kind::Float).unwrap()
}

fn logits(name: &str, folder: &str, adapted: &AdaptedModel) -> Tensor {
    let given = given(name, folder);
    tch::no_grad(|| adapted.forward(&given, false).unwrap().logits)
}

/// How far logits may lie from PEFT's. Where an adapter starts as a part of the weight, what is added is the
/// difference of two products as large as that, which each sort of processor rounds in its own way.
fn limit(folder: &str) -> f64 {
    match folder.starts_with("pissa") || folder.starts_with("olora") {
        true => 1e-4,
        false => 1e-5,
    }
}

/// Every folder, by its model and its own name, with PEFT's logits.
fn folders() -> Vec<(&'static str, String, Tensor)> {
    let of = |name: &'static str| {
        let golden = tensors(&format!("peft_keys/{name}/logits.safetensors"));
        golden.into_iter().map(move |(folder, logits)| (name, folder, logits))
    };
    let folders: Vec<_> = MODELS.into_iter().flat_map(of).collect();
    assert!(folders.len() > 50);
    folders
}

#[test]
fn every_key_of_pefts_that_is_built_gives_pefts_logits() {
    let mut wrong = Vec::new();
    for (name, folder, expected) in folders() {
        let path = fixture("peft_keys").join(name).join(&folder);
        let found = AdapterFolder::open(&path)
            .and_then(|open| open.attach(model(name).0, Kind::Float))
            .map(|adapted| relative(&logits(name, &folder, &adapted), &expected));
        match found {
            Ok(error) if error < limit(&folder) => {}
            other => wrong.push(format!("{name}/{folder}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_was_read_is_saved_exported_and_opened_again() {
    let place = tempfile::tempdir().unwrap();
    for (name, folder, expected) in folders() {
        let open = AdapterFolder::open(&fixture("peft_keys").join(name).join(&folder)).unwrap();
        let adapted = open.attach(model(name).0, Kind::Float).unwrap();
        for saves in [true, false] {
            let target = place.path().join(format!("{name}-{folder}-{saves}"));
            write(&adapted, &open, name, saves, &target);
            let error = relative(&logits(name, &folder, &opened(name, &target)), &expected);
            assert!(error < limit(&folder), "{name}/{folder}, saved {saves}: {error:e}");
        }
        let target = place.path().join(format!("{name}-{folder}-merged"));
        merge(&adapted, name, &target);
        let (config, head) = (target.join("config.json"), adapted.backbone().about().head);
        let kind = kind_of(&config).unwrap().kind;
        let plain = build(kind, &config, head, &cpu()).unwrap();
        weights::load(plain.as_ref(), &target).unwrap();
        let found = tch::no_grad(|| plain.forward(&given(name, &folder), false).unwrap().logits);
        let error = relative(&found, &expected);
        assert!(error < limit(&folder), "{name}/{folder}, merged: {error:e}");
    }
}

#[test]
fn a_rank_above_every_layer_is_read_saved_and_exported_as_what_it_computes() {
    const TIMES: i64 = 80;
    let folder = changed("bert/all_linear", |all| {
        for (name, matrix) in all.iter_mut() {
            if name.ends_with("lora_A.weight") {
                *matrix = matrix.repeat([TIMES, 1]);
            } else if name.ends_with("lora_B.weight") {
                *matrix = matrix.repeat([1, TIMES]) / TIMES as f64;
            }
        }
    });
    let config = folder.path().join("adapter_config.json");
    let mut keys: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    for key in ["r", "lora_alpha"] {
        keys[key] = (keys[key].as_i64().unwrap() * TIMES).into();
    }
    fs::write(&config, keys.to_string()).unwrap();

    let expected = &tensors("peft_keys/bert/logits.safetensors")["all_linear"];
    let adapted = opened("bert", folder.path());
    let features = adapted.injected().iter().map(|layer| {
        let site = &layer.linear().site;
        (site.in_features.max(site.out_features), layer.adapter().rank())
    });
    let (widest, rank) = features.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1))).unwrap();
    assert!(keys["r"].as_i64().unwrap() > widest && rank <= widest, "{rank} of {widest}");
    assert!(relative(&logits("bert", "all_linear", &adapted), expected) < 1e-5);
    let open = AdapterFolder::open(folder.path()).unwrap();
    let place = tempfile::tempdir().unwrap();
    for saves in [true, false] {
        let target = place.path().join(saves.to_string());
        write(&adapted, &open, "bert", saves, &target);
        let again = opened("bert", &target);
        assert!(relative(&logits("bert", "all_linear", &again), expected) < 1e-5, "{saves}");
    }
}

fn merge(adapted: &AdaptedModel, name: &str, target: &Path) {
    let source = model(name).1;
    let kind = kind_of(&source.join("config.json")).unwrap().kind;
    let (labels, answers): (i64, fn(Vec<&'static str>) -> OutputKind<'static>) =
        match adapted.backbone().about().head {
            Head::Classes(labels) => (labels, OutputKind::Classes),
            Head::Scores(labels) => (labels, OutputKind::Scores),
            _ => (0, |_| OutputKind::Text(GenerationSettings::default())),
        };
    let names = ["a", "b", "c", "d"][..labels as usize].to_vec();
    merged::save(adapted, kind, &source, target, answers(names), StoredKind::F32).unwrap();
}

/// The folder of a model, as a copy that `change` is made to.
fn changed(folder: &str, change: impl Fn(&mut BTreeMap<String, Tensor>)) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let from = fixture("peft_keys").join(folder);
    fs::copy(from.join("adapter_config.json"), place.path().join("adapter_config.json")).unwrap();
    let mut all = tensors(&format!("peft_keys/{folder}/adapter_model.safetensors"));
    change(&mut all);
    let all: Vec<_> = all.into_iter().collect();
    Tensor::write_safetensors(&all, place.path().join("adapter_model.safetensors")).unwrap();
    place
}

fn write(adapted: &AdaptedModel, open: &AdapterFolder, name: &str, saves: bool, target: &Path) {
    let method = &open.description().method;
    match saves {
        true => {
            let description = common::adapters::describe(method, adapted);
            adapter_folder::save(adapted, target, &description).unwrap();
        }
        false => {
            let settings = GenerationSettings::default();
            let source = model(name).1;
            let chat = ChatFormat::default();
            adapter_folder::export(adapted, method, None, &source, &settings, &chat, target)
                .unwrap();
        }
    }
}

/// Runs PEFT itself over folders of ours, where `AFLORA_PEFT_PYTHON` names a Python that has it.
#[test]
fn peft_and_transformers_open_what_we_make_of_what_we_read() {
    use std::io::Write;
    let Some(python) = std::env::var_os("AFLORA_PEFT_PYTHON") else {
        let skipped =
            "skipped, it needs a Python with peft and transformers: AFLORA_PEFT_PYTHON=python";
        let _ = writeln!(std::io::stderr(), "{skipped}");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let mut asked = Command::new(&python);
    asked.arg(fixture("open_with_peft_keys.py")).env_remove("LD_LIBRARY_PATH");
    let mut all = Vec::new();
    for (name, folder, expected) in folders() {
        let open = AdapterFolder::open(&fixture("peft_keys").join(name).join(&folder)).unwrap();
        let target = place.path().join(format!("{name}-{folder}"));
        write(
            &opened(name, &fixture("peft_keys").join(name).join(&folder)),
            &open,
            name,
            false,
            &target,
        );
        asked.arg(name).arg(&target);
        all.push((format!("{name}/{folder}"), expected.shallow_clone()));
        let target = place.path().join(format!("{name}-{folder}-merged"));
        merge(&opened(name, &fixture("peft_keys").join(name).join(&folder)), name, &target);
        asked.arg(name).arg(&target);
        all.push((format!("{name}/{folder}, merged"), expected));
    }
    let output = asked.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs: Vec<Vec<f32>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(theirs.len(), all.len());
    let mut wrong = Vec::new();
    for ((what, expected), theirs) in all.into_iter().zip(theirs) {
        let error = relative(&Tensor::from_slice(&theirs).view_as(&expected), &expected);
        if error.is_nan() || error >= 1e-5 {
            wrong.push(format!("{what}: {error:e}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
