//! Which tensor of a checkpoint is which weight of the model, by names and shapes, and what to say
//! where the two do not agree.

use super::head::ClassRows;
use super::names::UnclaimedTensors;
use super::Checkpoint;
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::error::Listing;
use crate::{model_file, Error, Result};
use aflora_core::nn::in_module;
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// What is to be done to load a checkpoint: everything in it fits.
pub(super) struct LoadPlan<'a> {
    /// Weights to load: their names, the weights, and the names of their tensors in the file.
    pub loads: Vec<(String, Tensor, &'a str)>,
    /// Weights that the file leaves out, and that are zero then.
    pub zeros: Vec<Tensor>,
    /// The order of the head's rows.
    pub head: ClassRows,
    /// Tensors of the head that the file has not, or has for other labels.
    pub new: Vec<String>,
    /// The modules of [`About::may_lack`](crate::About::may_lack) that the file has nothing of.
    pub lacked: Vec<&'static str>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
    /// Where config.json and the weights contradict each other.
    pub warnings: Vec<String>,
}

impl<'a> LoadPlan<'a> {
    /// The plan for `checkpoint`, which was opened at `path`. The values of two tensors are looked
    /// at in one case alone: where the model has one weight for both. If they differ, the model is
    /// given the second ([`Backbone::untie`]).
    ///
    /// # Errors
    /// A tensor of the model (other than its head's) is missing, or has another shape. All of them
    /// are named.
    pub(super) fn new(
        backbone: &dyn Backbone,
        checkpoint: &'a Checkpoint,
        path: &Path,
        classes: Option<&[&[&str]]>,
    ) -> Result<Self> {
        let config = ConfigFile::open(&model_file::folder_of(path).join("config.json")).ok();
        let variables: BTreeMap<String, Tensor> =
            backbone.var_store().variables().into_iter().collect();
        let mut names = UnclaimedTensors::new(checkpoint, backbone.about().prefix);
        let (mut new, mut warnings) = (Vec::new(), Vec::new());
        let mut lacked = backbone.about().may_lack.to_vec();
        lacked.retain(|module| {
            !variables.keys().any(|name| in_module(name, module) && names.has(name))
        });
        let untied = config.as_ref().and_then(|config| config.keys().get("tie_word_embeddings"));
        let untied = untied.is_some_and(|tied| tied == false);
        let head = ClassRows::of_head(
            backbone.about().class_rows,
            config.as_ref(),
            classes.unwrap_or(&[]),
            &mut warnings,
        );

        let (mut problems, mut missing) = (Vec::new(), 0);
        let (mut loads, mut zeros, mut apart) = (Vec::new(), Vec::new(), Vec::new());
        let mut lent = Vec::new();
        for (name, variable) in &variables {
            let mut found = names.take(name);
            let tied = backbone.about().tied.iter().find(|(tied, _)| tied == name);
            for other in tied.iter().flat_map(|(_, others)| others.iter()) {
                match (found, names.take(other)) {
                    (Some(one), Some(copy)) if !checkpoint.same(one, copy)? => {
                        problems.extend(checkpoint.misfit(copy, &variable.size()));
                        apart.push((*other, copy, name));
                    }
                    (Some(one), None)
                        if untied && !backbone.about().always_tied.contains(other) =>
                    {
                        found = Some(one);
                        lent.push((*other, name));
                    }
                    (one, copy) => found = one.or(copy),
                }
            }
            // What is found stands in the file.
            let shape = |stored: &str| checkpoint.shape(stored).unwrap_or(&[]);
            let may_be_new =
                backbone.about().new_modules.iter().any(|module| in_module(name, module));
            match found {
                None if names.unread(name).is_some() => {
                    problems.push(checkpoint.missing(names.unread(name).unwrap_or(name)));
                }
                None if may_be_new || lacked.iter().any(|module| in_module(name, module)) => {
                    new.push(name.clone());
                }
                None if backbone.about().optional.contains(&name.as_str()) => {
                    zeros.push(variable.shallow_clone());
                }
                None => {
                    missing += 1;
                    problems.push(checkpoint.missing(name));
                }
                Some(_) if may_be_new && head.is_new(name) => new.push(name.clone()),
                // A head for another number of labels is no head for this task.
                Some(stored) if may_be_new && shape(stored) != variable.size() => {
                    if classes.is_some() {
                        warnings.push(format!(
                            "`{stored}` of the weights has shape {:?}, the task's head {:?}: it \
                             starts anew",
                            shape(stored),
                            variable.size()
                        ));
                    }
                    new.push(name.clone());
                }
                Some(stored) => match checkpoint.misfit(stored, &variable.size()) {
                    Some(misfit) => problems.push(misfit),
                    None => loads.push((name.clone(), variable.shallow_clone(), stored)),
                },
            }
        }
        if !problems.is_empty() {
            if missing > loads.len() {
                problems.insert(0, names.told());
            }
            return Err(Error::Weights { path: path.to_path_buf(), problems: Listing(problems) });
        }
        for (other, stored, name) in apart {
            let Some(own) = backbone.untie(other) else {
                let problem = format!(
                    "`{stored}` and `{name}` have other values there, but are one table here: \
                     reading two is not built"
                );
                return Err(Error::Weights { path: path.into(), problems: Listing(vec![problem]) });
            };
            loads.push((other.to_string(), own, stored));
            // Where they are said to be two, nothing is odd.
            if untied {
                continue;
            }
            warnings.push(format!(
                "`{stored}` and `{name}` have other values in the weights, but \
                 `tie_word_embeddings` in config.json makes them one: they are kept apart, as in \
                 transformers"
            ));
        }
        warnings.extend(lent.into_iter().map(|(other, name)| {
            format!(
                "the weights have no `{other}`, though `tie_word_embeddings` in config.json is \
                 false: `{name}` stands in for it"
            )
        }));
        let known: Vec<&str> = variables.keys().map(String::as_str).collect();
        warnings.extend(names.beyond(&known, backbone, config.as_ref()));
        Ok(LoadPlan { loads, zeros, head, new, lacked, unused: names.left(), warnings })
    }
}
