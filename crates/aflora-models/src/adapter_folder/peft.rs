//! `adapter_config.json`: PEFT's settings of a method, and ours.
//!
//! Methods that PEFT knows are written as PEFT writes them and read from what it writes, by what
//! their own files say of them ([`Peft`]). Others carry their settings under the key `aflora`.

use super::allowed;
use super::names::BIAS;
use crate::backbone::Backbone;
use crate::heads::Head;
use aflora_core::adapter::peft::{Peft, PeftType, PeftValue, WrittenAdapters};
use aflora_core::adapter::MethodConfig;
use aflora_core::{Injection, RunLength, Span};
use serde_json::{json, Map, Value};

/// The name of an adapter's configuration.
pub const FILE: &str = "adapter_config.json";

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
    /// What the model does, in PEFT's words; none where the folder does not say.
    pub task_type: Option<TaskType>,
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
    /// Classes of every token.
    TokenClassification,
    /// Text, by a decoder.
    CausalLm,
    /// Text from text.
    Seq2SeqLm,
}

impl TaskType {
    /// The task type of a backbone, by what its head gives.
    pub fn of(backbone: &dyn Backbone) -> Self {
        let reads_a_source = || backbone.text_generator()?.tokens().decoder_start;
        match backbone.about().head {
            Head::Classes(_) | Head::Scores(_) => TaskType::SequenceClassification,
            Head::Tokens(_) => TaskType::TokenClassification,
            Head::Language => match reads_a_source() {
                Some(_) => TaskType::Seq2SeqLm,
                None => TaskType::CausalLm,
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            TaskType::SequenceClassification => "SEQ_CLS",
            TaskType::TokenClassification => "TOKEN_CLS",
            TaskType::CausalLm => "CAUSAL_LM",
            TaskType::Seq2SeqLm => "SEQ_2_SEQ_LM",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        use TaskType::*;
        let all = [SequenceClassification, TokenClassification, CausalLm, Seq2SeqLm];
        all.into_iter().find(|task| task.name() == name)
    }

    /// What the base model does by its config.json, for a folder that does not say: an adapter on a
    /// head for classes must not, for PEFT would train that head whole. Classes of a text where that
    /// has no class for those of tokens.
    pub fn of_base(config: &Map<String, Value>) -> Self {
        let class = config.get("architectures").and_then(|classes| classes.get(0)?.as_str());
        match class.is_some_and(|class| class.ends_with("ForTokenClassification")) {
            true => TaskType::TokenClassification,
            false => TaskType::SequenceClassification,
        }
    }
}

impl Description {
    /// What describes the adapters of `method` in `model`, of no base model with a name, and with
    /// the task type of classes.
    pub fn new(method: MethodConfig, model: &Injection) -> Self {
        Description {
            method,
            base_model: None,
            length: None,
            modules_to_save: model.saved_modules(),
            task_type: Some(TaskType::default()),
        }
    }

    /// The file's content for an adapter on layers with so many components left.
    pub(super) fn to_json(&self, ranks: &[(String, i64)]) -> Map<String, Value> {
        let settings = to_object(&self.method);
        let mut all = match self.peft() {
            Some(peft) => self.as_peft(peft, &settings, ranks),
            None => {
                let peft_type = self.method.name().to_uppercase();
                to_object(&json!({ "peft_type": peft_type, "aflora": settings }))
            }
        };
        // Whole names, so that no other module of the model ends the same way.
        let sites: Vec<&str> = ranks.iter().map(|(site, _)| site.as_str()).collect();
        all.insert("target_modules".into(), sites.into());
        let (biases, modules): (Vec<&str>, Vec<&str>) =
            self.modules_to_save.iter().map(String::as_str).partition(|m| m.ends_with(BIAS));
        all.insert("modules_to_save".into(), modules.into());
        if !biases.is_empty() {
            all.insert("bias".into(), "all".into());
        }
        let base = self.base_model.as_ref();
        all.insert("base_model_name_or_path".into(), base.map(|base| base.name.clone()).into());
        all.insert("revision".into(), base.and_then(|base| base.revision.clone()).into());
        all.insert("task_type".into(), self.task_type.map(TaskType::name).into());
        all.insert("inference_mode".into(), true.into());
        all
    }

    /// Whether PEFT has the method with these settings.
    pub(super) fn is_pefts(&self) -> bool {
        self.peft().is_some()
    }

    /// The method in PEFT, if it has it with these settings.
    fn peft(&self) -> Option<&'static Peft> {
        let settings = to_object(&self.method);
        let is = |(name, value): &(&str, PeftValue)| settings[*name] == to_value(value);
        self.method.settings().peft().filter(|peft| peft.fixed.iter().all(is))
    }

    /// The method as PEFT writes it.
    fn as_peft(
        &self,
        peft: &Peft,
        settings: &Map<String, Value>,
        ranks: &[(String, i64)],
    ) -> Map<String, Value> {
        let mut keys = to_object(&json!({ "peft_type": peft.peft_type }));
        keys.extend(peft.switches.iter().map(|switch| (switch.to_string(), true.into())));
        for setting in peft.settings {
            let ours = settings[setting.ours].clone();
            let value = match setting.kind {
                PeftType::Steps => self.in_steps(ours).into(),
                _ => ours,
            };
            keys.insert(setting.theirs.into(), value);
        }
        let written = WrittenAdapters { length: self.length, ranks };
        let of_run = self.method.settings().peft_of_run(written);
        for (key, value) in of_run.iter().chain(peft.written) {
            keys.insert(key.to_string(), to_value(value));
        }
        keys
    }

    /// A span in steps of the run; 0 where that is not known.
    fn in_steps(&self, span: Value) -> u64 {
        let span = serde_json::from_value::<Span>(span).ok();
        let steps = |(span, RunLength { steps_per_epoch, total_steps }): (Span, RunLength)| {
            span.steps(steps_per_epoch, total_steps)
        };
        span.zip(self.length).map_or(0, steps)
    }

    /// Reads the method from the keys of an adapter_config.json.
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
            task_type: keys.get("task_type").and_then(Value::as_str).and_then(TaskType::from_name),
        })
    }
}

/// The method with its settings.
fn read_method(keys: &Map<String, Value>) -> std::result::Result<MethodConfig, String> {
    let peft_type = keys.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    let known: Vec<(MethodConfig, &Peft)> =
        MethodConfig::all().filter_map(|m| m.settings().peft().map(|peft| (m, peft))).collect();
    let is_on = |switch: &&str| keys.get(*switch).is_some_and(|value| *value == true);
    // Of several of one type, the one that has the most of its switches on.
    let found = known
        .iter()
        .filter(|(_, peft)| peft.peft_type == peft_type && peft.switches.iter().all(is_on))
        .max_by_key(|(_, peft)| peft.switches.len());
    match (found, keys.get("aflora")) {
        (Some((method, peft)), _) => {
            allowed::check(Some(peft), keys)?;
            read_settings(method, peft, keys)
        }
        (None, Some(settings)) => {
            allowed::check(None, keys)?;
            serde_json::from_value(settings.clone())
                .map_err(|e| format!("its `aflora` settings: {e}"))
        }
        (None, None) => {
            let mut types: Vec<&str> = known.iter().map(|(_, peft)| peft.peft_type).collect();
            types.dedup();
            let types = types.join(", ");
            Err(format!("peft_type is `{peft_type}`; {types} are read, and ours"))
        }
    }
}

/// The settings of a method of PEFT's. What a file leaves out has PEFT's default.
fn read_settings(
    method: &MethodConfig,
    peft: &Peft,
    keys: &Map<String, Value>,
) -> std::result::Result<MethodConfig, String> {
    let number = |key: &str, default: f64| match keys.get(key) {
        None => Ok(default),
        Some(value) => value.as_f64().ok_or_else(|| format!("`{key}` is {value}, no number")),
    };
    let whole = |key: &str, default: i64| match keys.get(key) {
        None => Ok(default),
        Some(value) => value.as_i64().ok_or_else(|| format!("`{key}` is {value}, no whole number")),
    };
    let mut settings = to_object(method);
    for setting in peft.settings {
        let key = setting.theirs;
        let value = match setting.kind {
            PeftType::Whole(default) => whole(key, default)?.into(),
            PeftType::AtLeast(least) => whole(key, least)?.max(least).into(),
            PeftType::Seed(default) => (whole(key, default)? as u64).into(),
            PeftType::Number(default) => number(key, default)?.into(),
            PeftType::Switch => keys.get(key).is_some_and(|value| *value == true).into(),
            PeftType::Steps => to_value(&Span::Steps(whole(key, 0)?.max(0) as u64)),
        };
        settings.insert(setting.ours.into(), value);
    }
    settings.extend(peft.fixed.iter().map(|(name, value)| (name.to_string(), to_value(value))));
    serde_json::from_value(settings.into()).map_err(|e| format!("its settings: {e}"))
}

fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn to_object(value: &impl serde::Serialize) -> Map<String, Value> {
    match to_value(value) {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}
