//! Models that write: logits, losses, gradients and texts equal to those of Hugging Face
//! transformers; what is remembered, checkpointed or padded changes nothing.

use crate::common::tiny::Tiny;
use crate::common::writers::{batch, load, loss, Io};
use crate::common::{cpu, relative};
use aflora_models::generate::{write, GenerationConfig};
use aflora_models::{Backbone, Batch, Head, Options};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const LIMIT: f64 = 1e-5;
fn agrees(tiny: &Tiny) {
    let (name, io, model) = (tiny.name(), &tiny.io, tiny.load(&cpu()));
    for variable in model.var_store().variables().values() {
        let _ = variable.set_requires_grad(true);
    }
    let right = batch(io, "right");
    let logits = model.forward(&right, false).unwrap().logits;
    // Transformers sees padding where we do not: only tokens are compared.
    let mask = right.decoder_input_ids.as_ref().map_or_else(
        || right.attention_mask.shallow_clone(),
        |_| io["right.labels"].ne(-100).to_kind(Kind::Int64),
    );
    let mask = mask.unsqueeze(2);
    let of_logits = relative(&(&logits * &mask), &(&io["right.logits"] * &mask));
    let loss = loss(&logits, io);
    let of_loss = relative(&loss, &io["right.loss"]);
    loss.backward();
    let variables = model.var_store().variables();
    let golden: Vec<(&str, &Tensor)> =
        io.iter().filter_map(|(key, t)| Some((key.strip_prefix("grad.")?, t))).collect();
    let unread = |weight: &str| !variables[weight].grad().defined();
    for weight in variables.keys() {
        let known = golden.iter().any(|(known, _)| known == weight);
        assert!(known || weight == "final_logits_bias" || unread(weight), "{name}: {weight}");
    }
    let max = |t: &Tensor| t.abs().max().double_value(&[]);
    let largest = golden.iter().map(|(_, g)| max(g)).fold(0.0, f64::max);
    let mut of_gradients: f64 = 0.0;
    for (weight, expected) in golden {
        let found = variables[weight].grad();
        if max(expected) < 1e-6 * largest {
            assert!(max(&found) < 1e-5 * largest, "{name}: {weight} {}", max(&found));
            continue;
        }
        let error = relative(&found, expected);
        assert!(error < 10.0 * LIMIT, "{name}: gradient of {weight} {error:e}");
        of_gradients = of_gradients.max(error);
    }
    println!("{name}: logits {of_logits:.1e}, loss {of_loss:.1e}, gradients {of_gradients:.1e}");
    assert!(of_logits < LIMIT && of_loss < LIMIT && of_gradients < LIMIT, "{name}");

    if let Some(expected) = io.get("left.logits") {
        let left = Batch { left_padded: true, ..batch(io, "left") };
        let mask = left.attention_mask.unsqueeze(2);
        let found = model.forward(&left, false).unwrap().logits * &mask;
        let error = relative(&found, &(expected * &mask));
        assert!(error < LIMIT, "{name}: padded on the left {error:e}");
    }
}

/// Each is there for what it has: LLaMA with shared keys, a tied head, stretched angles and biases,
/// GPT-Neo beyond its local window, BART with forced tokens and with a table for each side.
#[test]
fn every_model_that_writes_agrees_with_transformers() {
    Tiny::writers().iter().for_each(agrees);
}

#[test]
fn words_of_encoder_decoder_and_head_in_a_table_each_stay_apart() {
    let (model, _) = load("bart_untied", &cpu());
    let variables = model.var_store().variables();
    for own in ["model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"] {
        let table = &variables[&format!("{own}.weight")];
        assert!(!table.requires_grad(), "{own}");
        assert!(relative(table, &variables["model.shared.weight"]) > 0.1, "{own}");
    }
}

/// What a batch begins with for writing.
fn beginning(model: &dyn Backbone, io: &Io) -> Batch {
    let given = batch(io, "left");
    match model.text_generator().unwrap().tokens().decoder_start {
        None => Batch { left_padded: true, ..given },
        Some(start) => {
            let rows = given.input_ids.size()[0];
            let first = Tensor::full([rows, 1], start, (Kind::Int64, Device::Cpu));
            Batch { decoder_input_ids: Some(first), ..given }
        }
    }
}

#[test]
fn every_search_writes_what_transformers_writes() {
    let mut ended = 0;
    for tiny in Tiny::writers() {
        let (name, io, model) = (tiny.name(), &tiny.io, tiny.load(&cpu()));
        let path = tiny.path().join("texts.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let batch = beginning(model.as_ref(), io);
        for (search, settings) in golden["searches"].as_object().unwrap() {
            let mut settings = settings.clone();
            let early = match settings.get("early_stopping") {
                Some(Value::Bool(true)) => "full",
                Some(_) => "never",
                None => "heuristic",
            };
            settings["early_stopping"] = early.into();
            let config: GenerationConfig = serde_json::from_value(settings).unwrap();
            let found = write(model.text_generator().unwrap(), &batch, &config).unwrap();
            let texts: Vec<Vec<i64>> =
                serde_json::from_value(golden["texts"][search].clone()).unwrap();
            assert_eq!(found, texts, "{name}, {search}");
            ended += texts.iter().filter(|t| t.len() + 1 < config.max_new_tokens).count();
        }
    }
    assert!(ended > 40, "only {ended} texts end before they have to");
}

#[test]
fn a_text_is_written_alike_alone_and_in_a_batch() {
    let (model, io) = load("llama", &cpu());
    let together = beginning(model.as_ref(), &io);
    let config = GenerationConfig { max_new_tokens: 20, num_beams: 3, ..Default::default() };
    let generator = model.text_generator().unwrap();
    let all = write(generator, &together, &config).unwrap();
    for (row, expected) in all.iter().enumerate() {
        let mask = together.attention_mask.get(row as i64);
        let length = mask.sum(Kind::Int64).int64_value(&[]);
        let ids = together.input_ids.get(row as i64);
        let ids = ids.narrow(0, ids.size()[0] - length, length).unsqueeze(0);
        let alone = Batch::new(ids.shallow_clone(), ids.ones_like());
        assert_eq!(write(generator, &alone, &config).unwrap(), std::slice::from_ref(expected));
    }
}

#[test]
fn a_bf16_base_is_made_in_bf16_and_stays_near_single_precision() {
    for name in ["llama3", "gpt2", "gptj", "bart"] {
        let (exact, io) = load(name, &cpu());
        let options = Options { base: Kind::BFloat16, ..cpu() };
        let (rough, _) = load(name, &options);
        assert!(rough.var_store().variables().values().all(|t| t.kind() == Kind::BFloat16));
        let right = batch(&io, "right");
        let (exact, rough) = (
            exact.forward(&right, false).unwrap().logits,
            rough.forward(&right, false).unwrap().logits,
        );
        assert_eq!(rough.kind(), Kind::Float);
        let error = relative(&rough, &exact);
        assert!(error > 0.0 && error < 0.05, "{name}: {error}");
    }
}

#[test]
fn far_positions_are_told_apart_in_bf16() {
    // 257 and 258 are one number in bf16: the angles are not computed in it.
    for name in ["llama", "gptj"] {
        let options = Options { base: Kind::BFloat16, ..cpu() };
        let (exact, _) = load(name, &cpu());
        let (rough, _) = load(name, &options);
        tch::manual_seed(1);
        let ids = Tensor::randint_low(5, 80, [1, 400], (Kind::Int64, Device::Cpu));
        let long = Batch::new(ids.shallow_clone(), ids.ones_like());
        let (exact, rough) = (
            exact.forward(&long, false).unwrap().logits,
            rough.forward(&long, false).unwrap().logits,
        );
        let error = relative(&rough.narrow(1, 300, 100), &exact.narrow(1, 300, 100));
        assert!(error < 0.1, "{name}: {error}");
    }
}

#[test]
fn a_text_longer_than_the_positions_is_refused_and_not_written() {
    for name in ["llama", "gpt_neo"] {
        let (model, io) = load(name, &cpu());
        let config = GenerationConfig { max_new_tokens: 120, ..Default::default() };
        let error =
            write(model.text_generator().unwrap(), &beginning(model.as_ref(), &io), &config);
        let words = error.unwrap_err().to_string();
        assert!(words.contains("more than the model's 128 positions"), "{words}");
    }
}

#[test]
fn a_kind_that_does_not_write_is_named_as_such() {
    let words = |kind, head| aflora_models::check_kind(kind, head).unwrap_err().to_string();
    assert!(words("bert", Head::Language).contains("bart, gemma, gemma2, gemma3_text, gpt2"));
    assert!(words("mt5", Head::Language).contains("are not built"));
    for kind in ["llama", "bart"] {
        for head in [Head::Classes(3), Head::Scores(1), Head::Language] {
            aflora_models::check_kind(kind, head).unwrap();
        }
    }
}
