//! The config.json of DeBERTa: every switch that released checkpoints set.

use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::Result;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A DeBERTa; the defaults are those of transformers for keys that a v2's or v3's file leaves out.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct DebertaConfig {
    /// Whether queries, keys and values are of one layer: v1.
    #[serde(skip)]
    pub joined: bool,
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub attention_head_size: Option<i64>,
    pub intermediate_size: i64,
    pub embedding_size: Option<i64>,
    pub hidden_act: Activation,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub layer_norm_eps: f64,
    /// Disentangled attention; without it, a BERT with DeBERTa's names.
    pub relative_attention: bool,
    /// The farthest distance told apart; below 1: `max_position_embeddings`.
    pub max_relative_positions: i64,
    /// Near distances one by one and far ones in buckets of growing width; below 1: all one by
    /// one.
    pub position_buckets: i64,
    /// Adds absolute position embeddings to the input.
    pub position_biased_input: bool,
    /// `c2p` (content to position) and `p2c` (position to content).
    #[serde(deserialize_with = "attention_kinds")]
    pub pos_att_type: Vec<String>,
    /// Positions go through the projections of queries and keys instead of their own.
    pub share_att_key: bool,
    /// `layer_norm` or `none`, for the table of relative positions.
    pub norm_rel_ebd: String,
    /// Width of the convolution beside the first layer; below 1: none.
    pub conv_kernel_size: i64,
    pub conv_groups: i64,
    pub conv_act: Activation,
    pub pooler_hidden_size: Option<i64>,
    pub pooler_hidden_act: Activation,
    pub pooler_dropout: f64,
    pub cls_dropout: Option<f64>,
}

impl Default for DebertaConfig {
    fn default() -> Self {
        DebertaConfig {
            joined: false,
            vocab_size: 128_100,
            hidden_size: 1536,
            num_hidden_layers: 24,
            num_attention_heads: 24,
            attention_head_size: None,
            intermediate_size: 6144,
            embedding_size: None,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 0,
            layer_norm_eps: 1e-7,
            relative_attention: false,
            max_relative_positions: -1,
            position_buckets: -1,
            position_biased_input: true,
            pos_att_type: Vec::new(),
            share_att_key: false,
            norm_rel_ebd: "none".into(),
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: Activation::Tanh,
            pooler_hidden_size: None,
            pooler_hidden_act: Activation::Gelu,
            pooler_dropout: 0.0,
            cls_dropout: None,
        }
    }
}

/// What transformers takes for keys that a v1's file leaves out, where v2 has another.
const V1: [(&str, i64); 5] = [
    ("vocab_size", 50_265),
    ("hidden_size", 768),
    ("num_hidden_layers", 12),
    ("num_attention_heads", 12),
    ("intermediate_size", 3072),
];

/// Keys that only later versions have, and v1 without attention between heads.
const NOT_V1: [&str; 5] =
    ["talking_head", "share_att_key", "position_buckets", "conv_kernel_size", "norm_rel_ebd"];

impl DebertaConfig {
    /// Reads and checks the config.json of a v1.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_v1(file: ConfigFile) -> Result<Self> {
        for key in NOT_V1 {
            let off = match file.keys().get(key) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Number(size)) => size.as_f64().is_some_and(|size| size < 1.0),
                Some(value) => value == "none",
            };
            if !off {
                let value = &file.keys()[key];
                return Err(file.problem(format!(
                    "`{key}` is {value}, which is not built for DeBERTa's first version"
                )));
            }
        }
        let config = Self::read(&file.with_defaults(&V1))?;
        Ok(DebertaConfig { joined: true, ..config })
    }

    /// Reads and checks a config.json.
    ///
    /// # Errors
    /// The file is missing or damaged, or says something that is not built.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let config: DebertaConfig = file.parse()?;
        config.check().map_err(|problem| file.problem(problem))?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_size", self.head_size()),
            ("intermediate_size", self.intermediate_size),
            ("embedding_size", self.embedding_size()),
            ("max_position_embeddings", self.max_position_embeddings),
            ("pooler_hidden_size", self.pooler_hidden_size()),
            ("conv_groups", self.conv_groups),
        ] {
            if value < 1 {
                return Err(format!("`{key}` is {value}; it must be a positive whole number"));
            }
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            return Err(format!(
                "hidden_size {} is no multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if self.head_size() * self.num_attention_heads != self.hidden_size {
            return Err(format!(
                "attention_head_size {} × num_attention_heads {} is not hidden_size {}; other \
                 widths are not built",
                self.head_size(),
                self.num_attention_heads,
                self.hidden_size
            ));
        }
        if self.pooler_hidden_size() != self.hidden_size {
            return Err(format!(
                "pooler_hidden_size {} differs from hidden_size {}; that is not built",
                self.pooler_hidden_size(),
                self.hidden_size
            ));
        }
        if let Some(kind) = self.pos_att_type.iter().find(|k| *k != "c2p" && *k != "p2c") {
            return Err(format!("pos_att_type has `{kind}`; `c2p` and `p2c` are built"));
        }
        if !matches!(self.norm_rel_ebd.trim().to_lowercase().as_str(), "layer_norm" | "none") {
            return Err(format!(
                "norm_rel_ebd is `{}`; `layer_norm` and `none` are built",
                self.norm_rel_ebd
            ));
        }
        if self.conv_kernel_size > 0 && self.conv_kernel_size % 2 == 0 {
            return Err(format!(
                "conv_kernel_size is {}, but an even width would change the length of the text",
                self.conv_kernel_size
            ));
        }
        for (key, value) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("pooler_dropout", self.pooler_dropout),
            ("cls_dropout", self.cls_dropout()),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("`{key}` is {value}; it must be at least 0 and below 1"));
            }
        }
        Ok(())
    }

    pub fn head_size(&self) -> i64 {
        self.attention_head_size.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    pub fn embedding_size(&self) -> i64 {
        self.embedding_size.unwrap_or(self.hidden_size)
    }

    pub fn pooler_hidden_size(&self) -> i64 {
        self.pooler_hidden_size.unwrap_or(self.hidden_size)
    }

    pub fn cls_dropout(&self) -> f64 {
        self.cls_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    pub fn has(&self, attention: &str) -> bool {
        self.pos_att_type.iter().any(|kind| kind == attention)
    }

    pub fn norms_positions(&self) -> bool {
        self.norm_rel_ebd.trim().eq_ignore_ascii_case("layer_norm")
    }

    /// The farthest distance told apart.
    pub fn max_distance(&self) -> i64 {
        match self.max_relative_positions {
            set @ 1.. => set,
            _ => self.max_position_embeddings,
        }
    }

    /// Half the rows of the table of relative positions.
    pub fn span(&self) -> i64 {
        match self.position_buckets {
            buckets @ 1.. => buckets,
            _ => self.max_distance(),
        }
    }
}

/// `"p2c|c2p"`, or a list, or null.
fn attention_kinds<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Option::<Written>::deserialize(d)? {
        None => Vec::new(),
        Some(Written::List(list)) => list,
        Some(Written::Text(text)) => text
            .to_lowercase()
            .split('|')
            .map(|kind| kind.trim().to_string())
            .filter(|kind| !kind.is_empty())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(keys: &Value) -> Result<DebertaConfig> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config.json");
        std::fs::write(&path, keys.to_string()).unwrap();
        DebertaConfig::read_v1(ConfigFile::open(&path)?)
    }

    #[test]
    fn what_the_file_of_a_v1_leaves_out_is_as_in_transformers() {
        let config = read(&json!({ "num_hidden_layers": 24, "vocab_size": null })).unwrap();
        assert!(config.joined && !config.relative_attention && config.position_biased_input);
        let DebertaConfig { vocab_size, hidden_size, num_hidden_layers, .. } = config;
        assert_eq!((vocab_size, hidden_size, num_hidden_layers), (50_265, 768, 24));
        let DebertaConfig { num_attention_heads, intermediate_size, type_vocab_size, .. } = config;
        assert_eq!((num_attention_heads, intermediate_size, type_vocab_size), (12, 3072, 0));
    }

    #[test]
    fn what_is_not_built_for_v1_is_refused_by_its_key() {
        for keys in [
            json!({ "talking_head": true }),
            json!({ "share_att_key": true }),
            json!({ "position_buckets": 256 }),
            json!({ "conv_kernel_size": 3 }),
            json!({ "norm_rel_ebd": "layer_norm" }),
        ] {
            let error = read(&keys).unwrap_err().to_string();
            let key = keys.as_object().unwrap().keys().next().unwrap();
            assert!(error.contains(&format!("`{key}` is")), "{error}");
        }
        let off = json!({
            "talking_head": false, "share_att_key": false, "position_buckets": -1,
            "conv_kernel_size": 0, "norm_rel_ebd": "none",
        });
        read(&off).unwrap();
    }
}
