//! Records the projection matrices' gradients and values at every step, for `aflora replay`.

use super::prepare::Prepared;
use crate::usage;
use aflora_core::adapter::Role;
use aflora_core::optim::Parameter;
use aflora_core::Tuner;
use aflora_record::gradients::{GradientWriter, Header};
use anyhow::{bail, Result};
use std::path::Path;
use tch::{Device, Kind};

/// Writes a run's `gradients.bin`.
#[derive(Debug)]
pub struct GradientLog(GradientWriter);

impl GradientLog {
    /// Starts a log of what `tuner` will train, or goes on with one after the steps that it
    /// already did.
    ///
    /// # Errors
    /// No matrix trains, or the file cannot be written.
    pub fn open(folder: &Path, run: &Prepared, tuner: &Tuner) -> Result<Self> {
        let Some(group) = tuner.arena().group(Role::Projection) else {
            usage!("record_gradients: no projection matrix trains, so there is nothing to record");
        };
        let shape = |matrix: &Parameter| {
            let (rows, columns) = matrix.leaf.size2()?;
            Ok((matrix.name.clone(), [rows, columns]))
        };
        let matrices = group.parameters().map(shape).collect::<Result<_, tch::TchError>>()?;
        let (steps_per_epoch, total_steps) = (run.steps_per_epoch, run.total_steps());
        let header = Header { matrices, steps_per_epoch, total_steps };
        Ok(GradientLog(GradientWriter::open(folder, &header, tuner.completed())?))
    }

    /// Adds the step whose gradients `tuner` holds; before its update.
    ///
    /// # Errors
    /// The matrices no longer train, or the file cannot be written.
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
            self.0.write(&bytes)?;
        }
        Ok(())
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}
