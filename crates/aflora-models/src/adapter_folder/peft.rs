//! `adapter_config.json`: PEFT's settings of a method, and ours.
//!
//! LoRA, VeRA and AdaLoRA are written as PEFT writes them and read from what it writes. Methods
//! that PEFT does not know (AFLoRA and others) carry their settings under the key `aflora`.

use super::allowed;
use crate::backbone::Backbone;
use aflora_core::adapter::{AdaLoraConfig, EloraConfig, LoraConfig, MethodConfig};
use aflora_core::{RunLength, Span};
use serde_json::{json, Map, Value};

/// The file's name.
pub(super) const FILE: &str = "adapter_config.json";

/// What describes an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The method with its settings.
    pub method: MethodConfig,
    /// The model that the adapter belongs to.
    pub base_model: Option<BaseModel>,
    /// The run that made it, where it is known.
    pub length: Option<RunLength>,
    /// The modules that are in the folder whole: the head, and others beside it.
    pub modules_to_save: Vec<String>,
    /// What the model does, in PEFT's words.
    pub task_type: TaskType,
}

/// A model, as others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// Its repository on the hub, or its folder.
    pub name: String,
    /// The commit, of a repository.
    pub revision: Option<String>,
}

impl From<&str> for BaseModel {
    fn from(name: &str) -> Self {
        BaseModel { name: name.into(), revision: None }
    }
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
        let base = self.base_model.as_ref();
        all.insert("base_model_name_or_path".into(), base.map(|base| base.name.clone()).into());
        all.insert("revision".into(), base.and_then(|base| base.revision.clone()).into());
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

    /// Of the file's keys.
    ///
    /// # Errors
    /// They are of a method that is not built, or have a switch on that is not.
    pub(super) fn from_keys(keys: &Map<String, Value>) -> std::result::Result<Self, String> {
        let method = read_method(keys)?;
        let text = |key: &str| keys.get(key).and_then(Value::as_str).map(String::from);
        let revision = text("revision");
        let base_model = text("base_model_name_or_path").map(|name| BaseModel { name, revision });
        let modules = keys.get("modules_to_save").and_then(Value::as_array);
        let names = modules.into_iter().flatten().filter_map(Value::as_str).map(String::from);
        Ok(Description {
            method,
            base_model,
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

/// The method with its settings.
fn read_method(keys: &Map<String, Value>) -> std::result::Result<MethodConfig, String> {
    let kind = keys.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    let own = keys.get("aflora");
    if own.is_none() && !["LORA", "VERA", "ADALORA"].contains(&kind) {
        return Err(format!("peft_type is `{kind}`; LORA, VERA and ADALORA are read, and ours"));
    }
    allowed::check(kind, keys)?;
    if let Some(settings) = own {
        return serde_json::from_value(settings.clone())
            .map_err(|e| format!("its `aflora` settings: {e}"));
    }
    // What a file leaves out has PEFT's default.
    let number = |key: &str, default: f64| match keys.get(key) {
        None => Ok(default),
        Some(value) => value.as_f64().ok_or_else(|| format!("`{key}` is {value}, no number")),
    };
    let whole = |key: &str, default: i64| match keys.get(key) {
        None => Ok(default),
        Some(value) => value.as_i64().ok_or_else(|| format!("`{key}` is {value}, no whole number")),
    };
    match kind {
        "LORA" => Ok(MethodConfig::Lora(LoraConfig {
            rank: whole("r", 8)?,
            alpha: number("lora_alpha", 8.0)?,
            // `allowed` lets nothing but true and what is off pass.
            rslora: keys.get("use_rslora").is_some_and(|value| value == true),
            dropout: number("lora_dropout", 0.0)?,
        })),
        "VERA" => Ok(MethodConfig::Elora(EloraConfig {
            rank: whole("r", 256)?,
            d_initial: number("d_initial", 0.1)?,
            dropout: number("vera_dropout", 0.0)?,
            shared: true,
            projection_seed: whole("projection_prng_key", 0)? as u64,
        })),
        _ => Ok(MethodConfig::AdaLora(AdaLoraConfig {
            rank: whole("init_r", 12)?,
            target_rank: whole("target_r", 8)?,
            alpha: number("lora_alpha", 8.0)?,
            dropout: number("lora_dropout", 0.0)?,
            orthogonal: number("orth_reg_weight", 0.5)?,
            t_i: Span::Steps(whole("tinit", 0)?.max(0) as u64),
            t_f: Span::Steps(whole("tfinal", 0)?.max(0) as u64),
            interval: whole("deltaT", 1)?.max(1) as u64,
            beta1: number("beta1", 0.85)?,
            beta2: number("beta2", 0.85)?,
        })),
    }
}
