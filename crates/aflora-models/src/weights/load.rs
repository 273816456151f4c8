//! Loading: which tensor of the file is which weight of the model, and what to say where the two
//! do not agree.

use super::head::Rows;
use super::names::Names;
use super::{in_module, sound, Checkpoint};
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::error::Lines;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// What loading did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// How many tensors were loaded.
    pub loaded: usize,
    /// Tensors of the head that the file has not, or has for other labels: they keep their random
    /// start.
    pub new: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unused: Vec<String>,
    /// What is odd: where config.json and the weights contradict each other, and weights that are
    /// no numbers. Each was logged as a warning, too.
    pub warnings: Vec<String>,
}

/// Loads `path`, a file or a model's folder, into `backbone`. Nothing changes unless everything
/// fits. A head that the file has is taken as it stands if its shape fits.
///
/// # Errors
/// A file is damaged, or a tensor of the model (other than its head's) is missing from it or
/// has another shape there. All of them are named.
pub fn load(backbone: &dyn Backbone, path: &Path) -> Result<LoadReport> {
    load_with(backbone, path, None)
}

/// [`load`] for a task with these classes, each by the names that it goes by, in the order of the
/// model's logits; with none, for a score. A head that the file has, with names in the config.json
/// beside it, is put into that order by name; one for other classes is left out, and new.
///
/// # Errors
/// As [`load`].
pub fn load_for(backbone: &dyn Backbone, path: &Path, classes: &[&[&str]]) -> Result<LoadReport> {
    load_with(backbone, path, Some(classes))
}

fn load_with(
    backbone: &dyn Backbone,
    path: &Path,
    classes: Option<&[&[&str]]>,
) -> Result<LoadReport> {
    let checkpoint = Checkpoint::open(path)?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let config = ConfigFile::open(&folder.join("config.json")).ok();
    let variables: BTreeMap<String, Tensor> =
        backbone.var_store().variables().into_iter().collect();
    let mut names = Names::new(&checkpoint, backbone.about().prefix);
    let mut report = LoadReport {
        files: checkpoint.files().map(Path::to_path_buf).collect(),
        ..Default::default()
    };
    let head = Rows::of_head(
        backbone.about().class_rows,
        config.as_ref(),
        classes.unwrap_or(&[]),
        &mut report.warnings,
    );

    let (mut problems, mut missing) = (Vec::new(), 0);
    let (mut loads, mut zeros, mut apart) = (Vec::new(), Vec::new(), Vec::new());
    for (name, variable) in &variables {
        let mut found = names.take(name);
        let tied = backbone.about().tied.iter().find(|(tied, _)| tied == name);
        for other in tied.iter().flat_map(|(_, others)| others.iter()) {
            match (found, names.take(other)) {
                (Some(one), Some(copy)) if !checkpoint.same(one, copy)? => {
                    problems.extend(checkpoint.misfit(copy, &variable.size()));
                    apart.push((*other, copy, name));
                }
                (one, copy) => found = one.or(copy),
            }
        }
        let may_be_new = backbone.about().new_modules.iter().any(|module| in_module(name, module));
        match found {
            None if names.unread(name).is_some() => {
                problems.push(checkpoint.missing(names.unread(name).unwrap_or(name)));
            }
            None if may_be_new => report.new.push(name.clone()),
            None if backbone.about().optional.contains(&name.as_str()) => zeros.push(variable),
            None => {
                missing += 1;
                problems.push(checkpoint.missing(name));
            }
            Some(_) if may_be_new && head.is_new(name) => report.new.push(name.clone()),
            // A head for another number of labels is no head for this task.
            Some(stored) if may_be_new && checkpoint.shape(stored) != variable.size() => {
                if classes.is_some() {
                    report.warnings.push(format!(
                        "`{stored}` of the weights has shape {:?}, the task's head {:?}: it starts \
                         anew",
                        checkpoint.shape(stored),
                        variable.size()
                    ));
                }
                report.new.push(name.clone());
            }
            Some(stored) => match checkpoint.misfit(stored, &variable.size()) {
                Some(misfit) => problems.push(misfit),
                None => loads.push((name.clone(), variable.shallow_clone(), stored)),
            },
        }
    }
    if !problems.is_empty() {
        if missing > loads.len() {
            problems.insert(0, names.has());
        }
        return Err(Error::Weights { path: path.to_path_buf(), problems: Lines(problems) });
    }
    for (other, stored, name) in apart {
        let Some(own) = backbone.untie(other) else {
            let problem = format!(
                "`{stored}` and `{name}` have other values there, but are one table here: \
                 reading two is not built"
            );
            return Err(Error::Weights { path: path.into(), problems: Lines(vec![problem]) });
        };
        loads.push((other.to_string(), own, stored));
        // Where they are said to be two, nothing is odd.
        let said = config.as_ref().and_then(|config| config.keys().get("tie_word_embeddings"));
        if said.is_some_and(|tied| tied == false) {
            continue;
        }
        report.warnings.push(format!(
            "`{stored}` and `{name}` have other values in the weights, but `tie_word_embeddings` in \
             config.json makes them one: they are kept apart, as in transformers"
        ));
    }
    report.loaded = loads.len();
    report.unused = names.left();
    let known: Vec<&str> = variables.keys().map(String::as_str).collect();
    report.warnings.extend(names.beyond(&known, backbone, config.as_ref()));
    tch::no_grad(|| {
        for variable in zeros {
            let _ = variable.shallow_clone().f_zero_()?;
        }
        for (name, variable, stored) in &mut loads {
            checkpoint.copy_to(stored, variable)?;
            head.reorder(name, variable)?;
        }
        report.warnings.extend(sound::unsound(&loads)?);
        Ok::<_, Error>(())
    })?;
    for warning in &report.warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
    Ok(report)
}
