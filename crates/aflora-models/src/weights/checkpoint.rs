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
use aflora_core::weight::QuantisedWeight;
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

    /// The shape of the tensor `name`, which must be there.
    pub(crate) fn shape(&self, name: &str) -> &[i64] {
        &self.tensors[name].1.shape
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
        if let Some(weight) = self.codes(name)? {
            target.f_copy_(&weight.restore(Kind::Float))?;
            return Ok(());
        }
        let (path, bytes) = &self.files[*file];
        view::copy(path, bytes, entry, target)
    }

    /// The tensor `name`, which must be there, where it lies there as a weight in codes; on the host.
    ///
    /// # Errors
    /// libtorch refuses.
    pub(crate) fn codes(&self, name: &str) -> Result<Option<QuantisedWeight>> {
        match &self.tensors[name].1.layout {
            Layout::Codes(codes) => Ok(Some(codes.read(&|entry| self.owned(entry))?)),
            Layout::Strided(..) | Layout::Blocks(_) => Ok(None),
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Device;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
    }

    fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
        let checkpoint = Checkpoint::open(path)?;
        let shapes: Vec<_> =
            checkpoint.shapes().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
        shapes
            .into_iter()
            .map(|(name, shape)| {
                let mut tensor = Tensor::zeros(&shape[..], (Kind::Double, Device::Cpu));
                checkpoint.copy_to(&name, &mut tensor)?;
                Ok((name, tensor))
            })
            .collect()
    }

    #[test]
    fn both_layouts_of_pytorch_hold_the_tensors_of_safetensors() {
        let expected = tensors(&fixture("tensors.safetensors")).unwrap();
        assert_eq!(expected.len(), 6);
        for name in ["zip.bin", "stream.bin"] {
            assert_eq!(tensors(&fixture(name)).unwrap(), expected, "{name}");
        }
        let linear = tensors(&fixture("parameters.bin")).unwrap();
        assert_eq!(linear.keys().collect::<Vec<_>>(), ["bias", "extra", "weight"]);
        assert_eq!(linear["extra"].sum(Kind::Double).double_value(&[]), 2.0);
    }

    #[test]
    fn weights_of_bitsandbytes_are_read_to_the_bit_as_it_restores_them() {
        let found = tensors(&fixture("bitsandbytes.safetensors")).unwrap();
        let expected = tensors(&fixture("bitsandbytes_restored.safetensors")).unwrap();
        assert_eq!(found.len(), expected.len() + 1, "{:?}", found.keys());
        for (name, expected) in expected {
            assert_eq!(found[&name], expected, "{name}");
            let checkpoint = Checkpoint::open(&fixture("bitsandbytes.safetensors")).unwrap();
            let codes = checkpoint.codes(&name).unwrap().unwrap();
            assert_eq!(codes.restore(Kind::Double), expected, "{name}");
        }
    }

    #[test]
    fn weights_of_bitsandbytes_that_do_not_fit_are_refused_where_they_are_asked_for() {
        let whole = std::fs::read(fixture("bitsandbytes.safetensors")).unwrap();
        let changed = |from: &str, to: &str| {
            let at = whole.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            let mut bytes = whole.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            bytes
        };
        let folder = tempfile::tempdir().unwrap();
        for (from, to, name, expected) in [
            ("\"shape\": [4, 64]", "\"shape\": [5, 64]", "fp4.weight", "`weight` is Uint8"),
            ("\"shape\": [4, 64]", "\"shape\": [4,164]", "fp4.weight", "`weight` is Uint8"),
            (
                "\"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [6",
                "\"blocksize\": 63",
                "plain.weight",
                "blocksize is 63",
            ),
            ("plain.weight.absmax", "plain.weight.absmin", "plain.weight", "no `absmax`"),
            (
                "{\"quant_type\": \"fp4\"",
                "[\"quant_type\": \"fp4\"",
                "fp4.weight",
                "bitsandbytes__fp4`: ",
            ),
        ] {
            let path = folder.path().join("model.safetensors");
            std::fs::write(&path, changed(from, to)).unwrap();
            let checkpoint = Checkpoint::open(&path).unwrap();
            let (_, what) = checkpoint.unread().find(|(unread, _)| *unread == name).unwrap();
            assert!(what.contains(expected), "{to}: {what}");
            assert!(!checkpoint.shapes().any(|(found, _)| found == name), "{to}");
        }
    }

    #[test]
    fn a_pickle_that_is_more_than_tensors_is_refused_by_name() {
        for (name, expected) in [
            ("runs_code.bin", "asks for `posix.system`, which is no tensor: refused"),
            ("hides_code.bin", "asks for `__builtin__.eval`, which is no tensor: refused"),
            ("list.bin", "it holds a list, no dict of tensors by name"),
            ("only_extras.bin", "a dict without a tensor by name; it has `complex`: a tensor of a"),
            ("plain.bin", "neither an archive nor a stream of PyTorch"),
        ] {
            let error = tensors(&fixture(name)).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert!(error.contains("not a readable PyTorch file"), "{name}: {error}");
        }
    }

    #[test]
    fn what_no_model_needs_is_skipped_and_named_where_it_is_asked_for() {
        let expected = tensors(&fixture("tensors.safetensors")).unwrap();
        for (name, unread) in [
            ("extras.safetensors", ("eight", "a tensor of the type F8_E4M3")),
            ("extras.bin", ("device", "a device")),
            ("extras.bin", ("eight", "a tensor of a type that is not read")),
            ("extras_stream.bin", ("complex", "a tensor of a type that is not read")),
            ("extras_stream.bin", ("step", "a whole number")),
        ] {
            assert_eq!(tensors(&fixture(name)).unwrap(), expected, "{name}");
            let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
            assert!(checkpoint.unread().any(|found| found == unread), "{name}: {unread:?}");
            let mut target = Tensor::zeros([2], (Kind::Float, Device::Cpu));
            let error = checkpoint.copy(unread.0, &mut target).unwrap_err().to_string();
            assert!(error.contains(&format!("`{}` is {} there", unread.0, unread.1)), "{error}");
        }
    }

    #[test]
    fn a_state_dict_in_a_dict_of_more_is_found() {
        let expected = tensors(&fixture("tensors.safetensors")).unwrap();
        assert_eq!(tensors(&fixture("nested.bin")).unwrap(), expected);
        let trainer = tensors(&fixture("trainer.bin")).unwrap();
        assert_eq!(trainer.len(), expected.len());
        assert_eq!(trainer["module._orig_mod.row"], expected["row"]);
    }

    #[test]
    fn a_file_that_is_no_checkpoint_is_called_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(fixture("tensors.safetensors")).unwrap();
        let zip = std::fs::read(fixture("zip.bin")).unwrap();
        let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
        for (name, bytes, expected) in [
            ("model.safetensors", &lfs[..], "it is a Git-LFS pointer"),
            ("pytorch_model.bin", lfs, "it is a Git-LFS pointer"),
            ("model.safetensors", b"<!DOCTYPE html><p>Sign in", "it is a web page (HTML)"),
            ("model.safetensors", b"", "it is empty"),
            ("model.safetensors", &zip, "its name should end in .bin"),
            ("pytorch_model.bin", &whole, "its name should end in .safetensors"),
            ("model.safetensors", &whole[..whole.len() - 1], "may be truncated: get it again"),
            ("pytorch_model.bin", &zip[..zip.len() / 2], "may be truncated: get it again"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = tensors(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            let cut = expected.contains("truncated");
            assert_eq!(error.contains("truncated"), cut, "{error}");
        }
        let error = tensors(&fixture("list.bin")).unwrap_err().to_string();
        assert!(!error.contains("truncated"), "{error}");
    }

    fn shards(folder: &Path, map: &[(&str, &str)]) -> PathBuf {
        let map: BTreeMap<_, _> = map.iter().copied().collect();
        let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(&path, index.to_string()).unwrap();
        path
    }

    #[test]
    fn shards_are_read_as_one_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let one = |t: f64| Tensor::full([2], t, (Kind::Float, Device::Cpu));
        let a = folder.path().join("model-00001-of-00002.safetensors");
        Tensor::write_safetensors(&[("a", one(1.0)), ("more", one(9.0))], &a).unwrap();
        let b = folder.path().join("model-00002-of-00002.safetensors");
        Tensor::write_safetensors(&[("b", one(2.0))], &b).unwrap();
        let map =
            [("a", "model-00001-of-00002.safetensors"), ("b", "model-00002-of-00002.safetensors")];
        shards(folder.path(), &map);
        let found = tensors(folder.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(found["b"].double_value(&[0]), 2.0);

        let error = |folder: &Path| tensors(folder).unwrap_err().to_string();
        std::fs::remove_file(&b).unwrap();
        let words = error(folder.path());
        assert!(words.contains("the shard `model-00002-of-00002.safetensors` is not"), "{words}");
        shards(folder.path(), &[("c", "model-00001-of-00002.safetensors")]);
        assert!(error(folder.path()).contains("`c` is not in the shard"));
        shards(folder.path(), &[("c", "../secret.safetensors")]);
        assert!(error(folder.path()).contains("is no file name"));
        std::fs::write(folder.path().join("model.safetensors.index.json"), "{\"weight_").unwrap();
        assert!(error(folder.path()).contains("not a readable index file"));
        let empty = tempfile::tempdir().unwrap();
        assert!(error(empty.path()).contains("looked for model.safetensors, model.safetensors.i"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Cut or changed anywhere, a file is read as something or refused; never a crash.
        #[test]
        fn a_damaged_file_is_refused_and_never_a_crash(
            which in 0..3usize, at in 0.0..1.0f64, byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let name = ["tensors.safetensors", "zip.bin", "stream.bin"][which];
            let mut bytes = std::fs::read(fixture(name)).unwrap();
            let at = (at * bytes.len() as f64) as usize;
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            let read = tensors(&path);
            prop_assert!(!cut || read.is_err(), "a file cut at {at} was read");
        }
    }
}
