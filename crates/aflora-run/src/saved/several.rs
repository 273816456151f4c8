//! Several finished runs and adapters on one base model, which lies in memory once.

use super::SavedRun;
use crate::config::{DeviceChoice, Precision, WeightsFrom};
use crate::precision::Base;
use crate::run::model::{load_beside, load_model};
use crate::ui::Progress;
use crate::usage;
use aflora_models::AdaptedModel;
use aflora_record::names::{holds, METRICS};
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant};
use tch::{Device, Kind};

/// Models that have one base's weights in common, each with the adapter, the head and whatever else
/// is its own: going from one to another copies nothing.
#[derive(Debug)]
pub struct ModelsOnOneBase {
    /// The models, in the order of their runs.
    pub models: Vec<AdaptedModel>,
    /// How long it took to load the base.
    pub base: Duration,
    /// And to put all the others beside it.
    pub beside: Duration,
}

impl SavedRun {
    /// Opens each of these as [`open`](SavedRun::open) does; `model` is that of the adapters among
    /// them.
    ///
    /// # Errors
    /// One cannot be opened, `model` is named and all are runs, or they are not all of one base model.
    pub fn open_all<'a>(
        folders: impl IntoIterator<Item = &'a Path>,
        model: Option<&str>,
        data: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<SavedRun>> {
        let (mut runs, mut adapters) = (Vec::new(), 0);
        for folder in folders {
            let is_run = holds(folder, METRICS)?;
            adapters += usize::from(!is_run);
            runs.push(match is_run {
                true => SavedRun::open_run(folder, data, progress)?,
                false => SavedRun::open_adapter(folder, model, data, progress)?,
            });
        }
        if model.is_some() && adapters == 0 {
            usage!("these are runs, and have their own model: --model is for adapters");
        }
        check_one_base(&runs)?;
        Ok(runs)
    }

    /// The device that was chosen, and the precision of the frozen weights that suits all of `runs`.
    ///
    /// # Errors
    /// The device is not there, or cannot compute in that precision; or some of them trained beside
    /// weights in few bits and others did not.
    pub fn device_and_precision_of_all(
        runs: &[SavedRun],
        device: DeviceChoice,
        precision: Precision,
    ) -> Result<(Device, Base)> {
        let mut found: Option<(Device, Base)> = None;
        for run in runs {
            let (device, base) = run.device_and_precision(device, precision)?;
            let other = found.map_or(base, |(_, other)| other);
            if other.format != base.format {
                usage!(
                    "they were trained beside weights in different numbers of bits, of which one \
                     base model has only one: say with --precision which"
                );
            }
            // What one of them needs in single precision, all have so.
            let kind = if other.kind == base.kind { base.kind } else { Kind::Float };
            found = Some((device, Base { kind, ..base }));
        }
        let Some(found) = found else { usage!("name a finished run or an adapter") };
        Ok(found)
    }

    /// The models of `runs`, which [are of one base](SavedRun::open_all).
    ///
    /// # Errors
    /// The base's weights or an adapter are missing, damaged, or of another model.
    pub fn models(runs: &[SavedRun], device: Device, base: Base) -> Result<ModelsOnOneBase> {
        let Some(first) = runs.first() else { usage!("name a finished run or an adapter") };
        let began = Instant::now();
        let (loaded, _) = load_model(&first.resolved, &first.files, device, base, false)?;
        let base_took = began.elapsed();
        let beside = |run: &SavedRun| {
            let backbone = load_beside(&run.resolved, &run.files, loaded.as_ref(), device, base)?;
            Ok(run.adapter.attach(backbone, base.kind)?)
        };
        let models = runs.iter().map(beside).collect::<Result<Vec<_>>>()?;
        Ok(ModelsOnOneBase { models, base: base_took, beside: began.elapsed() - base_took })
    }
}

/// Refuses what is of several base models.
fn check_one_base(runs: &[SavedRun]) -> Result<()> {
    let Some((first, others)) = runs.split_first() else { return Ok(()) };
    let start = |run: &SavedRun| match run.resolved.model.weights {
        WeightsFrom::Pretrained => None,
        WeightsFrom::Random => Some(run.resolved.run.seed),
    };
    for other in others {
        let (one, another) = (&first.files.base.name, &other.files.base.name);
        if !first.files.are(&other.files) {
            usage!("one adapter is of the model {one}, another of {another}: they must be of one base model");
        }
        if start(first) != start(other) {
            usage!(
                "the adapters are of the model {one} with random weights of different seeds: they \
                 must be of one base model"
            );
        }
    }
    Ok(())
}
