//! What a kind of task tells of itself, and what works for it with a model.

use crate::feed::row::Row;
use crate::feed::Source;
use crate::metrics::{Answer, Sort};
use crate::run::objective::Objective;
use crate::run::passes::Passes;
use crate::task::{Example, TaskSpec};
use crate::ui::Progress;
use aflora_models::merged::OutputKind;
use aflora_models::{AdaptedModel, Backbone, Head, ModelSource};
use anyhow::Result;
use serde_json::Value;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use tch::Device;

/// A kind of task.
pub trait TaskKind: Debug + Sync {
    /// What it asks for, in words: "asks for labels".
    fn asks_for(&self) -> &'static str;

    /// The keys of a task's file that mean something to it, beside those that every task has.
    fn keys(&self) -> &'static [&'static str];

    /// Tells what is wrong with the values of those: each key, and the words for it.
    fn check(&self, task: &TaskSpec, tell: &mut dyn FnMut(&str, String));

    /// What the columns of a source may be for, beside what is right: one of these lists.
    fn inputs(&self) -> &'static [&'static [&'static str]];

    /// What the column with what is right is for; none of a kind that has no such column, or
    /// [several](Self::further).
    fn target(&self, task: &TaskSpec) -> Option<&'static str>;

    /// What further columns may be for; one that a source does not name is called as what it is for.
    fn further<'a>(&self, _task: &'a TaskSpec) -> Vec<&'a str> {
        Vec::new()
    }

    /// What the column `name` of a row gives to an example's texts; none where the row has no such
    /// column.
    ///
    /// # Errors
    /// There is a value, but none that this kind reads.
    fn input(&self, row: &Row, name: &str) -> std::result::Result<Option<Vec<String>>, String> {
        Ok(row.find(name)?.map(|text| vec![text]))
    }

    /// The texts of a row, where they are made of it as a whole and its columns are called as `source`
    /// says; none of a row that lacks them, or a kind whose every text is a column.
    ///
    /// # Errors
    /// They are there, and not as this kind reads them.
    fn whole(
        &self,
        _row: &Row,
        _source: &Source,
    ) -> std::result::Result<Option<Vec<String>>, String> {
        Ok(None)
    }

    /// Whether the parts of an example go together.
    ///
    /// # Errors
    /// They do not.
    fn check_example(&self, _example: &Example) -> std::result::Result<(), String> {
        Ok(())
    }

    /// What is right for a row of `source`.
    ///
    /// # Errors
    /// The row lacks it, or it is none of the task's answers.
    fn right(
        &self,
        task: &TaskSpec,
        row: &Row,
        source: &Source,
    ) -> std::result::Result<Answer, String>;

    /// What suits most tasks of this kind with these labels, where keys for rows of one's own name all
    /// that is said of one.
    fn usual(&self, labels: &[String]) -> Usual;

    /// What a message calls the one answer of `right` where all training rows have that alone, so
    /// that there is nothing to learn; none of an answer from which something can be learned by
    /// itself.
    fn only_answer(&self, _task: &TaskSpec, _right: &Answer) -> Option<String> {
        None
    }

    /// Whether what is behind the maximum length of a row is cut off; else it is learned in pieces.
    fn cuts_long_rows(&self) -> bool {
        true
    }

    /// What it answers with, for the metrics.
    fn answers(&self) -> Sort;

    /// What a model for it answers with.
    fn head(&self, task: &TaskSpec) -> Head;

    /// What a merged model says of its answers.
    fn output<'a>(&self, task: &'a TaskSpec) -> OutputKind<'a>;

    /// What predictions call the values of a [`Prediction`], and what they call them in rows that
    /// have a column of such a name.
    fn names(&self, task: &TaskSpec) -> [&'static [&'static str]; 2];

    /// What works for a task of this kind with a model.
    ///
    /// # Errors
    /// The model's tokenizer is missing or damaged, or the model does not do what the task asks for.
    fn processor(&self, with: &ModelContext<'_>) -> Result<Box<dyn Processor>>;
}

/// What suits most tasks of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Usual {
    /// The model; none where none that comes with the project does such tasks.
    pub model: Option<&'static str>,
    /// The metrics, by their names.
    pub metrics: &'static [&'static str],
    /// Settings of a run: keys, and values as YAML has them.
    pub run: &'static [(&'static str, f64)],
}

impl Usual {
    /// Of a kind that gives texts labels, by an encoder.
    pub const fn of_labels(metrics: &'static [&'static str]) -> Usual {
        let run = &[("epochs", 5.0), ("batch_size", 32.0), ("lr", 4e-3), ("head_lr", 2e-3)];
        Usual { model: Some("minilm"), metrics, run }
    }

    /// Of a kind that learns texts, by a decoder.
    pub const fn of_texts(metrics: &'static [&'static str]) -> Usual {
        const RUN: &[(&str, f64)] = &[
            ("epochs", 4.0),
            ("batch_size", 32.0),
            ("lr", 5e-3),
            ("weight_decay", 0.0),
            ("max_grad_norm", 1.0),
        ];
        Usual { model: None, metrics, run: RUN }
    }
}

/// A task and the model that is to do it.
#[derive(Debug, Clone, Copy)]
pub struct ModelContext<'a> {
    /// The task.
    pub task: &'a Arc<TaskSpec>,
    /// Where the model's files are.
    pub source: ModelSource<'a>,
    /// The model, which may have shapes alone.
    pub backbone: &'a dyn Backbone,
    /// The most tokens of a text: longer ones are cut.
    pub max_length: usize,
    /// The device on which the model computes.
    pub device: Device,
}

/// What makes tokens of rows, and answers of what a model gives for them.
pub trait Processor: Debug {
    /// The largest token id plus one.
    fn vocab_size(&self) -> i64;

    /// The rows of a task, encoded; they are given back from `cache` where an earlier run left them
    /// there.
    ///
    /// # Errors
    /// A row cannot be encoded, or none is left to learn from.
    fn objective(
        self: Box<Self>,
        rows: Splits,
        passes: &Passes,
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Box<dyn Objective>>;

    /// What `model` answers to these rows' texts, in their order, so many at once as `passes` says.
    ///
    /// # Errors
    /// A text cannot be encoded, the model fails, or a [signal](crate::interrupt) came meanwhile.
    fn predict(
        &self,
        model: &AdaptedModel,
        rows: &[&[String]],
        passes: &Passes,
    ) -> Result<Vec<Prediction>>;
}

/// The examples of a run.
#[derive(Debug)]
pub struct Splits {
    /// Those to learn from.
    pub train: Vec<Example>,
    /// Those of the evaluation splits, by name; one at least.
    pub evals: Vec<(String, Vec<Example>)>,
    /// Those of the split that is judged at the end, if there is one.
    pub test: Option<(String, Vec<Example>)>,
}

/// An answer to one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// What is shown of it, a value for each of the kind's [names](TaskKind::names).
    pub values: Vec<Value>,
    /// Whether the row's text was cut.
    pub cut: bool,
}
