//! Folders that use further keys of PEFT's configuration: read as PEFT reads them, and written so that
//! PEFT reads them again.

mod common;

use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::chat::ChatFormat;
use aflora_models::generate::GenerationSettings;
use aflora_models::{build, shapes_only, weights, AdaptedModel, Backbone, Batch, Head};
use common::tiny::Tiny;
use common::{batch, bert, cpu, fixture, relative, tensors};
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Kind, Tensor};

const MODELS: [&str; 4] = ["bert", "gpt2", "llama", "bart"];

/// A tiny model of [`MODELS`], where it lies, and what it is given.
fn model(name: &str) -> (Box<dyn Backbone>, PathBuf, Batch) {
    match name {
        "bert" => {
            let io = tensors("bert_classes/io.safetensors");
            (bert("bert_classes", 2), fixture("bert_classes"), batch(&io, 1))
        }
        name => {
            let tiny = Tiny::of(&format!("writers/{name}"));
            let mut given = tiny.batch(0);
            if name != "bart" {
                given.attention_mask = given.attention_mask.ones_like();
            }
            (tiny.load(&cpu()), tiny.path(), given)
        }
    }
}

fn opened(name: &str, folder: &Path) -> AdaptedModel {
    let folder = AdapterFolder::open(folder).unwrap();
    folder.attach(model(name).0, Kind::Float).unwrap()
}

fn logits(name: &str, adapted: &AdaptedModel) -> Tensor {
    let given = model(name).2;
    tch::no_grad(|| adapted.forward(&given, false).unwrap().logits)
}

/// Every folder, by its model and its own name, with PEFT's logits.
fn folders() -> Vec<(&'static str, String, Tensor)> {
    let of = |name: &'static str| {
        let golden = tensors(&format!("peft_keys/{name}/logits.safetensors"));
        golden.into_iter().map(move |(folder, logits)| (name, folder, logits))
    };
    let folders: Vec<_> = MODELS.into_iter().flat_map(of).collect();
    assert!(folders.len() > 20);
    folders
}

#[test]
fn every_key_of_pefts_that_is_built_gives_pefts_logits() {
    let mut wrong = Vec::new();
    for (name, folder, expected) in folders() {
        let path = fixture("peft_keys").join(name).join(&folder);
        let found = AdapterFolder::open(&path)
            .and_then(|open| open.attach(model(name).0, Kind::Float))
            .map(|adapted| relative(&logits(name, &adapted), &expected));
        match found {
            Ok(error) if error < 1e-5 => {}
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
            let error = relative(&logits(name, &opened(name, &target)), &expected);
            assert!(error < 1e-5, "{name}/{folder}, saved {saves}: {error:e}");
        }
    }
}

#[test]
fn adapters_stand_beside_one_another_on_one_base_and_leave_it_as_it_is() {
    for name in MODELS {
        let (base, path, given) = model(name);
        let head = if name == "bert" { Head::Classes(2) } else { Head::Language };
        let config = path.join("config.json");
        let of_base = |base: &dyn Backbone| tch::no_grad(|| base.forward(&given, false)).unwrap();
        let before = of_base(base.as_ref()).logits;
        let own: Vec<_> = folders().into_iter().filter(|(of, ..)| *of == name).collect();
        let beside = |folder: &str| {
            let backbone = shapes_only(|| build(name, &config, head, &cpu()).unwrap());
            weights::load_beside(backbone.as_ref(), &path, base.as_ref()).unwrap();
            let open = AdapterFolder::open(&fixture("peft_keys").join(name).join(folder)).unwrap();
            open.attach(backbone, Kind::Float).unwrap()
        };
        let all: Vec<AdaptedModel> = own.iter().map(|(_, folder, _)| beside(folder)).collect();
        for ((_, folder, expected), adapted) in own.iter().zip(&all) {
            let error = relative(&logits(name, adapted), expected);
            assert!(error < 1e-5, "{name}/{folder}: {error:e}");
        }
        assert_eq!(of_base(base.as_ref()).logits, before, "{name}");
    }
}

#[test]
fn merging_one_of_several_models_on_a_base_leaves_the_others_as_they_are() {
    let (base, path, given) = model("bert");
    let config = path.join("config.json");
    let backbone = shapes_only(|| build("bert", &config, Head::Classes(2), &cpu()).unwrap());
    weights::load_beside(backbone.as_ref(), &path, base.as_ref()).unwrap();
    let open = AdapterFolder::open(&fixture("peft_keys/bert/patterns")).unwrap();
    let layers = backbone.linears().to_vec();
    let injection = open.inject(backbone.var_store(), &layers).unwrap();
    let of = |model: &dyn Backbone| tch::no_grad(|| model.forward(&given, false)).unwrap().logits;
    let (before, adapted) = (of(base.as_ref()), of(backbone.as_ref()));
    injection.merge().unwrap();
    assert!(relative(&of(backbone.as_ref()), &adapted) < 1e-5);
    assert!(relative(&adapted, &before) > 1e-3);
    assert_eq!(of(base.as_ref()), before);
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
fn peft_opens_what_we_export_of_what_we_read() {
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
        all.push((format!("{name}/{folder}"), expected));
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
