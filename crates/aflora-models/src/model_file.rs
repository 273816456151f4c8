//! A file of a model: in the model's folder, or in the GGUF file that stands for one.
//!
//! A GGUF file is read as the folder `FILE.gguf`: its `config.json` and its tokenizer's files are made
//! of its header, its weights are its own. So a model is named by one path, whichever it is, and
//! what is wrong with `FILE.gguf/config.json` is told of that.

use crate::gguf;
use crate::mapped::Mapped;
use crate::{Error, Result};
use std::fs;
use std::io;
use std::path::Path;

/// Whether `path` is a GGUF file, by its name.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == gguf::EXTENSION) && path.is_file()
}

/// Whether a model's files are looked for in `path`: it is a folder, or a GGUF file.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir() || is_gguf(path)
}

/// The folder of a model's weights, which are named by a file in it, by a GGUF file or by itself.
pub(crate) fn folder_of(weights: &Path) -> &Path {
    match is_folder(weights) {
        true => weights,
        false => weights.parent().unwrap_or(Path::new("")),
    }
}

/// Whether there is the file `path`, of a model's folder or of a GGUF file. Those of a damaged one
/// count as there: who reads them is told what is wrong.
pub fn is_there(path: &Path) -> bool {
    match in_gguf(path) {
        Some((file, name)) => {
            with_header(file, |header| Ok(gguf::has(header, name))).unwrap_or(true)
        }
        None => path.is_file(),
    }
}

/// The bytes of the file `path`, of a model's folder or of a GGUF file.
///
/// # Errors
/// It is not there or cannot be read; or the GGUF file is damaged, or asks for what is not read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    match in_gguf(path) {
        Some((file, name)) => {
            let made = with_header(file, |header| gguf::file(header, name))?;
            made.ok_or_else(|| Error::io(path)(io::ErrorKind::NotFound.into()))
        }
        None => aflora_files::read(path).map_err(Error::io(path)),
    }
}

/// [`read`] as text.
///
/// # Errors
/// As there; or it is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    match in_gguf(path) {
        Some(_) => Ok(String::from_utf8_lossy(&read(path)?).into_owned()),
        None => aflora_files::read_text(path).map_err(Error::io(path)),
    }
}

/// Copies the file `from`, of a model's folder or of a GGUF file.
///
/// # Errors
/// As [`read`]; or `to` cannot be written.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    match in_gguf(from) {
        Some(_) => fs::write(to, read(from)?).map_err(Error::io(to)),
        None => fs::copy(from, to).map(drop).map_err(Error::io(from)),
    }
}

/// The GGUF file that `path` leads into, and the name of the file in it.
fn in_gguf(path: &Path) -> Option<(&Path, &str)> {
    let (file, name) = (path.parent()?, path.file_name()?.to_str()?);
    is_gguf(file).then_some((file, name))
}

/// What `read` makes of the header of the GGUF file `path`.
///
/// # Errors
/// It cannot be read, or is damaged; those of `read`.
pub(crate) fn with_header<T>(
    path: &Path,
    read: impl FnOnce(&gguf::Header<'_>) -> std::result::Result<T, String>,
) -> Result<T> {
    let bytes = Mapped::open(path).map_err(Error::io(path))?;
    let read = gguf::Header::read(&bytes).and_then(|header| read(&header));
    let problem = |problem| Error::Damaged { path: path.into(), format: gguf::FORMAT, problem };
    read.map_err(problem)
}
