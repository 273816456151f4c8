//! `adapter_config.json`: PEFT's settings of a method, and ours.
//!
//! LoRA, VeRA and AdaLoRA are written as PEFT writes them and read from what it writes. Methods
//! that PEFT does not know (AFLoRA and others) carry their settings under the key `aflora`.

use crate::backbone::Backbone;
use crate::{Error, Result};
use aflora_core::adapter::{AdaLoraConfig, EloraConfig, LoraConfig, MethodConfig};
use aflora_core::{RunLength, Span};
use serde_json::{json, Map, Value};
use std::path::Path;

/// The file's name.
pub(super) const FILE: &str = "adapter_config.json";

/// What describes an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The method with its settings.
    pub method: MethodConfig,
    /// The model that the adapter belongs to, by whatever name its maker gave it.
    pub base_model: Option<String>,
    /// The run that made it, where it is known.
    pub length: Option<RunLength>,
    /// The modules that are in the folder whole: the head, and others beside it.
    pub modules_to_save: Vec<String>,
    /// What the model does, in PEFT's words.
    pub task_type: TaskType,
}

/// What a model does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TaskType {
    /// Classes or a score.
    #[default]
    SequenceClassification,
    /// Text, by a decoder.
    CausalLm,
    /// Text from text.
    Seq2SeqLm,
}

impl TaskType {
    /// Of a backbone.
    pub fn of(backbone: &dyn Backbone) -> Self {
        match backbone.writer().map(|writer| writer.tokens().decoder_start) {
            None => TaskType::SequenceClassification,
            Some(None) => TaskType::CausalLm,
            Some(Some(_)) => TaskType::Seq2SeqLm,
        }
    }

    fn name(self) -> &'static str {
        match self {
            TaskType::SequenceClassification => "SEQ_CLS",
            TaskType::CausalLm => "CAUSAL_LM",
            TaskType::Seq2SeqLm => "SEQ_2_SEQ_LM",
        }
    }

    fn from_name(name: Option<&str>) -> Self {
        match name {
            Some("CAUSAL_LM") => TaskType::CausalLm,
            Some("SEQ_2_SEQ_LM") => TaskType::Seq2SeqLm,
            _ => TaskType::SequenceClassification,
        }
    }
}

impl Description {
    /// The file's content for an adapter on `sites`; `ranks` are the components of each site that
    /// are left.
    pub(super) fn to_json(&self, sites: &[String], ranks: &[i64]) -> Map<String, Value> {
        let mut keys = match &self.method {
            MethodConfig::Lora(config) => lora(config),
            MethodConfig::Elora(config) if config.shared => vera(config),
            MethodConfig::AdaLora(config) => self.adalora(config, sites, ranks),
            own => {
                let settings = serde_json::to_value(own).unwrap_or_default();
                let name = settings["method"].as_str().unwrap_or_default().to_uppercase();
                json!({ "peft_type": name, "aflora": settings })
            }
        };
        let mut all = keys.as_object_mut().map(std::mem::take).unwrap_or_default();
        // Whole names, so that no other module of the model ends the same way.
        all.insert("target_modules".into(), sites.into());
        all.insert("modules_to_save".into(), self.modules_to_save.clone().into());
        all.insert("base_model_name_or_path".into(), self.base_model.clone().into());
        all.insert("task_type".into(), self.task_type.name().into());
        all.insert("inference_mode".into(), true.into());
        all
    }

    fn adalora(&self, config: &AdaLoraConfig, sites: &[String], ranks: &[i64]) -> Value {
        let (t_i, t_f, total) = match self.length {
            Some(RunLength { steps_per_epoch, total_steps }) => {
                let steps = |span: Span| span.steps(steps_per_epoch, total_steps);
                (steps(config.t_i), steps(config.t_f), total_steps)
            }
            None => (0, 0, 1),
        };
        let pattern: Map<String, Value> = sites
            .iter()
            .zip(ranks)
            .map(|(site, &rank)| {
                let kept: Vec<bool> = (0..config.rank).map(|i| i < rank).collect();
                (format!("{site}.lora_E"), kept.into())
            })
            .collect();
        json!({
            "peft_type": "ADALORA", "init_r": config.rank, "target_r": config.target_rank,
            "lora_alpha": config.alpha, "lora_dropout": config.dropout,
            "orth_reg_weight": config.orthogonal, "tinit": t_i, "tfinal": t_f,
            "deltaT": config.interval, "beta1": config.beta1, "beta2": config.beta2,
            "total_step": total, "rank_pattern": pattern, "bias": "none",
        })
    }

    /// The rank that the adapters are made with.
    pub(super) fn rank(&self) -> Option<i64> {
        match &self.method {
            MethodConfig::Aflora(config) => Some(config.rank),
            MethodConfig::Lora(config) => Some(config.rank),
            MethodConfig::Elora(config) => Some(config.rank),
            MethodConfig::AdaLora(config) => Some(config.rank),
            MethodConfig::Sora(config) => Some(config.rank),
            MethodConfig::AfloraRank(config) => Some(config.rank),
            MethodConfig::Full {} | MethodConfig::BitFit {} | MethodConfig::Head {} => None,
        }
    }

    /// Reads the file of `folder`.
    ///
    /// # Errors
    /// It is missing, damaged, of a method that is not built, or has a switch on that is not.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let problem = |problem: String| Error::Config { path: path.clone(), problem };
        let text = aflora_files::read_text(&path).map_err(Error::io(&path))?;
        let keys: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|e| problem(format!("not an adapter's configuration: {e}")))?;
        let method = read_method(&keys).map_err(problem)?;
        let base_model = keys.get("base_model_name_or_path").and_then(Value::as_str);
        let modules = keys.get("modules_to_save").and_then(Value::as_array);
        let names = modules.into_iter().flatten().filter_map(Value::as_str).map(String::from);
        Ok(Description {
            method,
            base_model: base_model.map(String::from),
            length: None,
            modules_to_save: names.collect(),
            task_type: TaskType::from_name(keys.get("task_type").and_then(Value::as_str)),
        })
    }
}

fn lora(config: &LoraConfig) -> Value {
    json!({
        "peft_type": "LORA", "r": config.rank, "lora_alpha": config.alpha,
        "lora_dropout": config.dropout, "use_rslora": config.rslora, "bias": "none",
        "fan_in_fan_out": false, "init_lora_weights": true,
    })
}

fn vera(config: &EloraConfig) -> Value {
    json!({
        "peft_type": "VERA", "r": config.rank, "vera_dropout": config.dropout,
        "d_initial": config.d_initial, "projection_prng_key": config.projection_seed,
        "save_projection": true, "bias": "none", "fan_in_fan_out": false,
    })
}

/// Switches of PEFT that change what an adapter computes and are not built: each must be off.
const UNBUILT: [&str; 12] = [
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "alpha_pattern",
    "layer_replication",
    "megatron_config",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
];

fn read_method(keys: &Map<String, Value>) -> std::result::Result<MethodConfig, String> {
    let kind = keys.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    if let Some(settings) = keys.get("aflora") {
        return serde_json::from_value(settings.clone())
            .map_err(|e| format!("its `aflora` settings: {e}"));
    }
    let on = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    if let Some(key) = UNBUILT.iter().find(|key| keys.get(**key).is_some_and(on)) {
        return Err(format!("`{key}` is {}, which is not built", keys[*key]));
    }
    match keys.get("bias").and_then(Value::as_str) {
        None | Some("none") => {}
        Some(other) => return Err(format!("`bias` is `{other}`; only `none` is built")),
    }
    let number = |key: &str| {
        let value = keys.get(key).and_then(Value::as_f64);
        value.ok_or_else(|| format!("`{key}` is missing, or no number"))
    };
    let whole = |key: &str| {
        let value = keys.get(key).and_then(Value::as_i64);
        value.ok_or_else(|| format!("`{key}` is missing, or no whole number"))
    };
    let flag = |key: &str| keys.get(key).and_then(Value::as_bool).unwrap_or(false);
    match kind {
        "LORA" => {
            if keys.get("rank_pattern").is_some_and(on) {
                return Err("`rank_pattern` gives layers ranks of their own; not built".into());
            }
            Ok(MethodConfig::Lora(LoraConfig {
                rank: whole("r")?,
                alpha: number("lora_alpha")?,
                rslora: flag("use_rslora"),
                dropout: number("lora_dropout")?,
            }))
        }
        "VERA" => Ok(MethodConfig::Elora(EloraConfig {
            rank: whole("r")?,
            d_initial: number("d_initial")?,
            dropout: number("vera_dropout")?,
            shared: true,
            projection_seed: whole("projection_prng_key")? as u64,
        })),
        "ADALORA" => Ok(MethodConfig::AdaLora(AdaLoraConfig {
            rank: whole("init_r")?,
            target_rank: whole("target_r")?,
            alpha: number("lora_alpha")?,
            dropout: number("lora_dropout")?,
            orthogonal: number("orth_reg_weight")?,
            t_i: Span::Steps(whole("tinit")?.max(0) as u64),
            t_f: Span::Steps(whole("tfinal")?.max(0) as u64),
            interval: whole("deltaT")?.max(1) as u64,
            beta1: number("beta1")?,
            beta2: number("beta2")?,
        })),
        other => Err(format!("peft_type is `{other}`; LORA, VERA and ADALORA are read, and ours")),
    }
}
