//! What a file's header says of the model: its config.json, and the place of each tensor.

use super::architecture::Architecture;
use super::arrangement::Arrangement;
use super::header::{short, Header};
use super::rope;
use super::value::Value;
use serde_json::{json, Map};

/// The header of a model whose kind is known.
#[derive(Debug)]
pub(crate) struct ModelHeader<'a> {
    header: &'a Header<'a>,
    architecture: &'static Architecture,
    /// Heads of queries, and of keys and values.
    heads: [i64; 2],
}

/// Keys of an architecture that say nothing which the tensors do not say, or nothing at all for a
/// model of text.
const TOLD_OTHERWISE: [&str; 3] = ["vocab_size", "attention.causal", "pooling_type"];

impl<'a> ModelHeader<'a> {
    /// Finds out what model a header is of.
    ///
    /// # Errors
    /// It is of none, or of a kind that is not read.
    pub(crate) fn of(header: &'a Header<'a>) -> Result<Self, String> {
        let text = |key: &str| match header.keys.get(key) {
            Some(Value::Text(text)) => Some(*text),
            _ => None,
        };
        if let Some(other) = text("general.type").filter(|kind| *kind != "model") {
            return Err(format!("it is of the type `{}`, no model", short(other)));
        }
        let name =
            text("general.architecture").ok_or("it does not say its `general.architecture`")?;
        let architecture = Architecture::of(name)?;
        let mut model = ModelHeader { header, architecture, heads: [1, 1] };
        let heads = model.size("attention.head_count")?;
        let keys = model.size_or("attention.head_count_kv", heads)?;
        model.heads = [heads, keys];
        Ok(model)
    }

    fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.header.keys.get(format!("{}.{key}", self.architecture.name).as_str())
    }

    fn problem(&self, key: &str, what: &str) -> String {
        let found = self.get(key).map_or("missing".into(), Value::what);
        format!("`{}.{key}` is {found}; it must be {what}", self.architecture.name)
    }

    fn size(&self, key: &str) -> Result<i64, String> {
        match self.get(key) {
            Some(Value::Integer(n @ 1..=0xffff_ffff)) => Ok(*n as i64),
            _ => Err(self.problem(key, "a positive whole number")),
        }
    }

    fn size_or(&self, key: &str, default: i64) -> Result<i64, String> {
        if self.get(key).is_some() {
            self.size(key)
        } else {
            Ok(default)
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) if x.is_finite() => Ok(Some(*x)),
            Some(Value::Integer(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(self.problem(key, "a number")),
        }
    }

    /// The name of a file's tensor in checkpoints, and how it stands to the model's own; none of
    /// one that is no weight.
    ///
    /// # Errors
    /// Models of this kind have no such tensor, or not of this shape.
    pub(crate) fn tensor(
        &self,
        stored: &str,
        shape: &[i64],
    ) -> Result<Option<(String, Arrangement)>, String> {
        if stored == rope::FACTORS {
            return Ok(None);
        }
        let own = self.architecture.own_name(stored).ok_or_else(|| {
            format!(
                "the tensor `{}` is none that models of the architecture `{}` are known to have",
                short(stored),
                self.architecture.name
            )
        })?;
        let arrangement = self.architecture.arrangement(&own, self.heads);
        if let Arrangement::Interleaved(heads) = arrangement {
            let rows = shape.first().copied().unwrap_or(0);
            if rows == 0 || rows % (2 * heads) != 0 {
                return Err(format!(
                    "`{stored}` has {rows} rows, no even number for each of {heads} heads"
                ));
            }
        }
        Ok(Some((own, arrangement)))
    }

    /// The model's config.json.
    ///
    /// # Errors
    /// The header lacks something, or asks for something that is not read.
    pub(crate) fn config(&self) -> Result<Map<String, serde_json::Value>, String> {
        let architecture = self.architecture;
        let has = |name: &str| self.shape(name).is_some();
        let [heads, key_value_heads] = self.heads;
        let hidden = self.size("embedding_length")?;
        let head_dim = self.size_or("attention.key_length", hidden / heads)?;
        for (key, what) in
            [("attention.value_length", "keys"), ("rope.dimension_count", "heads' elements")]
        {
            if self.size_or(key, head_dim)? != head_dim {
                return Err(self.problem(key, &format!("as many as {what}, {head_dim}")));
            }
        }
        self.check_keys()?;
        let embeddings =
            self.shape("token_embd.weight").ok_or("there is no `token_embd.weight`")?;
        let mut config = Map::new();
        let mut say = |key: &str, value: serde_json::Value| config.insert(key.into(), value);
        say("architectures", json!([architecture.class]));
        say("model_type", json!(architecture.model_type));
        say("vocab_size", json!(embeddings.first()));
        say("hidden_size", json!(hidden));
        say("intermediate_size", json!(self.size("feed_forward_length")?));
        say("num_hidden_layers", json!(self.size("block_count")?));
        say("num_attention_heads", json!(heads));
        say("num_key_value_heads", json!(key_value_heads));
        say("head_dim", json!(head_dim));
        say("hidden_act", json!("silu"));
        say("max_position_embeddings", json!(self.size("context_length")?));
        let eps = "attention.layer_norm_rms_epsilon";
        let eps = self.number(eps)?.ok_or_else(|| self.problem(eps, "a number"))?;
        say("rms_norm_eps", json!(eps));
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        say("rope_theta", json!(theta));
        if let Some(scaling) = self.rope_scaling(theta, head_dim)? {
            say("rope_scaling", scaling);
        }
        say("tie_word_embeddings", json!(!has("output.weight")));
        if !architecture.biases {
            say("attention_bias", json!(has("blk.0.attn_q.bias")));
            say("mlp_bias", json!(has("blk.0.ffn_gate.bias")));
        }
        for (key, id) in self.special_tokens()? {
            say(key, id);
        }
        Ok(config)
    }

    fn shape(&self, name: &str) -> Option<&[i64]> {
        let found = self.header.tensors.iter().find(|(known, _)| *known == name);
        found.map(|(_, stored)| stored.shape.as_slice())
    }

    /// Refuses keys that ask for something which is not read.
    fn check_keys(&self) -> Result<(), String> {
        const READ: [&str; 13] = [
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "attention.layer_norm_rms_epsilon",
            "block_count",
            "context_length",
            "embedding_length",
            "feed_forward_length",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.scaling.type",
            "rope.scaling.factor",
        ];
        let prefix = format!("{}.", self.architecture.name);
        let keys = self.header.keys.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?, v)));
        for (key, value) in keys {
            // A count of nothing asks for nothing.
            let idle = matches!(value, Value::Integer(0) | Value::Flag(false));
            let known = READ.iter().chain(&rope::KEYS).chain(&TOLD_OTHERWISE);
            if !idle && !known.copied().any(|known| known == key) {
                let (key, what) = (short(key), value.what());
                return Err(format!("`{prefix}{key}` is {what}: what it asks for is not built"));
            }
        }
        Ok(())
    }

    /// The scaling of the rotary angles, as config.json writes it.
    fn rope_scaling(&self, theta: f64, head_dim: i64) -> Result<Option<serde_json::Value>, String> {
        let factor = || self.number("rope.scaling.factor");
        match self.get("rope.scaling.type") {
            None | Some(Value::Text("none")) => {}
            Some(Value::Text("linear")) => {
                return Ok(Some(json!({ "rope_type": "linear", "factor": factor()? })));
            }
            // Which types are built is config.json's reader's to say.
            Some(Value::Text(other)) => {
                let original = self.size("rope.scaling.original_context_length")?;
                return Ok(Some(json!({
                    "rope_type": other,
                    "factor": factor()?,
                    "original_max_position_embeddings": original,
                })));
            }
            Some(_) => return Err(self.problem("rope.scaling.type", "a text")),
        }
        match self.header.tensors.iter().find(|(name, _)| *name == rope::FACTORS) {
            None => Ok(None),
            Some((_, stored)) => {
                rope::llama3(self.header.numbers(stored), theta, head_dim).map(Some)
            }
        }
    }

    /// The ids of special tokens, by their keys in a config.json.
    fn special_tokens(&self) -> Result<Vec<(&'static str, serde_json::Value)>, String> {
        let id = |key: &str| match self.header.keys.get(key) {
            None => Ok(None),
            Some(Value::Integer(id @ 0..=0xffff_ffff)) => Ok(Some(*id as u32)),
            Some(value) => Err(format!("`{key}` is {}; it must be a token's id", value.what())),
        };
        let mut ids = Vec::new();
        if let Some(bos) = id("tokenizer.ggml.bos_token_id")? {
            ids.push(("bos_token_id", json!(bos)));
        }
        // What ends a turn ends a text as well.
        let eos = [id("tokenizer.ggml.eos_token_id")?, id("tokenizer.ggml.eot_token_id")?];
        let mut eos: Vec<u32> = eos.into_iter().flatten().collect();
        eos.dedup();
        match eos[..] {
            [] => {}
            [eos] => ids.push(("eos_token_id", json!(eos))),
            _ => ids.push(("eos_token_id", json!(eos))),
        }
        if let Some(pad) = id("tokenizer.ggml.padding_token_id")? {
            ids.push(("pad_token_id", json!(pad)));
        }
        Ok(ids)
    }
}
