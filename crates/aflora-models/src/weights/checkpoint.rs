//! A checkpoint in any form that it comes in: one file or shards, safetensors or PyTorch's own.
//!
//! Files are mapped into memory. A tensor is copied once, from the mapped file to its place in
//! the model, on whatever device that is.

use super::contents::{Contents, Layout, TensorEntry};
use super::{bitsandbytes, gguf_file, pickle, safetensors_file, view};
use crate::error::{cut, Listing};
use crate::mapped::Mapped;
use crate::{foreign_file, gguf};
use crate::{Error, Result};
use aflora_core::weight::{Coding, QuantisedWeight};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// What a model's folder may hold, the best first: a safetensors file is no program.
pub const FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<(PathBuf, Mapped)>,
    tensors: BTreeMap<String, (usize, TensorEntry)>,
    unread: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a file, or what a model's folder holds.
    ///
    /// # Errors
    /// There is no checkpoint, a shard is missing, or a file is damaged or holds more than
    /// tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() { &find(path)? } else { path };
        let mut checkpoint =
            Checkpoint { files: Vec::new(), tensors: BTreeMap::new(), unread: BTreeMap::new() };
        if path.extension().is_some_and(|e| e == "json") {
            checkpoint.add_shards(path)?;
        } else {
            let Contents { tensors, unread } = checkpoint.add_file(path)?;
            checkpoint.tensors =
                tensors.into_iter().map(|(name, entry)| (name, (0, entry))).collect();
            checkpoint.unread = unread;
        }
        let mut tensors = std::mem::take(&mut checkpoint.tensors);
        let unread = bitsandbytes::join(&mut tensors, &|entry| checkpoint.owned(entry))?;
        checkpoint.tensors = tensors;
        checkpoint.unread.extend(unread);
        Ok(checkpoint)
    }

    /// The files that it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The tensors' names with their shapes.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.tensors.iter().map(|(name, (_, entry))| (name.as_str(), entry.shape.as_slice()))
    }

    /// The shape of the tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// The kind of most of its numbers; of blocks, that of the numbers that they stand for.
    pub fn kind(&self) -> Kind {
        let mut numbers: Vec<(Kind, i64)> = Vec::new();
        for (_, entry) in self.tensors.values() {
            let count = entry.shape.iter().product();
            match numbers.iter_mut().find(|(kind, _)| *kind == entry.kind()) {
                Some((_, sum)) => *sum += count,
                None => numbers.push((entry.kind(), count)),
            }
        }
        numbers.into_iter().max_by_key(|(_, sum)| *sum).map_or(Kind::Float, |(kind, _)| kind)
    }

    /// What it holds beside its tensors, by name: what is of a type that is not read, and what is
    /// no tensor at all.
    pub fn unread(&self) -> impl Iterator<Item = (&str, &str)> {
        self.unread.iter().map(|(name, what)| (name.as_str(), what.as_str()))
    }

    /// Whether two tensors, which must be there, have the same numbers.
    pub(crate) fn same(&self, one: &str, other: &str) -> Result<bool> {
        let (one, other) = (&self.tensors[one], &self.tensors[other]);
        if one == other {
            return Ok(true);
        }
        if one.1.shape != other.1.shape {
            return Ok(false);
        }
        let [one, other] = [one, other].map(|entry| {
            let tensor = self.owned(entry)?;
            Ok::<_, Error>(if one.1.kind() == other.1.kind() {
                tensor
            } else {
                tensor.to_kind(Kind::Float)
            })
        });
        Ok(one?.equal(&other?))
    }

    /// What is wrong with the tensor `name`, which must be there, for a place of `wanted` shape.
    pub(crate) fn misfit(&self, name: &str, wanted: &[i64]) -> Option<String> {
        let entry = &self.tensors[name].1;
        let (shape, kind) = (&entry.shape, entry.kind());
        if shape != wanted {
            Some(format!("`{name}` has shape {shape:?} there, {wanted:?} in the model"))
        } else if !matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16 | Kind::Double) {
            Some(format!("`{name}` is of type {kind:?}; expected Double, Float, Half or BFloat16"))
        } else {
            None
        }
    }

    /// Copies the tensor `name` to `target`.
    ///
    /// # Errors
    /// It is not there, or `target` has another shape.
    pub fn copy(&self, name: &str, target: &mut Tensor) -> Result<()> {
        let wanted = target.size();
        let problem = match self.tensors.get(name) {
            None => self.missing(name),
            Some((_, TensorEntry { shape, .. })) if *shape != wanted => {
                format!("`{name}` has shape {shape:?} there, not {wanted:?}")
            }
            Some(_) => return self.copy_to(name, target),
        };
        let path = self.files().next().unwrap_or(Path::new("")).to_path_buf();
        Err(Error::Weights { path, problems: Listing(vec![problem]) })
    }

    /// Why the tensor `name` cannot be read.
    pub(crate) fn missing(&self, name: &str) -> String {
        match self.unread.get(name) {
            Some(what) => format!("`{name}` is {what} there"),
            None => format!("`{name}` is missing from it"),
        }
    }

    /// Copies the tensor `name`, which must be there and have no [`misfit`](Self::misfit), to
    /// `target`.
    pub(crate) fn copy_to(&self, name: &str, target: &mut Tensor) -> Result<()> {
        let (file, entry) = &self.tensors[name];
        if let Layout::Codes(_) = &entry.layout {
            target.f_copy_(&self.owned(&self.tensors[name])?)?;
            return Ok(());
        }
        let (path, bytes) = &self.files[*file];
        view::copy(path, bytes, entry, target)
    }

    /// The tensor `name`, which must be there, where it lies there as a weight in few bits, bitsandbytes'
    /// or GGUF's; on the host.
    ///
    /// # Errors
    /// libtorch refuses.
    pub(crate) fn few_bits(&self, name: &str) -> Result<Option<QuantisedWeight>> {
        let (file, entry) = &self.tensors[name];
        let (path, bytes) = &self.files[*file];
        match &entry.layout {
            Layout::Strided(..) => Ok(None),
            Layout::Codes(codes) => Ok(Some(codes.read(&|entry| self.owned(entry))?)),
            Layout::Blocks(_) => match view::blocks(path, bytes, entry)? {
                None => Ok(None),
                Some((format, blocks)) => {
                    let shape = [entry.shape[0], entry.shape[1]];
                    let blocks = blocks.f_view([-1])?;
                    Ok(Some(QuantisedWeight::new(blocks, Coding::Blocks(format), shape)?))
                }
            },
        }
    }

    /// The tensor at an entry of one of the files, in the kind that it has there.
    fn owned(&self, (file, entry): &(usize, TensorEntry)) -> Result<Tensor> {
        if let Layout::Codes(codes) = &entry.layout {
            return Ok(codes.read(&|entry| self.owned(entry))?.restore(Kind::Float));
        }
        let (path, bytes) = &self.files[*file];
        view::owned(path, bytes, entry)
    }

    /// Maps a file and gives what it holds, all inside it.
    fn add_file(&mut self, path: &Path) -> Result<Contents> {
        let bytes = Mapped::open(path).map_err(Error::io(path))?;
        let (format, read) = format(path);
        let damaged =
            |problem: String| Error::Damaged { path: path.to_path_buf(), format, problem };
        if let Some(what) = foreign(&bytes, format) {
            return Err(damaged(what.into()));
        }
        let contents = read(&bytes).map_err(&damaged)?;
        for (name, entry) in &contents.tensors {
            let end = entry.extent().and_then(|extent| extent.checked_add(entry.offset));
            if end.is_none_or(|end| end > bytes.len()) {
                return Err(damaged(cut(format!("the data of `{name}` end after the file"))));
            }
        }
        self.files.push((path.to_path_buf(), bytes));
        Ok(contents)
    }

    fn add_shards(&mut self, index: &Path) -> Result<()> {
        let damaged =
            |problem: String| Error::Damaged { path: index.into(), format: "index", problem };
        let weight_map = weight_map(index)?;
        let mut names_by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, file) in &weight_map {
            names_by_file.entry(file).or_default().push(name);
        }
        let folder = index.parent().unwrap_or(Path::new("."));
        let missing: Vec<String> = names_by_file
            .keys()
            .filter(|file| !folder.join(file).is_file())
            .map(|file| format!("the shard `{file}` is not beside it"))
            .collect();
        if !missing.is_empty() {
            return Err(Error::Weights { path: index.into(), problems: Listing(missing) });
        }
        for (file, names) in names_by_file {
            let number = self.files.len();
            let Contents { mut tensors, mut unread } = self.add_file(&folder.join(file))?;
            for name in names {
                if let Some(entry) = tensors.remove(name) {
                    self.tensors.insert(name.to_string(), (number, entry));
                } else if let Some(what) = unread.remove(name) {
                    self.unread.insert(name.to_string(), what);
                } else {
                    return Err(damaged(format!("`{name}` is not in the shard `{file}`")));
                }
            }
        }
        Ok(())
    }
}

/// The shards that an index names.
///
/// # Errors
/// The index is damaged.
pub fn shards(index: &Path) -> Result<Vec<String>> {
    let files: BTreeSet<String> = weight_map(index)?.into_values().collect();
    Ok(files.into_iter().collect())
}

/// The files that a checkpoint is read from, in the order in which [`Checkpoint::files`] has them: a file itself, or
/// what a model's folder holds. What is in them is for [`Checkpoint::open`] to say.
///
/// # Errors
/// There is none, or an index is damaged.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let path = if path.is_dir() { find(path)? } else { path.to_path_buf() };
    match path.extension().is_some_and(|e| e == "json") {
        true => Ok(shards(&path)?.iter().map(|shard| path.with_file_name(shard)).collect()),
        false => Ok(vec![path]),
    }
}

/// Whether `folder` holds a checkpoint's files, every shard that its index names among them. What
/// is in them is for [`Checkpoint::open`] to say.
pub fn are_whole(folder: &Path) -> bool {
    let Ok(path) = find(folder) else { return false };
    let shards = match path.extension().is_some_and(|e| e == "json") {
        true => shards(&path).unwrap_or_default(),
        false => Vec::new(),
    };
    shards.iter().all(|shard| folder.join(shard).is_file())
}

/// Names of tensors to names of files, all in the index's own folder.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let damaged = |problem: String| Error::Damaged { path: index.into(), format: "index", problem };
    let bytes = aflora_files::read(index).map_err(Error::io(index))?;
    let Index { weight_map } = serde_json::from_slice(&bytes).map_err(|e| {
        let problem = if e.is_eof() { cut(e.to_string()) } else { e.to_string() };
        damaged(foreign_file::what(&bytes).map_or(problem, str::to_string))
    })?;
    for file in weight_map.values() {
        if Path::new(file).file_name().is_none_or(|plain| plain != file.as_str()) {
            return Err(damaged(format!("`{file}` is no file name")));
        }
    }
    Ok(weight_map)
}

/// Finds a file's tensors.
type Read = fn(&[u8]) -> std::result::Result<Contents, String>;

const SAFETENSORS: &str = "safetensors";
const PYTORCH: &str = "PyTorch";

/// The format that a file's name says, and its reader.
fn format(path: &Path) -> (&'static str, Read) {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => (SAFETENSORS, safetensors_file::read),
        Some(gguf::EXTENSION) => (gguf::FORMAT, gguf_file::read),
        _ => (PYTORCH, pickle::read),
    }
}

/// What a file is that is of another kind than its name says.
fn foreign(bytes: &[u8], format: &str) -> Option<&'static str> {
    let known = [
        (
            SAFETENSORS,
            foreign_file::is_safetensors(bytes),
            "it is a safetensors file: its name should end in .safetensors",
        ),
        (
            PYTORCH,
            foreign_file::is_pytorch(bytes),
            "it is a PyTorch file: its name should end in .bin",
        ),
        (gguf::FORMAT, gguf::is_gguf(bytes), "it is a GGUF file: its name should end in .gguf"),
    ];
    match known.into_iter().find(|(_, is, _)| *is) {
        Some((found, ..)) if found == format => None,
        Some((.., words)) => Some(words),
        None => foreign_file::what(bytes),
    }
}

fn find(folder: &Path) -> Result<PathBuf> {
    let found = FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::NoWeights {
        path: folder.to_path_buf(),
        looked_for: FILES.join(", "),
    })
}

#[cfg(test)]
mod tests;
