//! What an `adapter_config.json` may say: the keys of every method, and those that the method
//! itself lists ([`Peft`]). All else must be off: a known switch that is not built, one of a later
//! version of PEFT, or a slip of the pen.

use aflora_core::adapter::peft::{Allowed, AllowedKeys, Peft, PeftType};
use serde_json::{Map, Value};

/// Of every method, PEFT's and ours.
const COMMON: AllowedKeys = &[
    ("peft_type", Allowed::Anything),
    (
        "task_type",
        Allowed::Values(&[r#""SEQ_CLS""#, r#""TOKEN_CLS""#, r#""CAUSAL_LM""#, r#""SEQ_2_SEQ_LM""#]),
    ),
    // These say where an adapter comes from, not what it computes.
    ("peft_version", Allowed::Anything),
    ("base_model_name_or_path", Allowed::Anything),
    ("revision", Allowed::Anything),
    ("auto_mapping", Allowed::Anything),
    ("inference_mode", Allowed::EITHER_WAY),
    // Which layers: those that have tensors in the file count.
    ("target_modules", Allowed::Anything),
    ("exclude_modules", Allowed::Anything),
    ("layers_to_transform", Allowed::Anything),
    ("layers_pattern", Allowed::Anything),
    ("modules_to_save", Allowed::Anything),
    // How the weights lie is the layers' own affair, as PEFT has it too.
    ("fan_in_fan_out", Allowed::EITHER_WAY),
    // The biases that are in the file count.
    ("bias", Allowed::Values(&[r#""none""#, r#""all""#, r#""lora_only""#, r#""vera_only""#])),
];

/// Of the methods that PEFT does not know.
const OURS: AllowedKeys = &[("aflora", Allowed::Anything)];

/// Refuses the first key that is switched on and may not be, in the configuration of a method
/// of PEFT's, or of one that only we have.
///
/// # Errors
/// The key with its value, and what it may be.
pub(super) fn check(peft: Option<&Peft>, keys: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in keys.iter().filter(|(_, value)| !is_off(value)) {
        let (values, why) = match listed(peft, key) {
            Some(Allowed::Anything) => continue,
            Some(Allowed::Values(values)) => (values, "which is not built"),
            Some(Allowed::Unless(values, why)) => (values, why),
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

/// What a key may hold, if it is listed.
fn listed(peft: Option<&Peft>, key: &str) -> Option<Allowed> {
    let further = peft.map_or(&[OURS][..], |peft| peft.allowed);
    let mut lists = std::iter::once(&COMMON).chain(further);
    let found = lists.find_map(|list| list.iter().find(|(name, _)| *name == key));
    found.map(|(_, allowed)| *allowed).or_else(|| {
        let peft = peft?;
        let setting = peft.settings.iter().find(|setting| setting.theirs == key);
        // A switch is one of both; a number is read, and refused if it is none.
        let kind = setting.map(|setting| match setting.kind {
            PeftType::Switch => Allowed::EITHER_WAY,
            _ => Allowed::Anything,
        });
        kind.or(peft.switches.contains(&key).then_some(Allowed::EITHER_WAY))
    })
}

/// Whether PEFT takes a value for none. An empty object does not count as none: it stands for a
/// switch with all its defaults.
pub(super) fn is_off(value: &Value) -> bool {
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
