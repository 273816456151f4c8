//! What every key of PEFT's may be: off, read, or refused by its name.

use crate::common::fixture;
use aflora_models::adapter_folder::AdapterFolder;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::path::Path;

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
