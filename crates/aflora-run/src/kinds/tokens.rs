//! A tag for each word of a text (`B-PER`, `O`): the cross entropy of the word's first token, whose
//! others are left alone, as in transformers' examples.

use super::classify::{check_labels, class};
use super::traits::{ModelContext, Processor, TaskKind, Usual};
use crate::feed::row::Row;
use crate::feed::Source;
use crate::metrics::{entities, Answer, Answers, Sort};
use crate::run::batches::EncodedSet;
use crate::run::objective::labeller::{Labeller, Labelling, Rows};
use crate::task::{Example, TaskSpec};
use crate::ui::Progress;
use aflora_models::merged::OutputKind;
use aflora_models::{Head, TextEncoder};
use anyhow::Result;
use serde_json::{json, Value};
use std::path::Path;
use tch::{Kind, Reduction, Tensor};

/// The kind `tokens`.
#[derive(Debug)]
pub(super) struct Tokens;

impl TaskKind for Tokens {
    fn asks_for(&self) -> &'static str {
        "asks for tags of words"
    }

    fn keys(&self) -> &'static [&'static str] {
        &["labels", "label_names", "label_smoothing"]
    }

    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String)) {
        check_labels(task, 2, tell);
    }

    fn inputs(&self) -> &'static [&'static [&'static str]] {
        &[&["tokens"]]
    }

    fn target(&self, _: &TaskSpec) -> Option<&'static str> {
        Some("tags")
    }

    /// The words of a list, or of a text with spaces between them.
    fn input(&self, row: &Row, name: &str) -> std::result::Result<Option<Vec<String>>, String> {
        if !row.has(name) {
            return Ok(None);
        }
        row.list(name, ' ').map(Some)
    }

    fn right(
        &self,
        task: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String> {
        let tags = row.list(source.column("tags"), ' ')?;
        let names = task.class_names();
        let name = |tag: &String| {
            let class = class(task, tag, source.numbered_labels)?;
            Ok(names.get(class as usize).map_or_else(String::new, ToString::to_string))
        };
        Ok(Answer::Tags(tags.iter().map(name).collect::<std::result::Result<_, String>>()?))
    }

    fn check_example(&self, example: &Example) -> std::result::Result<(), String> {
        let Answer::Tags(tags) = &example.right else { return Ok(()) };
        let (words, tags) = (example.texts.len(), tags.len());
        match words == tags {
            true => Ok(()),
            false => Err(format!("there are {words} words and {tags} tags, but each word has one")),
        }
    }

    fn only_answer(&self, _: &TaskSpec, right: &Answer) -> Option<String> {
        let Answer::Tags(tags) = right else { return None };
        let first = tags.first()?;
        tags.iter().all(|tag| tag == first).then(|| first.clone())
    }

    /// Entities are judged where there are such: of tags that say where one begins.
    fn usual(&self, labels: &[String]) -> Usual {
        match labels.iter().any(|label| label.starts_with("B-") || label.starts_with("I-")) {
            true => Usual::of_labels(&["entity_f1", "tag_accuracy"]),
            false => Usual::of_labels(&["tag_accuracy"]),
        }
    }

    fn answers(&self) -> Sort {
        Sort::Tags
    }

    fn head(&self, task: &TaskSpec) -> Head {
        Head::Tokens(task.labels.len() as i64)
    }

    fn output<'a>(&self, task: &'a TaskSpec) -> OutputKind<'a> {
        OutputKind::Tokens(task.class_names())
    }

    fn names(&self, _: &TaskSpec) -> [&'static [&'static str]; 2] {
        [&["tags", "entities"], &["predicted_tags", "predicted_entities"]]
    }

    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>> {
        Ok(Box::new(Labeller::new(&Tokens, with)?))
    }
}

/// What a label says where there is none: of a word's further tokens, and of padding.
const NONE: i64 = -100;

/// The tag of what is no part of an entity: what a word gets that the model did not read, because it
/// was cut off or has no token.
pub(crate) const OUTSIDE: &str = "O";

impl Labelling for Tokens {
    fn encode(
        &self,
        encoder: &TextEncoder,
        rows: &[&[String]],
        right: Answers,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<EncodedSet> {
        EncodedSet::of_words(encoder, rows, right, cache, progress)
    }

    /// `[rows, width]`: the class of each word at its first token.
    fn labels(&self, task: &TaskSpec, of: Rows<'_>, width: usize) -> Tensor {
        let names = task.class_names();
        let Answers::Tags(right) = &of.set.right else { return Tensor::from_slice::<i64>(&[]) };
        let mut labels = vec![NONE; of.rows.len() * width];
        for (i, &row) in of.rows.iter().enumerate() {
            for (place, tag) in of.set.first_tokens(row).zip(&right[row]) {
                let class = names.iter().position(|name| name == tag);
                if let (Some(place), Some(class)) = (place, class) {
                    labels[i * width + place] = class as i64;
                }
            }
        }
        Tensor::from_slice(&labels).view([of.rows.len() as i64, width as i64])
    }

    /// Words with a token.
    fn items(&self, of: Rows<'_>) -> usize {
        of.rows.iter().map(|&row| of.set.first_tokens(row).flatten().count()).sum()
    }

    fn loss(
        &self,
        task: &TaskSpec,
        logits: &Tensor,
        labels: &Tensor,
        _: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (logits, labels) = (logits.flatten(0, 1), labels.flatten(0, 1));
        let (none, smoothing) = (None::<&Tensor>, task.label_smoothing);
        Ok(logits.f_cross_entropy_loss(&labels, none, Reduction::Sum, NONE, smoothing)?)
    }

    fn answers(&self, task: &TaskSpec, of: Rows<'_>, logits: &Tensor) -> Result<Vec<Answer>> {
        Ok(tags(task, of, logits)?.into_iter().map(Answer::Tags).collect())
    }

    /// The tag of each word; and the entities, each with its words, those between `start` and `end`.
    fn shown(
        &self,
        task: &TaskSpec,
        of: Rows<'_>,
        texts: &[&[String]],
        logits: &Tensor,
    ) -> Result<Vec<Vec<Value>>> {
        let row = |(&row, tags): (&usize, Vec<String>)| {
            let found = entities(&tags).into_iter().map(|entity| {
                let text = texts[row][entity.start..entity.end].join(" ");
                json!({
                    "type": entity.kind, "start": entity.start, "end": entity.end, "text": text,
                })
            });
            let found: Vec<Value> = found.collect();
            vec![tags.into(), found.into()]
        };
        Ok(of.rows.iter().zip(tags(task, of, logits)?).map(row).collect())
    }
}

/// The tags of the words of each row.
fn tags(task: &TaskSpec, of: Rows<'_>, logits: &Tensor) -> Result<Vec<Vec<String>>> {
    let names = task.class_names();
    let unread = names.iter().find(|name| **name == OUTSIDE).or(names.first());
    let unread = unread.map_or("", |name| *name);
    let classes = Vec::<Vec<i64>>::try_from(logits.f_argmax(2, false)?.to_kind(Kind::Int64))?;
    let row = |(&row, classes): (&usize, Vec<i64>)| {
        let tag = |place: Option<usize>| {
            let class = place.and_then(|place| usize::try_from(*classes.get(place)?).ok());
            class.and_then(|class| names.get(class).copied()).unwrap_or(unread).to_string()
        };
        of.set.first_tokens(row).map(tag).collect()
    };
    Ok(of.rows.iter().zip(classes).map(row).collect())
}
