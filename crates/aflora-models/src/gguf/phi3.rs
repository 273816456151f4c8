//! What files of Phi-3 have of their own: the share of a head that turns, and LongRoPE's factors as
//! tensors.

use super::family::Family;
use super::from_config::ModelKeys;
use super::own_keys::{AMPLITUDE, LONG, POSITIONS, SHORT, WINDOW};
use super::value::{decimal, Value as Stored};
use super::writer::Written;
use crate::bodies::llama_like::phi3::ORIGINAL;
use crate::bodies::llama_like::rope::longrope_amplitude;
use serde_json::{json, Map, Value};
use tch::Tensor;

const TURNING: &str = "rope.dimension_count";
/// The factors of short and of long texts, in config.json and as tensors.
const FACTORS: [(&str, &str); 2] = [("short_factor", SHORT), ("long_factor", LONG)];

pub(super) const FAMILY: Family = Family {
    read: |header, config| {
        let mut say = |key: &str, value: Value| config.insert(key.into(), value);
        // llama.cpp reads over the window; the model's own config.json has it.
        if !matches!(header.get(WINDOW), None | Some(Stored::Integer(0))) {
            say("sliding_window", json!(header.size(WINDOW)?));
        }
        let head_dim = header.head_dim()?;
        let turning = header.size_or(TURNING, head_dim)?;
        if turning > head_dim {
            return Err(header.problem(TURNING, &format!("{head_dim} at the most")));
        }
        if turning != head_dim {
            say("partial_rotary_factor", json!(share(turning, head_dim)));
        }
        if header.get(POSITIONS).is_some() {
            say("original_max_position_embeddings", json!(header.size(POSITIONS)?));
        }
        let amplitude = header.number(AMPLITUDE)?;
        let mut scaling = Map::new();
        for (key, name) in FACTORS {
            if let Some(numbers) = header.numbers(name)? {
                let numbers: Vec<f64> = numbers.into_iter().map(decimal).collect();
                scaling.insert(key.into(), json!(numbers));
            }
        }
        match (scaling.is_empty(), amplitude) {
            (true, None) => return Ok(()),
            (true, Some(1.0)) => return Ok(()),
            (true, Some(_)) => {
                return Err(header.problem(AMPLITUDE, "1 without factors of short and long texts"))
            }
            (false, Some(amplitude)) => {
                drop(scaling.insert("attention_factor".into(), json!(amplitude)))
            }
            (false, None) => {}
        }
        scaling.insert("rope_type".into(), json!("longrope"));
        say("rope_scaling", Value::Object(scaling));
        Ok(())
    },
    write: |keys| {
        let original = original(keys)?;
        let window = keys.optional_size("sliding_window", None)?.unwrap_or(0);
        let mut own = vec![(POSITIONS, Written::U32(original)), (WINDOW, Written::U32(window))];
        let scaling = keys.rope().1;
        if FACTORS.iter().any(|(key, _)| scaling.contains_key(*key)) {
            let number = |key: &str| scaling.get(key).and_then(Value::as_f64);
            let stretch = f64::from(keys.max_positions()?) / f64::from(original);
            let factor = number("factor").unwrap_or(stretch);
            let amplitude = number("attention_factor");
            let amplitude =
                amplitude.unwrap_or_else(|| longrope_amplitude(factor, original.into()));
            own.push((AMPLITUDE, Written::F32(amplitude as f32)));
        }
        Ok(own)
    },
    made: |keys| {
        let scaling = keys.rope().1;
        let mut tensors = Vec::new();
        for (key, name) in FACTORS {
            let Some(list) = scaling.get(key).and_then(Value::as_array) else { continue };
            let numbers: Option<Vec<f32>> =
                list.iter().map(|x| x.as_f64().map(|x| x as f32)).collect();
            let numbers = numbers.ok_or_else(|| format!("`{key}` is no list of numbers"))?;
            tensors.push((name, Tensor::from_slice(&numbers)));
        }
        Ok(tensors)
    },
};

fn original(keys: &ModelKeys<'_>) -> Result<u32, String> {
    let usual = ORIGINAL as u32;
    let original = keys.optional_size("original_max_position_embeddings", Some(usual))?;
    Ok(original.unwrap_or(usual))
}

/// The share `part` / `whole`, of which `whole` times it, cut to a whole number, is `part`.
fn share(part: i64, whole: i64) -> f64 {
    let share = part as f64 / whole as f64;
    match (whole as f64 * share) as i64 == part {
        true => share,
        false => share.next_up(),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_of_a_head_is_the_part_that_it_was_made_of() {
        for whole in 1..=512 {
            for part in 1..=whole {
                assert_eq!((whole as f64 * share(part, whole)) as i64, part, "{part} of {whole}");
            }
        }
    }
}
