//! The config.json of LLaMA, 1 to 3.

use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::Result;
use serde_json::Value;
use std::f64::consts::PI;

/// A LLaMA.
#[derive(Debug, Clone)]
pub(super) struct LlamaConfig {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub layers: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_dim: i64,
    pub activation: Activation,
    pub max_positions: i64,
    pub rms_norm_eps: f64,
    pub tied: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub attention_dropout: f64,
    /// The frequencies of the rotary angles, half as many as a head has elements.
    pub frequencies: Vec<f64>,
}

impl LlamaConfig {
    pub(super) fn read(file: &ConfigFile) -> Result<Self> {
        let (hidden, heads) = (file.size("hidden_size")?, file.size("num_attention_heads")?);
        let key_value_heads = file.integer("num_key_value_heads", heads)?;
        if key_value_heads < 1 || heads % key_value_heads != 0 {
            return Err(file.problem(format!(
                "num_attention_heads {heads} is no multiple of num_key_value_heads \
                 {key_value_heads}"
            )));
        }
        let head_dim = file.integer("head_dim", hidden / heads)?;
        if head_dim < 2 || head_dim % 2 != 0 {
            return Err(file.problem(format!("a head has the size {head_dim}; it must be even")));
        }
        Ok(LlamaConfig {
            vocab_size: file.size("vocab_size")?,
            hidden_size: hidden,
            intermediate_size: file.size("intermediate_size")?,
            layers: file.size("num_hidden_layers")?,
            heads,
            key_value_heads,
            head_dim,
            activation: file.parse_or("hidden_act", Activation::Silu)?,
            max_positions: file.integer("max_position_embeddings", 2048)?,
            rms_norm_eps: file.number("rms_norm_eps", 1e-6)?,
            tied: file.flag("tie_word_embeddings", false)?,
            attention_bias: file.flag("attention_bias", false)?,
            mlp_bias: file.flag("mlp_bias", false)?,
            attention_dropout: file.number("attention_dropout", 0.0)?,
            frequencies: frequencies(file, head_dim)?,
        })
    }
}

/// The frequencies of the rotary angles, with the scaling that the file asks for.
///
/// Early files have `rope_theta` and `rope_scaling`, later ones both in `rope_parameters`. Where a
/// file has more than one of them, transformers goes by `rope_scaling` first, and by the
/// `rope_theta` in what it goes by.
fn frequencies(file: &ConfigFile, head_dim: i64) -> Result<Vec<f64>> {
    let object = |key: &str| file.object(key).filter(|object| !object.is_empty());
    let (old, new) = (object("rope_scaling"), object("rope_parameters"));
    let scaling = old.or(new);
    if let (Some(old), Some(new)) = (old, new) {
        if old != new {
            let [old, new] = [old, new].map(|keys| Value::from(keys.clone()));
            file.warn(&format!(
                "`rope_scaling` is {old}, but `rope_parameters`, its newer name, is {new}: \
                 `rope_scaling` counts, as in transformers"
            ));
        }
    }
    if let Some((inner, outer)) =
        scaling.and_then(|s| s.get("rope_theta")).zip(file.keys().get("rope_theta"))
    {
        if inner != outer && !inner.is_null() && !outer.is_null() {
            let name = if old.is_some() { "rope_scaling" } else { "rope_parameters" };
            file.warn(&format!(
                "`rope_theta` is {outer}, but {inner} within `{name}`: the latter counts, as in \
                 transformers"
            ));
        }
    }
    let of_scaling = |key: &str| scaling.and_then(|s| s.get(key)).filter(|v| !v.is_null());
    let theta = match of_scaling("rope_theta").map(Value::as_f64) {
        Some(theta) => theta.ok_or_else(|| file.problem("`rope_theta` is no number".into()))?,
        None => file.number("rope_theta", 10_000.0)?,
    };
    let base: Vec<f64> =
        (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
    let number = |key: &str| {
        of_scaling(key)
            .and_then(Value::as_f64)
            .filter(|x| *x > 0.0)
            .ok_or_else(|| file.problem(format!("the rotary scaling has no positive `{key}`")))
    };
    match of_scaling("rope_type").or_else(|| of_scaling("type")).and_then(Value::as_str) {
        None | Some("default") => Ok(base),
        Some("linear") => {
            let factor = number("factor")?;
            Ok(base.into_iter().map(|f| f / factor).collect())
        }
        Some("llama3") => {
            let factor = number("factor")?;
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            let original = number("original_max_position_embeddings")?;
            if high <= low {
                return Err(file.problem("`high_freq_factor` must exceed `low_freq_factor`".into()));
            }
            Ok(base.into_iter().map(|f| llama3(f, factor, low, high, original)).collect())
        }
        Some(other) => Err(file.problem(format!(
            "the rotary scaling `{other}` is not built; `default`, `linear` and `llama3` are"
        ))),
    }
}

/// Long waves are stretched by `factor`, short ones left, those between blended.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * PI / frequency;
    if wavelength > original / low {
        frequency / factor
    } else if wavelength < original / high {
        frequency
    } else {
        let share = (original / wavelength - low) / (high - low);
        (1.0 - share) * frequency / factor + share * frequency
    }
}
