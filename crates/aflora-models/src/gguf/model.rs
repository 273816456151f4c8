//! What a file's header says of the model: its config.json, and the place of each tensor.

use super::architecture::Architecture;
use super::arrangement::Arrangement;
use super::header::{short, Header};
use super::value::Value;
use serde_json::{json, Map};

/// The header of a model whose kind is known.
#[derive(Debug)]
pub(crate) struct ModelHeader<'a> {
    header: &'a Header<'a>,
    pub(super) architecture: &'static Architecture,
    /// Heads of queries, and of keys and values.
    pub(super) heads: [i64; 2],
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

    pub(super) fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.header.keys.get(format!("{}.{key}", self.architecture.name).as_str())
    }

    pub(super) fn problem(&self, key: &str, what: &str) -> String {
        let found = self.get(key).map_or("missing".into(), Value::what);
        format!("`{}.{key}` is {found}; it must be {what}", self.architecture.name)
    }

    pub(super) fn size(&self, key: &str) -> Result<i64, String> {
        match self.get(key) {
            Some(Value::Integer(n @ 1..=0xffff_ffff)) => Ok(*n as i64),
            _ => Err(self.problem(key, "a positive whole number")),
        }
    }

    pub(super) fn size_or(&self, key: &str, default: i64) -> Result<i64, String> {
        if self.get(key).is_some() {
            self.size(key)
        } else {
            Ok(default)
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, String> {
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
        if self.architecture.tensors.contains(&stored) {
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

    /// What the config.json of every kind of model has.
    pub(super) fn common(&self) -> Result<Map<String, serde_json::Value>, String> {
        let architecture = self.architecture;
        let has = |name: &str| self.shape(name).is_some();
        let [heads, key_value_heads] = self.heads;
        let (hidden, head_dim) = (self.size("embedding_length")?, self.head_dim()?);
        let usual = architecture.usual;
        for (key, what, wanted) in [
            ("attention.value_length", "keys", true),
            ("rope.dimension_count", "heads' elements", usual.rope.share.is_none()),
        ] {
            if wanted && self.size_or(key, head_dim)? != head_dim {
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
        say(usual.activation.0, json!(architecture.activation[0]));
        say("max_position_embeddings", json!(self.size("context_length")?));
        let eps = "attention.layer_norm_rms_epsilon";
        let eps = self.number(eps)?.ok_or_else(|| self.problem(eps, "a number"))?;
        say(usual.eps_key, json!(eps));
        say(usual.rope.theta.0, json!(self.theta()?));
        if let Some(scaling) = self.rope_scaling()? {
            say("rope_scaling", scaling);
        }
        say("tie_word_embeddings", json!(!has("output.weight")));
        for (begin, key) in architecture.biases {
            let of_first = format!("blk.0.{begin}");
            let is = |name: &str| name.starts_with(&of_first) && name.ends_with(".bias");
            let told = self.header.tensors.iter().any(|(name, _)| is(name));
            if let Some(key) = key {
                say(key, json!(told));
            }
        }
        for (key, id) in self.special_tokens()? {
            say(key, id);
        }
        Ok(config)
    }

    /// The size of a head.
    pub(super) fn head_dim(&self) -> Result<i64, String> {
        self.size_or("attention.key_length", self.size("embedding_length")? / self.heads[0])
    }

    /// The base of the rotary angles.
    pub(super) fn theta(&self) -> Result<f64, String> {
        Ok(self.number("rope.freq_base")?.unwrap_or(10_000.0))
    }

    /// How many layers there are: no more than the file has tensors.
    pub(super) fn layers(&self) -> Result<usize, String> {
        let (key, tensors) = ("block_count", self.header.tensors.len());
        let layers = usize::try_from(self.size(key)?).ok().filter(|layers| *layers <= tensors);
        layers.ok_or_else(|| self.problem(key, &format!("{tensors} at the most, one a tensor")))
    }

    /// The numbers of a tensor that is no weight; none if it is not there.
    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<f32>>, String> {
        let Some((_, stored)) = self.header.tensors.iter().find(|(known, _)| *known == name) else {
            return Ok(None);
        };
        let numbers = self.header.numbers(stored);
        numbers.map(Some).ok_or_else(|| format!("`{name}` is of another format than F32"))
    }

    fn shape(&self, name: &str) -> Option<&[i64]> {
        let found = self.header.tensors.iter().find(|(known, _)| *known == name);
        found.map(|(_, stored)| stored.shape.as_slice())
    }

    /// Refuses keys that ask for something which is not read.
    fn check_keys(&self) -> Result<(), String> {
        const READ: [&str; 14] = [
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
            "rope.scaling.original_context_length",
        ];
        let prefix = format!("{}.", self.architecture.name);
        let keys = self.header.keys.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?, v)));
        for (key, value) in keys {
            // A count of nothing asks for nothing.
            let idle = matches!(value, Value::Integer(0) | Value::Flag(false));
            let known = READ.iter().chain(self.architecture.keys).chain(&TOLD_OTHERWISE);
            if !idle && !known.copied().any(|known| known == key) {
                let (key, what) = (short(key), value.what());
                return Err(format!("`{prefix}{key}` is {what}: what it asks for is not built"));
            }
        }
        Ok(())
    }

    /// The scaling of the rotary angles, as config.json writes it.
    fn rope_scaling(&self) -> Result<Option<serde_json::Value>, String> {
        let factor = || self.number("rope.scaling.factor");
        match self.get("rope.scaling.type") {
            None | Some(Value::Text("none")) => Ok(None),
            Some(Value::Text("linear")) => {
                Ok(Some(json!({ "rope_type": "linear", "factor": factor()? })))
            }
            // Which types are built is config.json's reader's to say.
            Some(Value::Text(other)) => {
                let original = self.size("rope.scaling.original_context_length")?;
                Ok(Some(json!({
                    "rope_type": other,
                    "factor": factor()?,
                    "original_max_position_embeddings": original,
                })))
            }
            Some(_) => Err(self.problem("rope.scaling.type", "a text")),
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
