//! What a folder of PEFT's changes of the base model's own weights, beside the modules that it holds
//! whole: the weights of layers that have an adapter, what embeddings learned, and words.
//!
//! No embedding has a slot for an adapter. What one learned is written into its table, which is saved
//! whole from then on.

use super::allowed;
use super::names::ROOT;
use super::pairs::Scales;
use crate::backbone::{Backbone, Tied};
use crate::heads::Head;
use crate::weights::Checkpoint;
use crate::Result;
use aflora_core::nn::VarStore;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

const BASE_WEIGHT: &str = ".base_layer.weight";
const DOWN: &str = ".lora_embedding_A";
const UP: &str = ".lora_embedding_B";
const WORDS: &str = ".token_adapter.trainable_tokens_delta";
const INDICES: &str = "trainable_token_indices";

/// A change of a module's weight.
#[derive(Debug)]
enum Change {
    /// Another one stands for it.
    Base,
    /// s · (B A)ᵀ is added, A `[rank, words]`, B `[features, rank]`.
    Path(f64),
    /// These rows are others.
    Rows(Vec<i64>),
}

/// The changes, by the names of their modules.
#[derive(Debug, Default)]
pub(super) struct Beside {
    changes: Vec<(String, Change)>,
    /// Tensors that the file holds a second time.
    copies: BTreeSet<String>,
}

impl Beside {
    /// What the folder has that `keys` describe, with the scales of its method, if it has any.
    ///
    /// # Errors
    /// The configuration says something else than the file.
    pub fn of(
        keys: &Map<String, Value>,
        file: &Checkpoint,
        scales: Option<&Scales>,
    ) -> std::result::Result<Beside, String> {
        let names: BTreeSet<&str> = file.shapes().map(|(name, _)| name).collect();
        let (mut changes, mut copies) = (Vec::new(), BTreeSet::new());
        for (name, shape) in file.shapes() {
            let Some(own) = name.strip_prefix(ROOT) else { continue };
            let length = shape.first().copied().unwrap_or(0);
            if let Some(module) = own.strip_suffix(BASE_WEIGHT) {
                changes.push((module.to_string(), Change::Base));
            } else if let (Some(module), Some(scales)) = (own.strip_suffix(DOWN), scales) {
                let scale = scales.at(module, length)?.scale;
                changes.push((module.to_string(), Change::Path(scale)));
            } else if let Some(module) = own.strip_suffix(WORDS) {
                let rows = rows(keys, module)?;
                if rows.len() as i64 != length {
                    let words = rows.len();
                    return Err(format!("`{INDICES}` names {words} words, `{name}` has {length}"));
                }
                changes.push((module.to_string(), Change::Rows(rows)));
            }
            // With `bias: all`, PEFT writes the bias of a whole module down three times.
            for copy in [".original_module.", ".modules_to_save."] {
                if name.contains(copy) && names.contains(name.replacen(copy, ".", 1).as_str()) {
                    copies.insert(name.to_string());
                }
            }
        }
        let on = !allowed::is_off(keys.get(INDICES).unwrap_or(&Value::Null));
        if on && !changes.iter().any(|(_, change)| matches!(change, Change::Rows(_))) {
            return Err(format!("`{INDICES}` is on, but the file has no words"));
        }
        // A path goes on what stands there.
        changes.sort_by_key(|(_, change)| !matches!(change, Change::Base));
        Ok(Beside { changes, copies })
    }

    /// Whether the file's tensor `name` is one of these.
    pub fn has(&self, name: &str) -> bool {
        let Some(own) = name.strip_prefix(ROOT) else { return false };
        let ends = |change: &Change| match change {
            Change::Base => &[BASE_WEIGHT][..],
            Change::Path(_) => &[DOWN, UP],
            Change::Rows(_) => &[WORDS],
        };
        let mut changes = self.changes.iter();
        self.copies.contains(name)
            || changes.any(|(module, change)| {
                own.strip_prefix(module.as_str()).is_some_and(|end| ends(change).contains(&end))
            })
    }

    /// Makes the changes in a model, whose weights are loaded; gives the modules that are no longer
    /// the base model's, or what does not fit.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn apply(
        &self,
        file: &Checkpoint,
        model: Tables<'_>,
    ) -> Result<std::result::Result<Vec<String>, Vec<String>>> {
        let (mut problems, mut changed) = (Vec::new(), Vec::new());
        for (module, change) in &self.changes {
            let own_table = !matches!(change, Change::Rows(_));
            let Some((names, mut table)) = model.table(module, own_table)? else {
                problems.push(format!("the model has no weight of its own for `{module}`"));
                continue;
            };
            let found = problems.len();
            let mut read = |end: &str, shape: &[i64]| -> Result<Option<Tensor>> {
                let name = format!("{ROOT}{module}{end}");
                if !file.shapes().any(|(found, _)| found == name) {
                    problems.push(format!("`{name}` is missing from it"));
                    return Ok(None);
                }
                if let Some(misfit) = file.misfit(&name, shape) {
                    problems.push(misfit);
                    return Ok(None);
                }
                let mut tensor = Tensor::zeros(shape, (Kind::Float, table.device()));
                file.copy_to(&name, &mut tensor)?;
                Ok(Some(tensor))
            };
            let size = table.size();
            let [words, features] = size[..] else {
                problems.push(format!("`{module}` is no table of the model"));
                continue;
            };
            let wanted = match change {
                Change::Base => read(BASE_WEIGHT, &size)?,
                Change::Path(scale) => {
                    let rank = self.rank(file, module);
                    let (down, up) = (read(DOWN, &[rank, words])?, read(UP, &[features, rank])?);
                    let pair = down.zip(up);
                    pair.map(|(down, up)| {
                        table.to_kind(Kind::Float) + up.matmul(&down).tr() * *scale
                    })
                }
                Change::Rows(rows) => {
                    let beyond = rows.iter().find(|&&row| row < 0 || row >= words);
                    match (beyond, read(WORDS, &[rows.len() as i64, features])?) {
                        (None, Some(new)) => {
                            let rows = Tensor::from_slice(rows).to_device(table.device());
                            Some(table.to_kind(Kind::Float).index_copy(0, &rows, &new))
                        }
                        _ => None,
                    }
                }
            };
            match wanted {
                // Not into the table: another model's may be the same.
                Some(wanted) => {
                    tch::no_grad(|| table.f_set_data(&wanted.to_kind(table.kind())))?;
                }
                None if problems.len() > found => continue,
                None => {
                    problems
                        .push(format!("`{INDICES}` goes beyond the {words} words of `{module}`"));
                    continue;
                }
            };
            let modules = names.iter().map(|name| name.trim_end_matches(".weight"));
            for module in modules {
                if !changed.iter().any(|changed| changed == module) {
                    changed.push(module.to_string());
                }
            }
        }
        match problems.is_empty() {
            true => Ok(Ok(changed)),
            false => Ok(Err(problems)),
        }
    }

    fn rank(&self, file: &Checkpoint, module: &str) -> i64 {
        let name = format!("{ROOT}{module}{DOWN}");
        let found = file.shapes().find(|(found, _)| *found == name);
        found.and_then(|(_, shape)| shape.first().copied()).unwrap_or(0)
    }
}

/// A model's weights, and which of them are one.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub vs: &'a VarStore,
    /// The model, where it is one of ours.
    pub backbone: Option<&'a dyn Backbone>,
}

impl Tables<'_> {
    fn tied(&self) -> &[Tied] {
        self.backbone.map_or(&[], |backbone| backbone.about().tied)
    }

    /// Gives further names that the file has values of a place of their own: PEFT holds the modules
    /// that it saves apart.
    pub fn part(&self, file: &Checkpoint) {
        let Some(backbone) = self.backbone else { return };
        for other in self.tied().iter().flat_map(|(_, others)| others.iter()) {
            let name = format!("{ROOT}{other}");
            if file.shapes().any(|(found, _)| found == name) {
                if let (Some(mut own), Some(one)) = (backbone.untie(other), self.one_of(other)) {
                    tch::no_grad(|| own.copy_(&one));
                }
            }
        }
    }

    /// The weight that `other` is a further name of.
    fn one_of(&self, other: &str) -> Option<Tensor> {
        let (one, _) = self.tied().iter().find(|(_, others)| others.contains(&other))?;
        self.vs.variables().remove(*one)
    }

    /// The weight of a module: of its `own`, if that is asked for, else the one that it shares with
    /// others. Before it, its name, and those that no longer share it.
    fn table(&self, module: &str, own: bool) -> Result<Option<(Vec<String>, Tensor)>> {
        let name = format!("{module}.weight");
        let tied =
            self.tied().iter().find(|(one, others)| *one == name || others.contains(&&*name));
        let mut variables = self.vs.variables();
        let (Some((one, others)), Some(backbone)) = (tied, self.backbone) else {
            return Ok(variables.remove(&name).map(|table| (vec![name], table)));
        };
        if !own {
            return Ok(variables.remove(*one).map(|table| (vec![one.to_string()], table)));
        }
        let Some(shared) = variables.remove(*one) else { return Ok(None) };
        // All that share it but this one get a place of their own, or this one does.
        let apart: Vec<&str> =
            others.iter().copied().filter(|o| *one == name || *o == name).collect();
        let mut names = vec![name.clone()];
        for other in apart {
            // A head for labels does not read words.
            let unread = other.starts_with("lm_head") && backbone.about().head != Head::Language;
            if unread || variables.contains_key(other) {
                continue;
            }
            let Some(mut place) = backbone.untie(other) else { return Ok(None) };
            tch::no_grad(|| place.f_copy_(&shared))?;
            names.push(other.to_string());
        }
        Ok(self.vs.variables().remove(&name).map(|table| (names, table)))
    }
}

/// The numbers of the words that `module` has rows of: one list for the input's embedding, or lists
/// by modules.
fn rows(keys: &Map<String, Value>, module: &str) -> std::result::Result<Vec<i64>, String> {
    let list = match keys.get(INDICES) {
        Some(Value::Object(by_module)) => {
            let mut lists = by_module.iter();
            lists
                .find(|(name, _)| module == *name || module.ends_with(&format!(".{name}")))
                .map(|l| l.1)
        }
        list => list,
    };
    let rows = list.and_then(Value::as_array).map(|list| list.iter().map(Value::as_i64).collect());
    match rows {
        Some(Some(rows)) => Ok(rows),
        _ => Err(format!("`{INDICES}` does not say which words the rows of `{module}` are")),
    }
}
