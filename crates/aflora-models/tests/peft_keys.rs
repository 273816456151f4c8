//! Folders that use further keys of PEFT's configuration: read as PEFT reads them, and written so that
//! PEFT reads them again.

mod common;

use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::chat::ChatFormat;
use aflora_models::generate::GenerationSettings;
use aflora_models::merged::{self, OutputKind, StoredKind};
use aflora_models::{build, kind_of, shapes_only, weights, AdaptedModel, Backbone, Batch, Head};
use common::tiny::Tiny;
use common::{batch, bert, cpu, fixture, relative, tensors};
use serde_json::{json, Value};
use std::collections::BTreeMap;
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
            let error = relative(&logits(name, &folder, &opened(name, &target)), &expected);
            assert!(error < 1e-5, "{name}/{folder}, saved {saves}: {error:e}");
        }
        let target = place.path().join(format!("{name}-{folder}-merged"));
        merge(&adapted, name, &target);
        let (config, head) = (target.join("config.json"), adapted.backbone().about().head);
        let kind = kind_of(&config).unwrap().kind;
        let plain = build(kind, &config, head, &cpu()).unwrap();
        weights::load(plain.as_ref(), &target).unwrap();
        let found = tch::no_grad(|| plain.forward(&given(name, &folder), false).unwrap().logits);
        let error = relative(&found, &expected);
        assert!(error < 1e-5, "{name}/{folder}, merged: {error:e}");
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
    std::fs::copy(from.join("adapter_config.json"), place.path().join("adapter_config.json"))
        .unwrap();
    let mut all = tensors(&format!("peft_keys/{folder}/adapter_model.safetensors"));
    change(&mut all);
    let all: Vec<_> = all.into_iter().collect();
    Tensor::write_safetensors(&all, place.path().join("adapter_model.safetensors")).unwrap();
    place
}

/// What every key of PEFT's may be, beside off, in a folder of each kind: the keys that are read, or say
/// nothing of a trained adapter.
const READ: [&str; 43] = [
    // Every kind's.
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "revision",
    "target_modules",
    "task_type",
    // LoRA's.
    "alpha_pattern",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "r",
    "rank_pattern",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
    // Settings of starts and of switches that are off.
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "qalora_group_size",
    // AdaLoRA's.
    "beta1",
    "beta2",
    "deltaT",
    "init_r",
    "orth_reg_weight",
    "target_r",
    "tfinal",
    "tinit",
    "total_step",
    // VeRA's.
    "d_initial",
    "init_weights",
    "projection_prng_key",
    "save_projection",
    "vera_dropout",
];

#[test]
fn every_key_of_pefts_is_off_or_read_or_refused_by_its_name_and_in_the_docs() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/adapters.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let text = std::fs::read_to_string(fixture("peft_keys/configs.json")).unwrap();
    let configs: BTreeMap<String, serde_json::Map<String, Value>> =
        serde_json::from_str(&text).unwrap();
    assert_eq!(configs.len(), 3);
    let folders = ["peft/lora", "peft/adalora", "peft/vera"];
    let open = |from: &str, keys: &serde_json::Map<String, Value>| {
        let place = tempfile::tempdir().unwrap();
        let weights = "adapter_model.safetensors";
        std::fs::copy(fixture(from).join(weights), place.path().join(weights)).unwrap();
        let config = place.path().join("adapter_config.json");
        std::fs::write(config, serde_json::to_string(keys).unwrap()).unwrap();
        AdapterFolder::open(place.path()).map(drop).map_err(|error| error.to_string())
    };
    let (mut wrong, mut switched) = (Vec::new(), 0);
    for folder in folders {
        let own = std::fs::read_to_string(fixture(folder).join("adapter_config.json")).unwrap();
        let own: serde_json::Map<String, Value> = serde_json::from_str(&own).unwrap();
        let peft_type = own["peft_type"].as_str().unwrap();
        let kind = configs.values().find(|keys| keys["peft_type"] == peft_type).unwrap();
        // All keys of this version, those that are not set as it writes them.
        let whole: serde_json::Map<String, Value> =
            kind.clone().into_iter().chain(own.clone()).collect();
        open(folder, &whole).unwrap();
        for (key, off) in kind {
            if !docs.contains(&format!("`{key}`")) {
                wrong.push(format!("{key} is not in docs/adapters.md"));
            }
            if READ.contains(&key.as_str()) {
                continue;
            }
            assert!([Value::Null, Value::Bool(false)].contains(off), "{key}: {off}");
            for on in [json!(true), json!(3), json!("some"), json!(["some"]), json!({ "some": 1 })]
            {
                let mut keys = whole.clone();
                keys.insert(key.clone(), on.clone());
                switched += 1;
                match open(folder, &keys) {
                    Err(error) if error.contains(&format!("`{key}`")) => {}
                    other => wrong.push(format!("{peft_type} with {key}: {on}: {other:?}")),
                }
            }
        }
        // What a later version may bring.
        for (value, passes) in [(json!(null), true), (json!(false), true), (json!(true), false)] {
            let mut keys = whole.clone();
            keys.insert("use_what_comes".into(), value);
            assert_eq!(open(folder, &keys).is_ok(), passes);
        }
    }
    assert!(switched > 100);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_start_that_the_folder_does_not_tell_whole_is_refused_by_its_name() {
    let own = fixture("peft/lora");
    let text = std::fs::read_to_string(own.join("adapter_config.json")).unwrap();
    let mut keys: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let place = tempfile::tempdir().unwrap();
    let weights = "adapter_model.safetensors";
    std::fs::copy(own.join(weights), place.path().join(weights)).unwrap();
    for (start, passes) in [
        ("gaussian", true),
        ("eva", true),
        ("orthogonal", true),
        ("mica", true),
        ("pissa", true),
        ("olora", true),
        ("pissa_niter_4", false),
        ("corda", false),
        ("loftq", false),
        ("lora_ga", false),
        ("what_comes", false),
    ] {
        keys.insert("init_lora_weights".into(), start.into());
        let config = serde_json::to_string(&keys).unwrap();
        std::fs::write(place.path().join("adapter_config.json"), config).unwrap();
        match AdapterFolder::open(place.path()) {
            Ok(_) => assert!(passes, "{start}"),
            Err(error) => assert!(!passes && error.to_string().contains(start), "{start}: {error}"),
        }
    }
}

fn refused(name: &str, backbone: Box<dyn Backbone>, folder: &Path) -> String {
    let open = AdapterFolder::open(folder).unwrap();
    match open.attach(backbone, Kind::Float) {
        Ok(_) => panic!("{name} was not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn adapters_stand_beside_one_another_on_one_base_and_leave_it_as_it_is() {
    for name in MODELS {
        let (base, path, given) = model(name);
        let config = path.join("config.json");
        let (kind, head) = (kind_of(&config).unwrap().kind, base.about().head);
        let of_base = |base: &dyn Backbone| tch::no_grad(|| base.forward(&given, false)).unwrap();
        let before = of_base(base.as_ref()).logits;
        let own: Vec<_> = folders().into_iter().filter(|(of, ..)| *of == name).collect();
        let beside = |folder: &str| {
            let backbone = shapes_only(|| build(kind, &config, head, &cpu()).unwrap());
            weights::load_beside(backbone.as_ref(), &path, base.as_ref()).unwrap();
            let open = AdapterFolder::open(&fixture("peft_keys").join(name).join(folder)).unwrap();
            open.attach(backbone, Kind::Float).unwrap()
        };
        let all: Vec<AdaptedModel> = own.iter().map(|(_, folder, _)| beside(folder)).collect();
        for ((_, folder, expected), adapted) in own.iter().zip(&all) {
            let error = relative(&logits(name, folder, adapted), expected);
            assert!(error < 1e-5, "{name}/{folder}: {error:e}");
        }
        assert_eq!(of_base(base.as_ref()).logits, before, "{name}");
    }
}

#[test]
fn a_vocabulary_that_is_enlarged_in_one_of_two_tables_is_refused() {
    let folder = changed("llama/enlarged", |all| {
        assert!(all.remove("base_model.model.lm_head.weight").is_some());
    });
    let error = refused("llama", model("llama").0, folder.path());
    let words = "has 83 words there, which asks for `lm_head.weight` of shape [83, 32]";
    assert!(error.contains(words), "{error}");
}

#[test]
fn a_vocabulary_without_the_tokens_that_end_a_text_is_refused() {
    let folder = changed("llama/enlarged", |all| {
        for name in ["model.embed_tokens", "lm_head"] {
            let table = all.get_mut(&format!("base_model.model.{name}.weight")).unwrap();
            *table = table.narrow(0, 0, 1).copy();
        }
    });
    let error = refused("llama", model("llama").0, folder.path());
    assert!(error.contains("has 1 words there, the model needs"), "{error}");
}

#[test]
fn an_adapter_on_a_head_that_the_base_model_lacks_is_refused() {
    let bare = tempfile::tempdir().unwrap();
    let from = fixture("bert_classes");
    std::fs::copy(from.join("config.json"), bare.path().join("config.json")).unwrap();
    let mut all = tensors("bert_classes/model.safetensors");
    all.retain(|name, _| !name.starts_with("classifier"));
    let all: Vec<_> = all.into_iter().collect();
    Tensor::write_safetensors(&all, bare.path().join("model.safetensors")).unwrap();
    let config = bare.path().join("config.json");
    let backbone = build("bert", &config, Head::Classes(2), &cpu()).unwrap();
    weights::load(backbone.as_ref(), bare.path()).unwrap();
    let error = refused("bert", backbone, &fixture("peft_keys/bert/head"));
    assert!(error.contains("`classifier.weight` is not the folder's, but has an"), "{error}");
}

#[test]
fn what_stands_in_the_folder_as_the_base_model_has_it_is_not_saved_again() {
    let path = fixture("peft_keys/gpt2/head");
    let adapted = opened("gpt2", &path);
    assert_eq!(adapted.saved_weights().len(), 0);
    assert!(tensors("peft_keys/gpt2/head/adapter_model.safetensors")
        .contains_key("base_model.model.lm_head.base_layer.weight"));
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
