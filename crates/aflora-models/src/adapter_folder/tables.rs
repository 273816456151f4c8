//! The model's own weights as a folder sees them: which of them are one, and how many words there
//! are.

use super::names::{BASE, ROOT};
use crate::backbone::{Backbone, Tied};
use crate::heads::Head;
use crate::weights::Checkpoint;
use crate::Result;
use aflora_core::nn::{in_module, VarStore};
use tch::Tensor;

/// A model's weights, and which of them are one.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub vs: &'a VarStore,
    /// The model, where it is one of ours.
    pub backbone: Option<&'a dyn Backbone>,
    /// The modules that the file holds whole, apart from what shares their weights in the model.
    pub apart: &'a [String],
}

impl Tables<'_> {
    fn tied(&self) -> &[Tied] {
        self.backbone.map_or(&[], |backbone| backbone.about().tied)
    }

    /// Gives the model as many words as the folder has, where these are others: what is new is zero
    /// until it is loaded. Gives what does not fit.
    ///
    /// PEFT leaves it to its user to call `resize_token_embeddings` before.
    ///
    /// # Errors
    /// The machine has not the memory.
    pub fn take_words(&self, file: &Checkpoint) -> Result<Vec<String>> {
        let Some(backbone) = self.backbone else { return Ok(Vec::new()) };
        let (table, words) = backbone.frame().words();
        let known = backbone.vocab_size();
        let count = shape_of(file, table).and_then(|shape| shape.first().copied());
        let Some(count) = count.filter(|&count| count != known) else { return Ok(Vec::new()) };
        let variables = self.vs.variables();
        // All that has a row for each word.
        let mut names = vec![table.to_string()];
        let tied = self.tied().iter().flat_map(|(_, others)| others.iter());
        names.extend(tied.map(|other| other.to_string()));
        if backbone.about().head == Head::Language {
            let heads = backbone.further_linears();
            let heads = heads.iter().filter(|layer| layer.site.out_features == known);
            for layer in heads {
                names.extend(["weight", "bias"].map(|own| format!("{}.{own}", layer.site.name)));
            }
        }
        names.sort_unstable();
        names.dedup();
        names.retain(|name| variables.contains_key(name) || self.is_parted(name));
        let mut problems = Vec::new();
        for name in &names {
            let mut shape = variables.get(name).unwrap_or(words).size();
            shape[0] = count;
            if count < 1 || shape_of(file, name) != Some(shape.as_slice()) {
                problems.push(format!(
                    "`{table}` has {count} words there, which asks for `{name}` of shape {shape:?}"
                ));
            }
        }
        if let Some(writer) = backbone.text_generator() {
            let tokens = writer.tokens();
            let further = [tokens.pad, tokens.decoder_start, tokens.forced_bos, tokens.forced_eos];
            let mut tokens = tokens.eos.iter().chain(further.iter().flatten());
            if let Some(token) = tokens.find(|&&token| token >= count) {
                problems
                    .push(format!("`{table}` has {count} words there, the model needs {token}"));
            }
        }
        if !problems.is_empty() {
            return Ok(problems);
        }
        for weight in names.iter().filter_map(|name| variables.get(name)) {
            resize(weight, 0, count)?;
        }
        // transformers has zeros for the new words there.
        for name in backbone.about().optional {
            let fits = |weight: &&Tensor| weight.size().last() == Some(&known);
            if let Some(weight) = variables.get(*name).filter(fits) {
                resize(weight, weight.dim() as i64 - 1, count)?;
            }
        }
        Ok(problems)
    }

    /// The modules that have a row for each word, and that the file has whole under their own names:
    /// PEFT saves them where the vocabulary is another, or where it is told to.
    pub fn saved_words(&self, file: &Checkpoint) -> Vec<String> {
        let Some(backbone) = self.backbone else { return Vec::new() };
        let tied = self.tied().iter().flat_map(|(_, others)| others.iter());
        let mut modules: Vec<String> = std::iter::once(backbone.frame().words().0)
            .chain(tied.copied())
            .map(|name| name.trim_end_matches(".weight").to_string())
            .collect();
        if backbone.about().head == Head::Language {
            let heads = backbone.further_linears();
            let heads = heads.iter().filter(|l| l.site.out_features == backbone.vocab_size());
            modules.extend(heads.map(|layer| layer.site.name.clone()));
        }
        modules.sort_unstable();
        modules.dedup();
        modules.retain(|module| has(file, &format!("{module}.weight")));
        modules
    }

    /// Gives further names a place of their own that the file has values of, or an adapter for, by
    /// `sites`; and those of what it holds apart, which stay what the base model has. Gives the
    /// modules of these.
    pub fn part(&self, file: &Checkpoint, sites: &[String]) -> Vec<String> {
        let Some(backbone) = self.backbone else { return Vec::new() };
        let mut parted = Vec::new();
        for other in self.tied().iter().flat_map(|(_, others)| others.iter()) {
            let module = other.trim_end_matches(".weight");
            let adapted = sites.iter().any(|site| module == site);
            if adapted || has(file, other) || self.is_parted(other) {
                if let (Some(mut own), Some(one)) = (backbone.untie(other), self.one_of(other)) {
                    tch::no_grad(|| own.copy_(&one));
                }
            }
            if self.is_parted(other) {
                parted.push(module.to_string());
            }
        }
        parted
    }

    /// Whether `name` is a further name of a weight that the file holds apart.
    fn is_parted(&self, name: &str) -> bool {
        let mut tied = self.tied().iter().filter(|(_, others)| others.contains(&name));
        tied.any(|(one, _)| self.apart.iter().any(|module| in_module(one, module)))
    }

    /// The weight that `other` is a further name of.
    fn one_of(&self, other: &str) -> Option<Tensor> {
        let (one, _) = self.tied().iter().find(|(_, others)| others.contains(&other))?;
        self.vs.variables().remove(*one)
    }

    /// The weight that a module has now, its own or one that it shares.
    pub fn now(&self, module: &str) -> Option<Tensor> {
        let name = format!("{module}.weight");
        self.vs.variables().remove(&name).or_else(|| self.one_of(&name))
    }

    /// The weight of a module: of its `own`, if that is asked for, else the one that it shares with
    /// others. Before it, its name, and those that no longer share it.
    pub fn table(&self, module: &str, own: bool) -> Result<Option<(Vec<String>, Tensor)>> {
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
            if other.starts_with("lm_head") && backbone.about().head != Head::Language {
                continue;
            }
            if !variables.contains_key(other) {
                let Some(mut place) = backbone.untie(other) else { return Ok(None) };
                tch::no_grad(|| place.f_copy_(&shared))?;
            }
            if other != name {
                names.push(other.to_string());
            }
        }
        Ok(self.vs.variables().remove(&name).map(|table| (names, table)))
    }
}

/// Whether the file has the model's weight `name` under its own name.
fn has(file: &Checkpoint, name: &str) -> bool {
    file.shape(&format!("{ROOT}{name}")).is_some()
}

/// The shape of the model's weight `name` in the file, under its own name or beside an adapter.
fn shape_of<'a>(file: &'a Checkpoint, name: &str) -> Option<&'a [i64]> {
    let (module, own) = name.rsplit_once('.')?;
    [".", BASE, ".token_adapter.base_layer."]
        .iter()
        .find_map(|between| file.shape(&format!("{ROOT}{module}{between}{own}")))
}

/// Gives `weight` `count` rows in the dimension `dim`, wherever it is held: the first that it had, and
/// zeros.
fn resize(weight: &Tensor, dim: i64, count: i64) -> Result<()> {
    let mut size = weight.size();
    let common = size[dim as usize].min(count);
    size[dim as usize] = count;
    let resized = Tensor::f_zeros(&size, (weight.kind(), weight.device()))?;
    tch::no_grad(|| {
        resized.f_narrow(dim, 0, common)?.f_copy_(&weight.f_narrow(dim, 0, common)?)?;
        Ok(weight.shallow_clone().f_set_data(&resized)?)
    })
}
