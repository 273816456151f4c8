//! The scaled rotary angles of LLaMA 3.1 and later, of which a file holds the outcome alone: for
//! each frequency the number that it is divided by.

use super::family::{Family, PLAIN};
use super::from_config::kind;
use super::own_keys::{DIVISORS, LLAMA3};
use serde_json::{json, Map, Value};
use std::f64::consts::PI;
use tch::Tensor;

/// What every release with such numbers was made by.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// What files of LLaMA's have of their own.
pub(super) const FAMILY: Family = Family {
    read: |header, config| {
        let Some(numbers) = header.numbers(DIVISORS)? else { return Ok(()) };
        if let Some(other) = config.get("rope_scaling") {
            return Err(format!("`{DIVISORS}` scales the rotary angles, and so does {other}"));
        }
        let scaling = llama3(numbers, header.theta()?, header.head_dim()?)?;
        config.insert("rope_scaling".into(), scaling);
        Ok(())
    },
    made: |keys| {
        let (theta, scaling) = keys.rope();
        if kind(&scaling) != Some(LLAMA3) {
            return Ok(Vec::new());
        }
        let factors = factors(&scaling, theta, keys.head_dim()?.into())?;
        Ok(vec![(DIVISORS, Tensor::from_slice(&factors))])
    },
    ..PLAIN
};

/// What the frequency of the `i`-th pair of a head's elements is divided by, where the longest waves
/// are by `factor`.
fn divisor(i: usize, theta: f64, head_dim: i64, factor: f64) -> f64 {
    let wavelength = 2.0 * PI * theta.powf(2.0 * i as f64 / head_dim as f64);
    if wavelength < ORIGINAL / HIGH {
        1.0
    } else if wavelength > ORIGINAL / LOW {
        factor
    } else {
        let share = (ORIGINAL / wavelength - LOW) / (HIGH - LOW);
        1.0 / ((1.0 - share) / factor + share)
    }
}

/// The `rope_scaling` of a config.json that gives these numbers.
///
/// # Errors
/// They are of another kind.
fn llama3(numbers: Vec<f32>, theta: f64, head_dim: i64) -> Result<Value, String> {
    // The longest waves are divided by the whole factor.
    let factor = numbers.iter().fold(1f64, |most, &x| most.max(x.into()));
    let wanted = |i: usize| divisor(i, theta, head_dim, factor);
    let near = |(i, &x): (usize, &f32)| (f64::from(x) / wanted(i) - 1.0).abs() < 1e-3;
    if numbers.len() as i64 != head_dim / 2 || !numbers.iter().enumerate().all(near) {
        return Err(format!(
            "`{DIVISORS}` scales the rotary angles in a way that is not LLaMA 3's (factors {LOW} and \
             {HIGH}, {ORIGINAL} positions), and is not built"
        ));
    }
    Ok(json!({
        "rope_type": LLAMA3,
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL as i64,
    }))
}

/// The numbers of a model with these keys of the rotary scaling.
///
/// # Errors
/// It is scaled by other numbers than every release.
fn factors(keys: &Map<String, Value>, theta: f64, head_dim: i64) -> Result<Vec<f32>, String> {
    let number = |key: &str| keys.get(key).and_then(Value::as_f64);
    let usual = [
        ("low_freq_factor", LOW),
        ("high_freq_factor", HIGH),
        ("original_max_position_embeddings", ORIGINAL),
    ];
    if let Some((key, usual)) = usual.iter().find(|(key, usual)| number(key) != Some(*usual)) {
        return Err(format!(
            "`{key}` of the rotary scaling is not {usual}: that is not written to GGUF files"
        ));
    }
    let factor = number("factor").ok_or("the rotary scaling has no `factor`")?;
    Ok((0..head_dim as usize / 2).map(|i| divisor(i, theta, head_dim, factor) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_scaling_lead_back_to_it() {
        let scaling = json!({
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        let keys = scaling.as_object().unwrap();
        let numbers = factors(keys, 500_000.0, 64).unwrap();
        assert_eq!((numbers.len(), numbers[0], numbers[31]), (32, 1.0, 32.0));
        assert_eq!(llama3(numbers, 500_000.0, 64).unwrap(), scaling);
        let mut other = keys.clone();
        other["high_freq_factor"] = json!(8.0);
        assert!(factors(&other, 500_000.0, 64).unwrap_err().contains("`high_freq_factor`"));
    }
}
