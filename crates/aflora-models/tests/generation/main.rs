//! How a model writes where nobody says it: as its generation_config.json has it, else its
//! config.json, like transformers.

#[path = "../common/mod.rs"]
mod common;
mod continuous;

use aflora_models::generate::{
    write, write_each, EarlyStopping, GenerationConfig, GenerationSettings, ModelSettings,
    TextGenerator,
};
use aflora_models::{weights, Backbone, Batch, Head, Result};
use common::log::logged;
use common::writers::batch;
use common::{cpu, fixture, tensors};
use serde_json::{json, Value};
use std::ops::ControlFlow;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// A folder with a model of `writers/`, whose config.json has `config` put into it, and the
/// generation_config.json.
fn folder(model: &str, config: &Value, generation: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("writers").join(model);
    std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let text = std::fs::read(from.join("config.json")).unwrap();
    let mut keys: Value = serde_json::from_slice(&text).unwrap();
    keys.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    std::fs::write(folder.path().join("config.json"), keys.to_string()).unwrap();
    if !generation.is_null() {
        let path = folder.path().join("generation_config.json");
        std::fs::write(path, generation.to_string()).unwrap();
    }
    folder
}

fn build(kind: &str, folder: &Path) -> Result<Box<dyn Backbone>> {
    let kind = kind.trim_end_matches("_forced");
    aflora_models::build(kind, &folder.join("config.json"), Head::Language, &cpu())
}

#[test]
fn a_model_writes_as_its_generation_config_says() {
    let text = std::fs::read_to_string(fixture("generation.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 7);
    for case in cases {
        let name = case["model"].as_str().unwrap();
        let place = folder(name, &case["config"], &case["generation_config"]);
        let model = build(name, place.path()).unwrap();
        weights::load(model.as_ref(), place.path()).unwrap();
        let generator = model.text_generator().unwrap();
        let start = generator.tokens().decoder_start;
        let said = ModelSettings::read(&place.path().join("config.json"), start.is_some()).unwrap();
        assert!(said.not_built.is_empty(), "{said:?}");
        let io = tensors(&format!("writers/{name}/io.safetensors"));
        let given = batch(&io, "left");
        let rows = given.input_ids.size()[0];
        let first = start.map(|id| Tensor::full([rows, 1], id, (Kind::Int64, Device::Cpu)));
        let given = Batch { left_padded: start.is_none(), decoder_input_ids: first, ..given };
        let found =
            write(generator, &given, &GenerationSettings::default().over(&said.settings)).unwrap();
        assert_eq!(serde_json::to_value(found).unwrap(), case["texts"], "{case}");
    }
}

#[test]
fn the_task_s_settings_come_first_and_then_the_model_s() {
    let model = GenerationSettings {
        max_new_tokens: Some(141),
        min_new_tokens: Some(55),
        num_beams: Some(4),
        early_stopping: Some(EarlyStopping::Full),
        ..Default::default()
    };
    let task = GenerationSettings {
        max_new_tokens: Some(32),
        num_beams: Some(1),
        no_repeat_ngram_size: Some(2),
        ..Default::default()
    };
    let config = task.over(&model);
    assert_eq!((config.max_new_tokens, config.min_new_tokens), (32, 32));
    assert_eq!((config.num_beams, config.no_repeat_ngram_size), (1, 2));
    assert_eq!((config.early_stopping, config.length_penalty), (EarlyStopping::Full, 1.0));
    assert!(config.validate().is_ok());
    // So may a command's over a task's.
    let command = GenerationSettings { max_new_tokens: Some(9), ..Default::default() };
    assert_eq!(command.or(&model).min_new_tokens, Some(9));
    assert_eq!(command.or(&task).or(&model).num_beams, Some(1));
}

#[test]
fn what_a_generation_config_asks_for_and_is_not_built_is_said() {
    let asks = json!({
        "do_sample": true, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.2, "max_length": 4096, "top_k": -1,
        "encoder_no_repeat_ngram_size": 0, "bad_words_ids": null, "guidance_scale": 1.0,
        "suppress_tokens": (0..99).collect::<Vec<i32>>(), "transformers_version": "5.24.0",
    });
    let place = folder("llama", &json!({}), &asks);
    let config = place.path().join("config.json");
    let mut said = ModelSettings::default();
    let words = logged(|| {
        for _ in 0..2 {
            said = ModelSettings::read(&config, false).unwrap();
        }
    });
    let expected = GenerationSettings {
        repetition_penalty: Some(1.2),
        temperature: Some(0.6),
        top_p: Some(0.9),
        ..Default::default()
    };
    assert_eq!(said.settings, expected);
    assert_eq!((said.not_built.len(), words.matches(" WARN ").count()), (4, 4), "{words}");
    for expected in [
        "generation_config.json: `do_sample` is true; tokens are only drawn where task.generation",
        "`top_k` is -1, which cannot be: it is left out",
        "`suppress_tokens` is [0,1,2",
        "`max_length` is 4096, which counts the prompt as well",
    ] {
        assert!(words.contains(expected), "missing: {expected}\n{words}");
    }
    // An encoder-decoder's counts its first token alone.
    let said = ModelSettings::read(&config, true).unwrap();
    assert_eq!(said.settings.max_new_tokens, Some(4095));
}

#[test]
fn an_end_token_that_generation_config_leaves_out_is_config_json_s() {
    let place = folder("llama", &json!({ "eos_token_id": [7, 8] }), &json!({ "pad_token_id": 3 }));
    let model = build("llama", place.path()).unwrap();
    let tokens = model.text_generator().unwrap().tokens().clone();
    assert_eq!((tokens.eos, tokens.pad), (vec![7, 8], Some(3)));
}

#[test]
fn a_special_id_that_is_no_token_is_told_before_libtorch_sees_it() {
    let error = |model: &str, config: Value, generation: Value| {
        build(model, folder(model, &config, &generation).path()).unwrap_err().to_string()
    };
    let words = error("bart", json!({}), json!({ "forced_eos_token_id": 80 }));
    let expected =
        "generation_config.json: `forced_eos_token_id` is 80, which is not among the model's 80";
    assert!(words.contains(expected), "{words}");
    let words = error("bart", json!({ "forced_bos_token_id": 500 }), Value::Null);
    assert!(words.contains("config.json: `forced_bos_token_id` is 500"), "{words}");
    let words = error("bart", json!({ "decoder_start_token_id": 1_u64 << 40 }), Value::Null);
    assert!(words.contains("`decoder_start_token_id` is 1099511627776"), "{words}");
    let words = error("llama", json!({ "eos_token_id": "</s>" }), Value::Null);
    assert!(words.contains("must be a token id, or a list of them"), "{words}");
    let words = error("llama", json!({}), json!([1]));
    assert!(words.contains("generation_config.json: not a JSON object"), "{words}");

    // -1 says that there is none, and padding stands where nobody looks.
    let none = json!({ "pad_token_id": -1, "forced_bos_token_id": -1, "eos_token_id": [-1, 2] });
    let tokens = |config: &Value| {
        let model = build("bart", folder("bart", config, &Value::Null).path()).unwrap();
        model.text_generator().unwrap().tokens().clone()
    };
    let found = tokens(&none);
    assert_eq!((found.eos, found.pad, found.forced_bos), (vec![2], None, None));
    assert_eq!(tokens(&json!({ "pad_token_id": 80 })).pad, None);
}

/// As transformers saves a GPT-2 of a smaller vocabulary, with the released model's end token.
#[test]
fn an_end_token_beyond_the_vocabulary_never_comes_and_is_no_error() {
    let tokens = |config: Value, generation: Value| {
        let model = build("llama", folder("llama", &config, &generation).path()).unwrap();
        model.text_generator().unwrap().tokens().clone()
    };
    let none = json!({ "eos_token_id": null });
    assert!(tokens(none.clone(), json!({ "eos_token_id": 50256 })).eos.is_empty());
    assert_eq!(tokens(none.clone(), json!({ "eos_token_id": [2, 80] })).eos, [2]);
    assert_eq!(tokens(json!({ "eos_token_id": 3 }), json!({ "eos_token_id": 80 })).eos, [3]);
    assert_eq!(tokens(none.clone(), json!({ "pad_token_id": 80 })).pad, None);

    let beyond = json!({ "eos_token_id": 50256, "max_new_tokens": 5 });
    let place = folder("llama", &none, &beyond);
    let model = build("llama", place.path()).unwrap();
    weights::load(model.as_ref(), place.path()).unwrap();
    let said = ModelSettings::read(&place.path().join("config.json"), false).unwrap();
    let io = tensors("writers/llama/io.safetensors");
    for beams in [1, 3] {
        let task = GenerationSettings { num_beams: Some(beams), ..Default::default() };
        let given = Batch { left_padded: true, ..batch(&io, "left") };
        let texts =
            write(model.text_generator().unwrap(), &given, &task.over(&said.settings)).unwrap();
        assert!(texts.iter().all(|text| text.len() == 5), "to the longest: {texts:?}");
    }
}

#[test]
fn a_setting_out_of_its_range_is_told_with_its_file() {
    for (key, value, expected) in [
        ("num_beams", json!(0), "num_beams"),
        ("num_beams", json!("many"), "`num_beams` is \"many\""),
        ("early_stopping", json!("soon"), "`early_stopping` is \"soon\", not true, false"),
        ("max_new_tokens", json!(-5), "`max_new_tokens` is -5"),
        ("no_repeat_ngram_size", json!(1.5), "`no_repeat_ngram_size` is 1.5"),
    ] {
        let place = folder("bart", &json!({}), &json!({ key: value }));
        let error = ModelSettings::read(&place.path().join("config.json"), true).unwrap_err();
        let words = error.to_string();
        assert!(words.contains("generation_config.json: "), "{words}");
        assert!(words.contains(expected), "missing: {expected}\n{words}");
    }
}

/// The model of `writers/llama`, and what it reads there.
fn llama(read: impl FnOnce(&dyn TextGenerator, Batch)) {
    let place = folder("llama", &json!({}), &Value::Null);
    let model = build("llama", place.path()).unwrap();
    weights::load(model.as_ref(), place.path()).unwrap();
    let given = batch(&tensors("writers/llama/io.safetensors"), "left");
    read(model.text_generator().unwrap(), Batch { left_padded: true, ..given });
}

fn sampling() -> GenerationConfig {
    GenerationConfig { max_new_tokens: 12, do_sample: true, seed: 3, ..Default::default() }
}

fn go_on(_: usize, _: i64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn from_the_likeliest_token_alone_the_greedy_text_is_drawn() {
    llama(|generator, given| {
        let greedy = GenerationConfig { do_sample: false, ..sampling() };
        let one = GenerationConfig { top_k: 1, ..sampling() };
        let found = write(generator, &given, &one).unwrap();
        assert_eq!(found, write(generator, &given, &greedy).unwrap());
        assert_ne!(found, write(generator, &given, &sampling()).unwrap());
    });
}

#[test]
fn a_drawn_text_goes_by_its_number_and_not_by_its_batch() {
    llama(|generator, given| {
        let numbers: Vec<u64> = (0..given.input_ids.size()[0] as u64).map(|n| n + 40).collect();
        let all = write_each(generator, &given, &sampling(), &numbers, &mut go_on).unwrap();
        for (row, number) in numbers.iter().enumerate() {
            let rows = |tensor: &Tensor| tensor.narrow(0, row as i64, 1);
            let (ids, mask) = (rows(&given.input_ids), rows(&given.attention_mask));
            let alone = Batch { left_padded: true, ..Batch::new(ids, mask) };
            let found = write_each(generator, &alone, &sampling(), &[*number], &mut go_on).unwrap();
            assert_eq!(found[0], all[row], "{row}");
        }
        let other = GenerationConfig { seed: 4, ..sampling() };
        assert_ne!(all, write_each(generator, &given, &other, &numbers, &mut go_on).unwrap());
    });
}

#[test]
fn every_token_is_told_as_it_comes_and_the_search_can_be_ended() {
    llama(|generator, given| {
        let mut told = vec![Vec::new(); given.input_ids.size()[0] as usize];
        let numbers: Vec<u64> = (0..told.len() as u64).collect();
        let greedy = GenerationConfig { max_new_tokens: 24, ..Default::default() };
        let texts = write_each(generator, &given, &greedy, &numbers, &mut |text, token| {
            told[text].push(token);
            ControlFlow::Continue(())
        });
        let texts = texts.unwrap();
        assert_eq!(told, texts);
        assert!(texts.iter().any(|text| text.len() < 24), "one ends by itself");

        let mut steps = 0;
        let begun = write_each(generator, &given, &greedy, &numbers, &mut |_, _| {
            steps += 1;
            if steps > 2 * told.len() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        for (begun, whole) in begun.unwrap().iter().zip(&texts) {
            assert!(begun.len() <= 3 && whole.starts_with(begun), "{begun:?} {whole:?}");
        }
    });
}

#[test]
fn a_text_ends_at_further_end_tokens_too() {
    llama(|generator, given| {
        let greedy = GenerationConfig { max_new_tokens: 24, ..Default::default() };
        let whole = write(generator, &given, &greedy).unwrap();
        let end = whole[0][3];
        let ended = GenerationConfig { further_eos: vec![end], ..greedy };
        let texts = write(generator, &given, &ended).unwrap();
        for (text, whole) in texts.iter().zip(&whole) {
            let until = whole.iter().position(|token| *token == end).unwrap_or(whole.len());
            assert_eq!(text[..], whole[..until]);
        }
        assert!(texts[0].len() <= 3);
    });
}

#[test]
fn settings_of_sampling_are_checked_and_come_from_the_model_only_where_a_task_draws() {
    let model = GenerationSettings {
        num_beams: Some(4),
        do_sample: Some(true),
        temperature: Some(0.6),
        top_k: Some(7),
        ..Default::default()
    };
    let searched = GenerationSettings::default().over(&model);
    assert_eq!((searched.do_sample, searched.num_beams), (false, 4));
    let drawn = GenerationSettings { do_sample: Some(true), ..Default::default() }.over(&model);
    assert_eq!((drawn.num_beams, drawn.temperature, drawn.top_k), (1, 0.6, 7));
    assert!(drawn.validate().is_ok());
    for (wrong, field) in [
        (GenerationConfig { temperature: 0.0, ..sampling() }, "temperature"),
        (GenerationConfig { top_p: 1.5, ..sampling() }, "top_p"),
        (GenerationConfig { min_p: -0.1, ..sampling() }, "min_p"),
        (GenerationConfig { repetition_penalty: 0.0, ..sampling() }, "repetition_penalty"),
        (GenerationConfig { num_beams: 2, ..sampling() }, "num_beams"),
    ] {
        let error = wrong.validate().unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}
