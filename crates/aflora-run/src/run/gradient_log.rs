//! The projection matrices' gradients and values at every step, for `aflora replay`.
//!
//! `gradients.bin` is a line of JSON, the [`Header`], and then for each step the group's gradient
//! as the backward pass left it and its values before the update, both fp32 and little-endian, in
//! the order of the header's matrices.

use super::folder::RunFolder;
use super::prepare::Prepared;
use crate::usage;
use aflora_core::adapter::Role;
use aflora_core::optim::Parameter;
use aflora_core::Tuner;
use aflora_files::own;
use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The file's name in a run's folder.
pub const FILE: &str = "gradients.bin";

/// What the numbers are of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The matrices: names and shapes.
    pub matrices: Vec<(String, [i64; 2])>,
    /// Updates an epoch.
    pub steps_per_epoch: u64,
    /// Updates of the run.
    pub total_steps: u64,
}

impl Header {
    /// Numbers of all matrices together.
    pub fn numel(&self) -> usize {
        self.matrices.iter().map(|(_, [rows, columns])| (rows * columns) as usize).sum()
    }

    /// Whether there are matrices, and the file of `length` bytes, this header's `line` among
    /// them, can hold a step of theirs.
    fn fits(&self, line: usize, length: u64) -> bool {
        let sides = self.matrices.iter().flat_map(|(_, shape)| shape);
        // Below this the products and their sum fit their types.
        let sane = sides.into_iter().all(|side| (1..1 << 24).contains(side));
        let numel = |(_, [rows, columns]): &(String, [i64; 2])| (rows * columns) as u64;
        sane && !self.matrices.is_empty()
            && self
                .matrices
                .iter()
                .try_fold(0u64, |sum, matrix| sum.checked_add(numel(matrix)))
                .and_then(|numel| numel.checked_mul(8)?.checked_add(line as u64))
                .is_some_and(|wanted| wanted <= length)
    }

    /// Bytes of a step.
    pub fn step_bytes(&self) -> u64 {
        2 * 4 * self.numel() as u64
    }
}

/// Writes a run's log.
#[derive(Debug)]
pub struct GradientLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl GradientLog {
    /// Starts a log of what `tuner` will train, or goes on with one after the steps that it
    /// already did.
    ///
    /// # Errors
    /// No matrix trains, or the file cannot be written.
    pub fn open(folder: &RunFolder, run: &Prepared, tuner: &Tuner) -> Result<Self> {
        let path = folder.path().join(FILE);
        let (steps_per_epoch, total_steps) = (run.steps_per_epoch, run.total_steps());
        let Some(group) = tuner.arena().group(Role::Projection) else {
            usage!("record_gradients: no projection matrix trains, so there is nothing to record");
        };
        let shape = |matrix: &Parameter| {
            let (rows, columns) = matrix.leaf.size2()?;
            Ok((matrix.name.clone(), [rows, columns]))
        };
        let matrices = group.parameters().map(shape).collect::<Result<_, tch::TchError>>()?;
        let header = Header { matrices, steps_per_epoch, total_steps };
        let mut line = serde_json::to_vec(&header)?;
        line.push(b'\n');
        let whole = line.len() as u64 + tuner.completed() * header.step_bytes();
        let open = || -> std::io::Result<File> {
            let mut file = match tuner.completed() {
                0 => own::create(&path)?,
                _ => own::open(&path)?,
            };
            if tuner.completed() == 0 {
                file.write_all(&line)?;
            }
            if file.metadata()?.len() < whole {
                return Err(std::io::Error::other("it ends before the step to go on from"));
            }
            file.set_len(whole)?;
            std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(GradientLog { path, file: BufWriter::new(file) })
    }

    /// Adds the step whose gradients `tuner` holds; before its update.
    pub fn step(&mut self, tuner: &Tuner) -> Result<()> {
        let (Some(group), Some(gradient)) =
            (tuner.arena().group(Role::Projection), tuner.gradients().get(Role::Projection))
        else {
            bail!("record_gradients: the matrices no longer train");
        };
        for tensor in [gradient, group.values()] {
            let host = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
            let mut bytes = vec![0; host.numel() * 4];
            host.f_copy_data_u8(&mut bytes, host.numel())?;
            self.file
                .write_all(&bytes)
                .with_context(|| format!("{} cannot be written", self.path.display()))?;
        }
        Ok(())
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

/// Reads a run's log.
#[derive(Debug)]
pub struct GradientReader {
    file: BufReader<File>,
    header: Header,
}

impl GradientReader {
    /// Opens the log in a run's folder.
    ///
    /// # Errors
    /// There is none, or it is damaged, or has no step.
    pub fn open(run: &Path) -> Result<Self> {
        let path = run.join(FILE);
        let file = match aflora_files::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => usage!(
                "{} is not there; record it with record_gradients=true, on a run whose matrices \
                 never freeze (method=aflora-trainable)",
                path.display()
            ),
            Err(error) => usage!("{} cannot be read: {error}", path.display()),
        };
        let length = file.metadata().map_or(0, |about| about.len());
        let mut file = BufReader::new(file);
        let mut line = String::new();
        // A header names some hundred matrices: far below this.
        let read = (&mut file).take(16 << 20).read_line(&mut line);
        let damaged = || format!("{} is no record of gradients", path.display());
        read.with_context(damaged)?;
        let header: Header = serde_json::from_str(&line).with_context(damaged)?;
        if !header.fits(line.len(), length) {
            bail!("{}: it holds no whole step of any matrix", damaged());
        }
        Ok(GradientReader { file, header })
    }

    /// What the numbers are of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next step's gradient and values; `None` behind the last whole one.
    pub fn step(&mut self) -> Result<Option<[Tensor; 2]>> {
        let mut bytes = Vec::new();
        let wanted = self.header.step_bytes();
        (&mut self.file).take(wanted).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < wanted {
            return Ok(None);
        }
        let numbers: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let (gradient, values) = numbers.split_at(self.header.numel());
        Ok(Some([Tensor::from_slice(gradient), Tensor::from_slice(values)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_more_than_the_file_holds_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let open = |shapes: &str, bytes: usize| {
            let header =
                format!("{{\"matrices\":[{shapes}],\"steps_per_epoch\":1,\"total_steps\":1}}\n");
            std::fs::write(folder.path().join(FILE), header + &"x".repeat(bytes)).unwrap();
            GradientReader::open(folder.path())
        };
        open(r#"["a",[2,3]]"#, 48).unwrap();
        let large = [r#"["a",[16777215,16777215]]"#; 70_000].join(",");
        for (shapes, bytes) in [
            (r#"["a",[2,3]]"#, 47),
            (r#"["a",[16777215,16777215]]"#, 1000),
            (r#"["a",[-1,3]]"#, 1000),
            // Its steps would have no end.
            ("", 1000),
            (&large, 1000),
        ] {
            let error = open(shapes, bytes).unwrap_err().to_string();
            assert!(error.contains("is no record of gradients"), "{error}");
        }
    }
}
