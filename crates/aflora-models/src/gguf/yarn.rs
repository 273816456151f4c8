//! YaRN's scaling of the rotary angles, which a file tells by its factor and by the length of the
//! texts of pretraining; all else is what llama.cpp computes with.

use super::own_keys::POSITIONS;
use super::writer::Written;
use serde_json::{Map, Value};

/// Its name in a config.json, and in files.
pub(super) const YARN: &str = "yarn";

/// The keys of a header, behind the architecture's name, for `scaling` in a model of texts of
/// `longest` tokens, of which pretraining had `outer` where config.json says so beside it.
///
/// # Errors
/// It asks for other numbers than llama.cpp's.
pub(super) fn keys(
    scaling: &Map<String, Value>,
    outer: Option<u32>,
    longest: u32,
) -> Result<Vec<(&'static str, Written)>, String> {
    let given = |key: &str| scaling.get(key).filter(|value| !value.is_null());
    // What the key must be where it is there; without a number it must not.
    for (key, usual) in [
        ("beta_fast", Some(32.0)),
        ("beta_slow", Some(1.0)),
        ("attention_factor", None),
        ("mscale", None),
        ("mscale_all_dim", None),
    ] {
        if let Some(value) = given(key).filter(|value| usual.is_none() || value.as_f64() != usual) {
            return Err(format!(
                "`{key}` of the rotary scaling `{YARN}` is {value}: that is not written to GGUF files"
            ));
        }
    }
    if given("truncate").is_some_and(|value| *value != true) {
        return Err(format!(
            "`truncate` of the rotary scaling `{YARN}` is false: that is not written to GGUF files"
        ));
    }
    let inner = given("original_max_position_embeddings").and_then(Value::as_f64);
    let original = outer.or(inner.map(|original| original as u32)).unwrap_or(longest);
    let factor = given("factor").and_then(Value::as_f64);
    let factor = factor.unwrap_or(f64::from(longest) / f64::from(original));
    Ok(vec![
        ("rope.scaling.type", Written::Text(YARN.into())),
        ("rope.scaling.factor", Written::F32(factor as f32)),
        (POSITIONS, Written::U32(original)),
    ])
}
