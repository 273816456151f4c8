//! The config.json of ModernBERT.

use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::Result;
use serde::Deserialize;
use serde_json::Value;

/// Which tokens a block's tokens attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Reach {
    /// To all.
    #[serde(rename = "full_attention")]
    All,
    /// To those that are near.
    #[serde(rename = "sliding_attention")]
    Near,
}

/// A ModernBERT.
#[derive(Debug)]
pub(super) struct ModernBertConfig {
    pub vocab_size: i64,
    pub hidden: i64,
    pub heads: i64,
    pub wide: i64,
    /// One for each block.
    pub reaches: Vec<Reach>,
    /// How far away the farthest near token is.
    pub near: i64,
    /// The base of the angles of positions: of blocks that attend to all, and of the others.
    pub thetas: [f64; 2],
    pub max_positions: i64,
    pub activation: Activation,
    /// What LayerNorms add to the variance.
    pub eps: f64,
    pub norm_bias: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub embedding_dropout: f64,
    pub attention_dropout: f64,
    pub mlp_dropout: f64,
}

impl ModernBertConfig {
    /// The defaults are those of transformers for keys that a file leaves out.
    ///
    /// # Errors
    /// A size is missing or does not fit another, or the file says something that is not built.
    pub(super) fn read(file: &ConfigFile) -> Result<Self> {
        let (hidden, heads) = file.divided("hidden_size", "num_attention_heads")?;
        if hidden / heads % 2 != 0 {
            return Err(file.problem(format!(
                "hidden_size {hidden} over num_attention_heads {heads} is odd; only pairs turn"
            )));
        }
        Ok(ModernBertConfig {
            vocab_size: file.size("vocab_size")?,
            hidden,
            heads,
            wide: file.size("intermediate_size")?,
            reaches: reaches(file)?,
            near: match file.integer("local_attention", 128)? {
                width @ 0.. => width / 2,
                _ => return Err(file.problem("`local_attention` is below 0".into())),
            },
            thetas: [
                theta(file, "full_attention", "global_rope_theta", 160_000.0)?,
                theta(file, "sliding_attention", "local_rope_theta", 10_000.0)?,
            ],
            max_positions: file.integer("max_position_embeddings", 8192)?,
            activation: file.parse_or("hidden_activation", Activation::Gelu)?,
            eps: file.number("norm_eps", 1e-5)?,
            norm_bias: file.flag("norm_bias", false)?,
            attention_bias: file.flag("attention_bias", false)?,
            mlp_bias: file.flag("mlp_bias", false)?,
            embedding_dropout: file.dropout("embedding_dropout", 0.0)?,
            attention_dropout: file.dropout("attention_dropout", 0.0)?,
            mlp_dropout: file.dropout("mlp_dropout", 0.0)?,
        })
    }
}

fn reaches(file: &ConfigFile) -> Result<Vec<Reach>> {
    let layers = file.size("num_hidden_layers")?;
    if let Some(reaches) = file.parse_or("layer_types", None::<Vec<Reach>>)? {
        return match reaches.len() as i64 == layers {
            true => Ok(reaches),
            false => Err(file.problem(format!(
                "`layer_types` has {} entries, but num_hidden_layers is {layers}",
                reaches.len()
            ))),
        };
    }
    let every = file.integer("global_attn_every_n_layers", 3)?;
    if every < 1 {
        return Err(file.problem(format!("`global_attn_every_n_layers` is {every}, below 1")));
    }
    Ok((0..layers).map(|i| if i % every == 0 { Reach::All } else { Reach::Near }).collect())
}

/// The base of the angles for blocks of the type `blocks`: in `rope_parameters`, or, in older
/// files, under `key`.
fn theta(file: &ConfigFile, blocks: &str, key: &str, default: f64) -> Result<f64> {
    let of = |key: &str| file.keys().get(key).filter(|value| !value.is_null());
    if of("rope_scaling").is_some() {
        return Err(file.problem("`rope_scaling` is not built".into()));
    }
    let problem = |problem: String| Err(file.problem(problem));
    let parameters = of("rope_parameters").and_then(|all| all.get(blocks));
    let theta = match parameters {
        Some(parameters) => {
            match parameters.get("rope_type").and_then(Value::as_str) {
                None | Some("default") => {}
                Some(other) => {
                    return problem(format!(
                        "`rope_parameters` has the rope_type `{other}`; only `default` is built"
                    ));
                }
            }
            let theta = parameters.get("rope_theta").filter(|theta| !theta.is_null());
            theta.map_or(Some(default), Value::as_f64)
        }
        None if file.keys().get(key).is_some_and(Value::is_null) => {
            return problem(format!("`{key}` is null, which is not built"));
        }
        None => Some(file.number(key, default)?),
    };
    match theta.filter(|theta| *theta > 0.0) {
        Some(theta) => Ok(theta),
        None => problem(format!("the rope_theta of `{blocks}` is no number above 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The config of a small model with other keys: null leaves one out.
    fn read(changes: Value) -> Result<ModernBertConfig> {
        let mut keys = json!({
            "model_type": "modernbert", "vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2,
            "intermediate_size": 6, "num_hidden_layers": 4,
        });
        for (key, value) in changes.as_object().unwrap() {
            keys[key] = value.clone();
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config.json");
        std::fs::write(&path, keys.to_string()).unwrap();
        ModernBertConfig::read(&ConfigFile::open(&path)?)
    }

    #[test]
    fn the_keys_of_the_released_files_and_those_of_later_ones_say_the_same() {
        use Reach::{All, Near};
        let released = read(json!({
            "global_attn_every_n_layers": 3, "global_rope_theta": 7.0, "local_rope_theta": 5.0,
            "local_attention": 128, "position_embedding_type": "absolute",
            "deterministic_flash_attn": false, "reference_compile": null, "rope_scaling": null,
        }))
        .unwrap();
        assert_eq!(released.reaches, [All, Near, Near, All]);
        assert_eq!((released.near, released.thetas), (64, [7.0, 5.0]));
        let later = read(json!({
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 7.0},
                "sliding_attention": {"rope_theta": 5.0},
            },
        }))
        .unwrap();
        assert_eq!((later.reaches, later.thetas), (released.reaches, released.thetas));
        // What a file leaves out is what transformers takes.
        let bare = read(json!({})).unwrap();
        assert_eq!((bare.near, bare.thetas), (64, [160_000.0, 10_000.0]));
    }

    #[test]
    fn what_is_not_built_is_refused_by_its_key() {
        for (keys, expected) in [
            (json!({ "hidden_size": 6 }), "num_attention_heads 2 is odd"),
            (json!({ "hidden_size": 9 }), "hidden_size 9 is no multiple"),
            (json!({ "layer_types": ["full_attention"] }), "`layer_types` has 1 entries"),
            (json!({ "layer_types": ["chunked_attention"] }), "`layer_types` is"),
            (json!({ "global_attn_every_n_layers": 0 }), "`global_attn_every_n_layers` is 0"),
            (json!({ "local_attention": -2 }), "`local_attention` is below 0"),
            (json!({ "local_rope_theta": null }), "`local_rope_theta` is null"),
            (json!({ "global_rope_theta": 0 }), "the rope_theta of `full_attention`"),
            (json!({ "rope_scaling": { "rope_type": "yarn" } }), "`rope_scaling` is not built"),
            (
                json!({ "rope_parameters": { "sliding_attention": { "rope_type": "linear" } } }),
                "the rope_type `linear`",
            ),
            (json!({ "hidden_activation": "sin" }), "`hidden_activation` is"),
            (json!({ "attention_dropout": 1.0 }), "`attention_dropout` is 1"),
        ] {
            let error = read(keys.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{keys}: {error}");
        }
    }
}
