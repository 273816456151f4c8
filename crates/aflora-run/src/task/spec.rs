//! A task: all that its YAML file says of it.

use super::{Kind, LossOn};
use crate::feed::DatasetSpec;
use crate::metrics::Metric;
use aflora_models::generate::GenerationSettings;
use schemars::{json_schema, JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A task block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskSpec {
    /// The task's name in runs and reports; else its file's.
    #[schemars(extend("takes" = "name"))]
    pub task: String,
    /// What tables call it; its name if not given.
    pub title: Option<String>,
    /// What it asks of a model.
    pub kind: Kind,
    /// The model where none is named.
    #[schemars(extend("takes" = "name"))]
    pub model: Option<String>,
    /// The method where none is named; else aflora.
    #[schemars(extend("takes" = "name"))]
    pub method: Option<String>,
    /// The classes as the task's own files have them, in the order of their numbers; of a task with
    /// several scores, the columns that hold one each.
    #[schemars(extend("takes" = "[values]"))]
    pub labels: Vec<Label>,
    /// What predictions and merged models call the classes, in the same order; as the files do if
    /// not given.
    #[schemars(extend("takes" = "[names]"))]
    pub label_names: Vec<String>,
    /// What stands between the labels of a row with several, where it is no list.
    #[schemars(extend("takes" = "character"))]
    pub label_separator: char,
    /// Whether each label has a column of its own, with 1 or 0 (true or false) in it.
    pub labels_in_columns: bool,
    /// The least probability of a label that a text gets, where it may get several.
    #[schemars(range(min = 0, max = 1))]
    pub threshold: f64,
    /// The least and the greatest score; any if not given.
    #[schemars(extend("takes" = "[least, greatest], null"))]
    pub range: Option<[f64; 2]>,
    /// What is reported; the first decides which epoch was best.
    pub metrics: Vec<Metric>,
    /// What the model is given; {input} is the example's input.
    pub prompt: String,
    /// Whether a mere decoder also learns to write the prompt.
    pub train_on_inputs: bool,
    /// Whether a mere decoder learns from short rows put together to max_length tokens, each of which
    /// sees itself alone.
    pub packing: bool,
    /// What of a conversation is learned: the assistant's turns, its last one, or all of it.
    pub loss_on: LossOn,
    /// How conversations are written: plain, chatml, or a file with a Jinja template; null: the model's
    /// own, else plain.
    #[schemars(extend("takes" = "plain, chatml, file"))]
    pub chat_template: Option<String>,
    /// Tokens to which what an encoder-decoder should write is cut.
    #[schemars(range(min = 2, max = MOST))]
    pub max_target_length: usize,
    /// What each class weighs in the loss, in the order of labels: balanced gives rare ones more.
    pub class_weights: Option<ClassWeights>,
    /// Share of the target's probability that is spread over all tokens, or over all classes.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1.0))]
    pub label_smoothing: f64,
    /// How texts are written; what is not said here is as the model's files have it.
    pub generation: GenerationSettings,
    /// Where the rows lie.
    pub dataset: DatasetSpec,
}

/// The most tokens of a target.
const MOST: usize = 1_000_000_000;

/// What stands for an example's input in a prompt.
pub const INPUT: &str = "{input}";

impl Default for TaskSpec {
    fn default() -> Self {
        TaskSpec {
            task: String::new(),
            title: None,
            kind: Kind::default(),
            model: None,
            method: None,
            labels: Vec::new(),
            label_names: Vec::new(),
            label_separator: ',',
            labels_in_columns: false,
            threshold: 0.5,
            range: None,
            metrics: Vec::new(),
            prompt: INPUT.into(),
            train_on_inputs: false,
            packing: false,
            loss_on: LossOn::default(),
            chat_template: None,
            max_target_length: 128,
            class_weights: None,
            label_smoothing: 0.0,
            generation: GenerationSettings::default(),
            dataset: DatasetSpec::default(),
        }
    }
}

/// What classes weigh in the loss: in YAML `balanced`, or a list of numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum ClassWeights {
    /// Each as much as any other, by the training rows.
    Balanced,
    /// These, in the order of the classes.
    Each(Vec<f64>),
}

impl Serialize for ClassWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ClassWeights::Balanced => BALANCED.serialize(serializer),
            ClassWeights::Each(weights) => weights.serialize(serializer),
        }
    }
}

const BALANCED: &str = "balanced";

impl JsonSchema for ClassWeights {
    fn schema_name() -> Cow<'static, str> {
        "ClassWeights".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "takes": "balanced, [numbers]" })
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BalancedOrEach;
        impl<'de> Visitor<'de> for BalancedOrEach {
            type Value = ClassWeights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`balanced`, or a list of numbers")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ClassWeights, E> {
                match text {
                    BALANCED => Ok(ClassWeights::Balanced),
                    other => Err(E::unknown_variant(other, &[BALANCED])),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ClassWeights, A::Error> {
                let mut weights = Vec::new();
                while let Some(weight) = seq.next_element()? {
                    weights.push(weight);
                }
                Ok(ClassWeights::Each(weights))
            }
        }
        deserializer.deserialize_any(BalancedOrEach)
    }
}

/// A class as files have it: in YAML a text, or a whole number.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Label(String);

impl Label {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Label(text.to_string())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Label {
    fn schema_name() -> Cow<'static, str> {
        "Label".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumber;
        impl Visitor<'_> for TextOrNumber {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, in quotes where it looks like something else")
            }

            fn visit_str<E>(self, text: &str) -> Result<Label, E> {
                Ok(Label(text.to_string()))
            }

            fn visit_i64<E>(self, n: i64) -> Result<Label, E> {
                Ok(Label(n.to_string()))
            }

            fn visit_u64<E>(self, n: u64) -> Result<Label, E> {
                Ok(Label(n.to_string()))
            }
        }
        deserializer.deserialize_any(TextOrNumber)
    }
}

impl TaskSpec {
    /// The name in runs and reports.
    pub fn name(&self) -> &str {
        &self.task
    }

    /// The name in tables.
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.task)
    }

    /// A class as the task's own files have it.
    pub(crate) fn label(&self, class: i64) -> &str {
        let label = usize::try_from(class).ok().and_then(|class| self.labels.get(class));
        label.map_or("", Label::as_str)
    }

    /// The class that files have as `text`: as the task has it; or the same number or truth value in
    /// another form, such as `1.0` or `True`, which pandas writes.
    pub fn class_of(&self, text: &str) -> Option<usize> {
        let named = |name: &str| self.labels.iter().position(|label| label.as_str() == name);
        named(text).or_else(|| {
            let zeros = text.split_once('.').filter(|(_, end)| end.bytes().all(|c| c == b'0'));
            match zeros {
                Some((whole, _)) => named(whole),
                None if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") => {
                    self.labels.iter().position(|label| label.0.eq_ignore_ascii_case(text))
                }
                None => None,
            }
        })
    }

    /// What predictions call the classes, in the order of their numbers.
    pub fn class_names(&self) -> Vec<&str> {
        let own = self.labels.iter().map(Label::as_str);
        let names = self.label_names.iter().map(String::as_str);
        if self.label_names.is_empty() {
            own.collect()
        } else {
            names.collect()
        }
    }

    /// What `take` makes of the names that each class goes by, in the order of their numbers; of
    /// none for a task without classes.
    pub fn with_class_names<T>(&self, take: impl FnOnce(&[&[&str]]) -> T) -> T {
        let own = self.labels.iter().map(Label::as_str);
        let names: Vec<[&str; 2]> =
            own.zip(self.class_names()).map(|(own, name)| [own, name]).collect();
        take(&names.iter().map(|names| &names[..]).collect::<Vec<_>>())
    }
}
