//! What a folder of PEFT's changes of the base model's own weights, beside the modules that it holds
//! whole: the weights of layers that have an adapter, what embeddings learned, and words.
//!
//! No embedding has a slot for an adapter. What one learned is written into its table, which is saved
//! whole from then on. What is there without being another is no change.

use super::allowed;
use super::names::ROOT;
use super::pairs::Scales;
use super::tables::Tables;
use crate::weights::Checkpoint;
use crate::Result;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

const BASE_WEIGHT: &str = ".base_layer.weight";
const DOWN: &str = ".lora_embedding_A";
const UP: &str = ".lora_embedding_B";
const MAGNITUDE: &str = ".lora_magnitude_vector";
const WORDS: &str = ".token_adapter.trainable_tokens_delta";
/// Behind the name of an embedding of which words trained.
const OF_WORDS: &str = ".token_adapter";
const INDICES: &str = "trainable_token_indices";

/// A change of a module's weight.
#[derive(Debug)]
enum Change {
    /// Another one stands for it, in the tensor of this name.
    Base(String),
    /// s · (B A)ᵀ is added, A `[rank, words]`, B `[features, rank]`; then, with DoRA, each column is
    /// given the length that it has in m, `[features]`.
    Path { scale: f64, magnitude: bool },
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
                let module = module.strip_suffix(OF_WORDS).unwrap_or(module);
                changes.push((module.to_string(), Change::Base(name.to_string())));
            } else if let (Some(module), Some(scales)) = (own.strip_suffix(DOWN), scales) {
                let scale = scales.at(module, length)?.scale;
                let magnitude = names.contains(format!("{ROOT}{module}{MAGNITUDE}").as_str());
                if magnitude != scales.dora {
                    let there = if magnitude { "has" } else { "has no" };
                    return Err(format!("`{module}` {there} `{}` there", &MAGNITUDE[1..]));
                }
                changes.push((module.to_string(), Change::Path { scale, magnitude }));
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
        changes.sort_by_key(|(_, change)| !matches!(change, Change::Base(_)));
        Ok(Beside { changes, copies })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether the file's tensor `name` is one of these.
    pub fn has(&self, name: &str) -> bool {
        let Some(own) = name.strip_prefix(ROOT) else { return false };
        let ends = |change: &Change| match change {
            Change::Base(_) => &[][..],
            Change::Path { magnitude: false, .. } => &[DOWN, UP],
            Change::Path { magnitude: true, .. } => &[DOWN, UP, MAGNITUDE],
            Change::Rows(_) => &[WORDS],
        };
        let mut changes = self.changes.iter();
        self.copies.contains(name)
            || changes.any(|(module, change)| match change {
                Change::Base(base) => base == name,
                _ => own.strip_prefix(module.as_str()).is_some_and(|e| ends(change).contains(&e)),
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
            let none = || format!("the model has no weight of its own for `{module}`");
            let Some(now) = model.now(module) else {
                problems.push(none());
                continue;
            };
            let wanted = match change.of(&now, module, &Source(file))? {
                Ok(wanted) => wanted,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            if wanted.equal(&now.to_kind(Kind::Float)) {
                continue;
            }
            let Some((names, table)) = model.table(module, change.parts())? else {
                problems.push(none());
                continue;
            };
            // Not into the table: another model's may be the same.
            tch::no_grad(|| table.shallow_clone().f_set_data(&wanted.to_kind(table.kind())))?;
            for module in names.iter().map(|name| name.trim_end_matches(".weight")) {
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
}

/// What is read, or why it is not.
type Found<T> = std::result::Result<T, String>;

/// The folder's tensors.
struct Source<'a>(&'a Checkpoint);

impl Source<'_> {
    /// The tensor `name`, which is to be of this `shape`, in single precision.
    fn read(&self, name: &str, shape: &[i64], like: &Tensor) -> Result<Found<Tensor>> {
        if self.0.shape(name).is_none() {
            return Ok(Err(format!("`{name}` is missing from it")));
        }
        if let Some(misfit) = self.0.misfit(name, shape) {
            return Ok(Err(misfit));
        }
        let mut tensor = Tensor::f_zeros(shape, (Kind::Float, like.device()))?;
        self.0.copy_to(name, &mut tensor)?;
        Ok(Ok(tensor))
    }

    fn rows(&self, name: &str) -> i64 {
        self.0.shape(name).and_then(|shape| shape.first().copied()).unwrap_or(0)
    }
}

impl Change {
    /// Whether only the module itself is changed, and none that it shares its weight with.
    fn parts(&self) -> bool {
        match self {
            Change::Base(name) => !name.ends_with(&format!("{OF_WORDS}{BASE_WEIGHT}")),
            Change::Path { .. } => true,
            Change::Rows(_) => false,
        }
    }

    /// What is made of the weight of `module`, `table`; in single precision.
    fn of(&self, table: &Tensor, module: &str, source: &Source) -> Result<Found<Tensor>> {
        let size = table.size();
        if let Change::Base(name) = self {
            return source.read(name, &size, table);
        }
        let [words, features] = size[..] else {
            return Ok(Err(format!("`{module}` is no table of the model")));
        };
        let read =
            |end: &str, shape: &[i64]| source.read(&format!("{ROOT}{module}{end}"), shape, table);
        let whole = table.detach().to_kind(Kind::Float);
        Ok(match self {
            Change::Base(_) => Ok(whole),
            Change::Path { scale, magnitude } => {
                let rank = source.rows(&format!("{ROOT}{module}{DOWN}"));
                let (down, up) = (read(DOWN, &[rank, words])?, read(UP, &[features, rank])?);
                let sum = match (down, up) {
                    (Ok(down), Ok(up)) => whole + up.matmul(&down).tr() * *scale,
                    (Err(problem), _) | (_, Err(problem)) => return Ok(Err(problem)),
                };
                match magnitude {
                    false => Ok(sum),
                    true => read(MAGNITUDE, &[features])?.map(|magnitude| {
                        let lengths = sum.norm_scalaropt_dim(2.0, [0i64].as_slice(), true);
                        sum * (magnitude / lengths)
                    }),
                }
            }
            Change::Rows(rows) => {
                if rows.iter().any(|row| !(0..words).contains(row)) {
                    let problem =
                        format!("`{INDICES}` goes beyond the {words} words of `{module}`");
                    return Ok(Err(problem));
                }
                read(WORDS, &[rows.len() as i64, features])?.map(|new| {
                    let rows = Tensor::from_slice(rows).to_device(table.device());
                    whole.index_copy(0, &rows, &new)
                })
            }
        })
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
