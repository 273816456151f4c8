//! What a config.json of LLaMA's kin and of T5 says: by older names and by none, and what is not
//! built.

use crate::common::tiny::Tiny;
use crate::common::writers::batch;
use crate::common::{self, cpu, relative};
use aflora_models::{build, kind_of, weights, Backbone, Head, Pattern, Result, Targets};
use serde_json::{json, Map, Value};
use tch::Tensor;

/// The model of `writers/NAME` by a config.json that `change` has changed.
fn changed(
    name: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> (Tiny, Result<Box<dyn Backbone>>) {
    let tiny = Tiny::of(&format!("writers/{name}"));
    let text = std::fs::read(tiny.path().join("config.json")).unwrap();
    let mut keys: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    change(&mut keys);
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("config.json");
    std::fs::write(&config, Value::from(keys).to_string()).unwrap();
    let model = build(tiny.kind, &config, Head::Language, &cpu());
    if let Ok(model) = &model {
        weights::load(model.as_ref(), &tiny.path()).unwrap();
    }
    (tiny, model)
}

fn logits((tiny, model): (Tiny, Result<Box<dyn Backbone>>)) -> Tensor {
    model.unwrap().forward(&batch(&tiny.io, "right"), false).unwrap().logits
}

/// Moves the rope's keys to where files before transformers 5 have them.
fn older(keys: &mut Map<String, Value>, theta: &str, share: &str) {
    let mut rope = keys.remove("rope_parameters").unwrap();
    let rope = rope.as_object_mut().unwrap();
    keys.insert(theta.into(), rope.remove("rope_theta").unwrap());
    if let Some(turned) = rope.remove("partial_rotary_factor") {
        keys.insert(share.into(), turned);
    }
    let kind = rope.remove("rope_type").unwrap();
    if kind != "default" {
        rope.insert("type".into(), kind);
        keys.insert("rope_scaling".into(), rope.clone().into());
    }
}

#[test]
fn older_names_of_a_ropes_keys_mean_what_the_newer_ones_do() {
    for (name, theta, share) in [
        ("llama_dynamic", "rope_theta", ""),
        ("llama_longrope", "rope_theta", ""),
        ("llama_yarn_mscale", "rope_theta", ""),
        ("llama3", "rope_theta", ""),
        ("phi3", "rope_theta", "partial_rotary_factor"),
        ("gpt_neox", "rotary_emb_base", "rotary_pct"),
    ] {
        let expected = logits(changed(name, |_| {}));
        let found = logits(changed(name, |keys| older(keys, theta, share)));
        assert_eq!(found, expected, "{name}");
    }
    // Phi-3's first files call LongRoPE `su`.
    let expected = logits(changed("phi3", |_| {}));
    let su = |keys: &mut Map<String, Value>| {
        older(keys, "rope_theta", "partial_rotary_factor");
        keys["rope_scaling"]["type"] = "su".into();
    };
    assert_eq!(logits(changed("phi3", su)), expected);
    // Gemma 3's have a θ for each type of layer, and scale one.
    let expected = logits(changed("gemma3_text", |_| {}));
    let two = |keys: &mut Map<String, Value>| {
        keys.remove("rope_parameters");
        keys.insert("rope_theta".into(), 5000.0.into());
        keys.insert("rope_local_base_freq".into(), 100.0.into());
        keys.insert("rope_scaling".into(), json!({ "rope_type": "linear", "factor": 8.0 }));
    };
    assert_eq!(logits(changed("gemma3_text", two)), expected);
}

#[test]
fn layers_whose_types_a_file_does_not_list_go_by_their_number() {
    for name in ["qwen2", "smollm3", "gemma2", "gemma3_text"] {
        let unlisted = |keys: &mut Map<String, Value>| {
            keys.remove("layer_types").unwrap();
            keys.remove("no_rope_layers");
            keys.insert("sliding_window_pattern".into(), 2.into());
        };
        let expected = logits(changed(name, |_| {}));
        assert_eq!(logits(changed(name, unlisted)), expected, "{name}");
        let elsewhere = |keys: &mut Map<String, Value>| {
            keys["layer_types"].as_array_mut().unwrap().reverse();
            if name == "gemma3_text" {
                keys["layer_types"] = json!(["full_attention", "full_attention", "full_attention"]);
            }
        };
        let other = logits(changed(name, elsewhere));
        assert!(relative(&other, &expected) > 1e-3, "{name}");
    }
}

#[test]
fn a_window_as_wide_as_the_text_is_none() {
    let wide = |window: Value| {
        logits(changed("mistral", |keys| {
            keys.insert("sliding_window".into(), window);
        }))
    };
    let whole = wide(Value::Null);
    assert_eq!(wide(json!(40)), whole);
    assert!(relative(&wide(json!(39)), &whole) > 1e-6);
    // Without the key it is as wide as the released model's.
    let unsaid = logits(changed("mistral", |keys| drop(keys.remove("sliding_window"))));
    assert_eq!(unsaid, whole);
}

#[test]
fn what_a_config_asks_for_and_is_not_built_is_refused_by_its_key() {
    let rope = |rope: Value| json!({ "rope_parameters": rope });
    for (name, keys, expected) in [
        (
            "llama",
            rope(json!({ "rope_type": "proportional" })),
            "the rotary scaling `proportional` is not built; `default`, `linear`, `dynamic`",
        ),
        ("llama", json!({ "partial_rotary_factor": 0.5 }), "`partial_rotary_factor` is 0.5"),
        (
            "qwen3",
            rope(json!({ "full_attention": {} })),
            "`rope_parameters` has `full_attention`: a rope for each type of layer is not built",
        ),
        ("mistral", json!({ "layer_types": ["full_attention"] }), "`layer_types` is ["),
        ("mistral", json!({ "sliding_window": 0 }), "`sliding_window` must be a positive"),
        (
            "gemma2",
            json!({ "layer_types": ["full_attention", "chunked_attention"] }),
            "`layer_types` has `chunked_attention`, which is not built",
        ),
        (
            "gemma2",
            json!({ "layer_types": ["full_attention"] }),
            "`layer_types` is of 1 layers, but `num_hidden_layers` is 2",
        ),
        (
            "gemma3_text",
            json!({ "use_bidirectional_attention": true }),
            "`use_bidirectional_attention` is true, which is not built",
        ),
        (
            "gemma3_text",
            json!({ "attn_logit_softcapping": 50.0 }),
            "`attn_logit_softcapping` is 50, which is not built",
        ),
        ("gemma2", json!({ "query_pre_attn_scalar": 0 }), "`query_pre_attn_scalar` is 0"),
        ("gemma2", json!({ "final_logit_softcapping": -1 }), "`final_logit_softcapping` is -1"),
        ("smollm3", json!({ "no_rope_layers": [1] }), "`no_rope_layers` is of 1 layers"),
        (
            "gpt_neox",
            rope(json!({ "partial_rotary_factor": 0.4 })),
            "`rotary_pct` is 0.4: of a head's 8 elements 3 would turn",
        ),
        (
            "phi3",
            rope(json!({ "rope_type": "longrope", "short_factor": [1, 1], "long_factor": [1, 2] })),
            "`short_factor` of the rotary scaling must be 4 positive numbers",
        ),
        (
            "llama_yarn",
            rope(json!({ "rope_type": "yarn", "factor": -2 })),
            "the rotary scaling has no positive `factor`",
        ),
        (
            "t5",
            json!({ "feed_forward_proj": "gated-quick" }),
            "`feed_forward_proj` is \"gated-quick\": unknown variant `quick`",
        ),
        (
            "t5",
            json!({ "relative_attention_max_distance": 16 }),
            "`relative_attention_max_distance` 16: the first must be a multiple of 4, the second",
        ),
        ("t5", json!({ "decoder_start_token_id": null }), "`decoder_start_token_id` is missing"),
        ("llama", json!({ "hidden_act": "quick_gelu" }), "`hidden_act` is \"quick_gelu\""),
        ("llama", json!({ "num_key_value_heads": 3 }), "no multiple of num_key_value_heads"),
    ] {
        let (_, model) = changed(name, |all| all.extend(keys.as_object().unwrap().clone()));
        let words = model.map(drop).unwrap_err().to_string();
        assert!(words.contains("config.json: "), "{words}");
        assert!(words.contains(expected), "missing: {expected}\n{words}");
    }
}

#[test]
fn a_fresh_gemma_scales_by_one() {
    for name in ["gemma2", "gemma3_text", "llama"] {
        let tiny = Tiny::of(&format!("writers/{name}"));
        let config = tiny.path().join("config.json");
        let model = build(tiny.kind, &config, Head::Language, &cpu()).unwrap();
        weights::initialise_all(model.as_ref(), 1).unwrap();
        let expected = if name == "llama" { 1.0 } else { 0.0 };
        let variables = model.var_store().variables();
        let mut norms = variables.iter().filter(|(name, _)| name.ends_with("norm.weight"));
        assert!(norms.all(|(_, t)| *t == t.full_like(expected)), "{name}");
        let words = &variables["model.embed_tokens.weight"];
        assert!(words.std(true).double_value(&[]) > 0.01, "{name}");
    }
}

#[test]
fn the_usual_targets_of_every_model_are_layers_of_it() {
    for tiny in Tiny::writers() {
        let usual = kind_of(&tiny.path().join("config.json")).unwrap();
        let names = usual.targets.iter().map(|name| name.to_string()).collect();
        let targets = Targets { target_modules: Pattern::Names(names), ..Default::default() };
        let model = tiny.load(&cpu());
        let chosen = targets.choose(model.var_store(), model.linears()).unwrap();
        assert!(chosen.len() >= 2, "{}", tiny.folder);
    }
}

/// An adapter's product goes into all that a joined layer makes, as PEFT has it.
#[test]
fn layers_that_are_joined_take_one_adapter() {
    for (name, expected) in [
        ("phi3", [("self_attn.qkv_proj", 64), ("mlp.gate_up_proj", 48)]),
        ("gpt_neox", [("attention.query_key_value", 48), ("attention.dense", 16)]),
    ] {
        let model = Tiny::of(&format!("writers/{name}")).load(&cpu());
        for (module, outputs) in expected {
            let layers = model.linears().iter();
            let found: Vec<i64> = layers
                .filter(|layer| layer.site.name.ends_with(module))
                .map(|layer| layer.site.out_features)
                .collect();
            assert_eq!(found, [outputs, outputs], "{name}: {module}");
        }
    }
}

#[test]
fn a_t5_s_own_head_and_what_its_first_files_hold_beside_are_read_without_a_word() {
    let tiny = Tiny::of("writers/t5_gated");
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("config.json");
    std::fs::copy(tiny.path().join("config.json"), &config).unwrap();
    let mut tensors = common::tensors("writers/t5_gated/model.safetensors");
    let bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    let like = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    tensors.insert(bias.into(), tensors[like].copy());
    for side in ["encoder", "decoder"] {
        let shared = tensors["shared.weight"].copy();
        tensors.insert(format!("{side}.embed_tokens.weight"), shared);
    }
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    Tensor::write_safetensors(&tensors, place.path().join("model.safetensors")).unwrap();
    let model = build("t5", &config, Head::Language, &cpu()).unwrap();
    let report = weights::load(model.as_ref(), place.path()).unwrap();
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!(report.unused, [bias]);
    let own = &model.var_store().variables()["lm_head.weight"];
    assert!(relative(own, &model.var_store().variables()["shared.weight"]) > 0.1);
    let logits = model.forward(&batch(&tiny.io, "right"), false).unwrap().logits;
    let real = tiny.io["right.labels"].ne(-100).unsqueeze(2);
    assert!(relative(&(logits * &real), &(&tiny.io["right.logits"] * &real)) < 1e-5);
}
