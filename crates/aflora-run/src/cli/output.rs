//! Where commands write to.

use aflora_models::gguf::GgufFile;
use aflora_run::{check_makeable, UsageError};
use anyhow::{Context, Result};
use flate2::write::GzEncoder;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Refuses to write over something that is there, be it a link that leads nowhere, and to begin
/// what cannot be written.
///
/// # Errors
/// Something is there already, or no folder can be made there.
pub fn new_folder(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let problem = format!("{} exists already; name a new folder", path.display());
        return Err(UsageError(problem).into());
    }
    check_makeable("the folder", path)
}

/// Whether what a command writes is a GGUF file, by its name.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gguf")
}

/// A new GGUF file, made by `make` once it is known that it can be written.
///
/// # Errors
/// Something is there already, it cannot be written, or those of `make`.
pub fn new_gguf(path: &Path, make: impl FnOnce() -> Result<GgufFile>) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let problem = format!("{} exists already; name a new file", path.display());
        return Err(UsageError(problem).into());
    }
    let output = Output::open(Some(path))?;
    let file = make()?;
    output.write(|to| Ok(file.write(to)?))
}

/// What names standard output: written through its own descriptor, which may append to a file.
const STDOUT: [&str; 2] = ["-", "/dev/stdout"];

/// Endings of forms and packings that are not written, which would be another thing under that name.
const UNWRITTEN: [&str; 9] = ["parquet", "bz2", "xz", "zst", "zip", "7z", "lz4", "xlsx", "arrow"];

/// Whether a file's name ends like that.
fn ends(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(ending))
}

/// Standard output, or a file that can be written; packed where its name ends in `.gz`.
pub struct Output(Option<(PathBuf, aflora_files::Output)>);

/// Why an output was not written.
enum WriteFailure {
    /// The output itself.
    Output(io::Error),
    /// What should have filled it.
    Content(anyhow::Error),
}

impl From<io::Error> for WriteFailure {
    fn from(error: io::Error) -> Self {
        WriteFailure::Output(error)
    }
}

impl Output {
    /// Whether an output of that name, or of none, is standard output.
    pub fn is_stdout(path: Option<&Path>) -> bool {
        path.is_none_or(|path| STDOUT.iter().any(|name| path == Path::new(name)))
    }

    /// As [`open`](Self::open), of an output that is another file than `input` (`-` is standard
    /// input).
    ///
    /// # Errors
    /// Also, it is the input, which would be lost.
    pub fn beside(path: Option<&Path>, input: &Path) -> Result<Output> {
        let named = |path: &Path, standard: &str| match path == Path::new("-") {
            true => PathBuf::from(standard),
            false => path.to_path_buf(),
        };
        let place = |path: &Path| {
            let about = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
            Some((about.dev(), about.ino()))
        };
        let input = place(&named(input, "/dev/stdin"));
        let output = place(&named(path.unwrap_or(Path::new("-")), "/dev/stdout"));
        if input.is_some() && input == output {
            let path = path.map_or("standard output".into(), |path| path.display().to_string());
            let problem = format!("{path} is the input; name another file to write to");
            return Err(UsageError(problem).into());
        }
        Self::open(path)
    }

    /// Whether it is standard output.
    pub fn is_standard(&self) -> bool {
        self.0.is_none()
    }

    /// Opens the output before anything is computed for it, so that no work is lost on a file that
    /// cannot be written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: Option<&Path>) -> Result<Output> {
        let Some(path) = path.filter(|path| !Output::is_stdout(Some(path))) else {
            return Ok(Output(None));
        };
        if let Some(ending) = UNWRITTEN.iter().find(|ending| ends(path, ending)) {
            let problem = format!(
                "{}: .{ending} is not written here; name a .jsonl, .csv or .tsv file, with .gz \
                 behind to pack it",
                path.display()
            );
            return Err(UsageError(problem).into());
        }
        match aflora_files::Output::open(path) {
            Ok(file) => Ok(Output(Some((path.to_path_buf(), file)))),
            Err(error) => {
                let problem = format!("{} cannot be written: {error}", path.display());
                Err(UsageError(problem).into())
            }
        }
    }

    /// Fills the output with what `write` gives.
    ///
    /// # Errors
    /// `write` fails, or what it gives cannot be written.
    pub fn write(self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let Some((path, file)) = self.0 else {
            let mut output = io::BufWriter::new(io::stdout().lock());
            write(&mut output)?;
            return output.flush().context("standard output cannot be written");
        };
        let packed = ends(&path, "gz");
        let written = file.write(|to| {
            if !packed {
                return write(to).map_err(WriteFailure::Content);
            }
            let mut packing = GzEncoder::new(to, flate2::Compression::default());
            write(&mut packing).map_err(WriteFailure::Content)?;
            packing.finish().map(drop).map_err(WriteFailure::Output)
        });
        written.map_err(|failure| match failure {
            WriteFailure::Content(error) => error,
            WriteFailure::Output(error) => {
                anyhow::Error::new(error).context(format!("{} cannot be written", path.display()))
            }
        })
    }
}
