//! The scaled rotary angles of LLaMA 3.1 and later, of which a file holds the outcome alone: for
//! each frequency the number that it is divided by.

use super::header::short;
use serde_json::{json, Value};
use std::f64::consts::PI;

/// The tensor of these numbers.
pub(super) const FACTORS: &str = "rope_freqs.weight";

/// Keys of an architecture that tell of scaled angles, beside those of every architecture.
pub(super) const KEYS: [&str; 1] = ["rope.scaling.original_context_length"];

/// What every release with such numbers was made by.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// The `rope_scaling` of a config.json that gives these numbers.
///
/// # Errors
/// They are of another kind.
pub(super) fn llama3(
    numbers: Option<Vec<f32>>,
    theta: f64,
    head_dim: i64,
) -> Result<Value, String> {
    let numbers =
        numbers.ok_or_else(|| format!("`{}` is of another format than F32", short(FACTORS)))?;
    // The longest waves are divided by the whole factor.
    let factor = numbers.iter().fold(1f64, |most, &x| most.max(x.into()));
    let wanted = |i: usize| {
        let wavelength = 2.0 * PI * theta.powf(2.0 * i as f64 / head_dim as f64);
        if wavelength < ORIGINAL / HIGH {
            1.0
        } else if wavelength > ORIGINAL / LOW {
            factor
        } else {
            let share = (ORIGINAL / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - share) / factor + share)
        }
    };
    let near = |(i, &x): (usize, &f32)| (f64::from(x) / wanted(i) - 1.0).abs() < 1e-3;
    if numbers.len() as i64 != head_dim / 2 || !numbers.iter().enumerate().all(near) {
        return Err(format!(
            "`{FACTORS}` scales the rotary angles in a way that is not LLaMA 3's (factors {LOW} and \
             {HIGH}, {ORIGINAL} positions), and is not built"
        ));
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL as i64,
    }))
}
