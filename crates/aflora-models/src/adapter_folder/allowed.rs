//! What an `adapter_config.json` may say: a list of the keys that may be switched on, and with
//! which values.
//!
//! PEFT gains switches with every version, and most change what an adapter computes, or even the
//! weights that it is attached to. So whatever is not listed here must be off: a known switch that
//! is not built, one of a later version, or a slip of the pen.

use serde_json::{Map, Value};

/// What a key may hold beside what is off.
enum Allowed {
    /// Anything: it is read elsewhere here, or says nothing about a trained adapter.
    Anything,
    /// One of these values, as JSON.
    Values(&'static [&'static str]),
    /// One of these values, as JSON, and why no other.
    Unless(&'static [&'static str], &'static str),
}

use Allowed::{Anything, Unless, Values};

/// A switch that is built, or that says nothing about a trained adapter.
const EITHER_WAY: Allowed = Values(&["true"]);

type Keys = &'static [(&'static str, Allowed)];

/// Of every method, PEFT's and ours.
const COMMON: Keys = &[
    ("peft_type", Anything),
    ("task_type", Values(&[r#""SEQ_CLS""#, r#""CAUSAL_LM""#, r#""SEQ_2_SEQ_LM""#])),
    // Where it comes from.
    ("peft_version", Anything),
    ("base_model_name_or_path", Anything),
    ("revision", Anything),
    ("auto_mapping", Anything),
    ("inference_mode", EITHER_WAY),
    // Which layers: those that have tensors in the file count.
    ("target_modules", Anything),
    ("exclude_modules", Anything),
    ("layers_to_transform", Anything),
    ("layers_pattern", Anything),
    ("modules_to_save", Anything),
    // How the weights lie is the layers' own affair, as PEFT has it too.
    ("fan_in_fan_out", EITHER_WAY),
    ("bias", Values(&[r#""none""#])),
];

const LORA: Keys = &[
    ("r", Anything),
    ("lora_alpha", Anything),
    ("lora_dropout", Anything),
    ("use_rslora", EITHER_WAY),
    ("rank_pattern", Values(&["{}"])),
    ("alpha_pattern", Values(&["{}"])),
    // Those that leave the base model's weights alone: the file's own values replace the start.
    (
        "init_lora_weights",
        Unless(
            &["true", r#""gaussian""#, r#""eva""#, r#""orthogonal""#, r#""mica""#],
            "which changes the base model's weights when the adapter is attached; PEFT's \
             `save_pretrained(…, path_initial_model_for_weight_conversion=…)` makes plain LoRA of it",
        ),
    ),
    // Settings of a start: they count where `init_lora_weights` asks for it.
    ("loftq_config", Anything),
    ("eva_config", Anything),
    ("corda_config", Anything),
    ("lora_ga_config", Anything),
    // Settings of switches that must be off: `megatron_config`, `use_qalora`.
    ("megatron_core", Anything),
    ("qalora_group_size", Anything),
];

const ADALORA: Keys = &[
    ("init_r", Anything),
    ("target_r", Anything),
    ("tinit", Anything),
    ("tfinal", Anything),
    ("deltaT", Anything),
    ("beta1", Anything),
    ("beta2", Anything),
    ("orth_reg_weight", Anything),
    ("total_step", Anything),
    // The tensors' own shapes say the same.
    ("rank_pattern", Anything),
];

const VERA: Keys = &[
    ("r", Anything),
    ("vera_dropout", Anything),
    ("d_initial", Anything),
    ("projection_prng_key", Anything),
    ("save_projection", EITHER_WAY),
    ("init_weights", EITHER_WAY),
];

/// Of the methods that PEFT does not know.
const OURS: Keys = &[("aflora", Anything)];

/// Refuses the first key that is switched on and may not be.
///
/// # Errors
/// The key with its value, and what it may be.
pub(super) fn check(kind: &str, keys: &Map<String, Value>) -> Result<(), String> {
    let own: &[Keys] = match kind {
        "LORA" => &[LORA],
        "ADALORA" => &[ADALORA, LORA],
        "VERA" => &[VERA],
        _ => &[OURS],
    };
    let listed = |key: &str| {
        let mut lists = std::iter::once(&COMMON).chain(own);
        lists.find_map(|list| list.iter().find(|(name, _)| *name == key)).map(|(_, may)| may)
    };
    for (key, value) in keys.iter().filter(|(_, value)| !is_off(value)) {
        let (values, why) = match listed(key) {
            Some(Anything) => continue,
            Some(Values(values)) => (*values, "which is not built"),
            Some(Unless(values, why)) => (*values, *why),
            None => (&[][..], "which is not built"),
        };
        let text = value.to_string();
        if !values.contains(&text.as_str()) {
            let fine = [values, &["off"][..]].concat().join(" or ");
            return Err(format!("`{key}` is {}, {why}; it must be {fine}", cut(text)));
        }
    }
    Ok(())
}

/// Whether PEFT takes a value for none. An empty object is one: it stands for a switch with all its
/// defaults.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) | Value::Number(_) | Value::Bool(true) => false,
    }
}

/// The text, cut where it is long.
fn cut(text: String) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
