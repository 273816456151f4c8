//! Adapters of several runs on one model, made into one.

use super::SavedRun;
use crate::usage;
use aflora_core::adapter::combine::{Combination, Part};
use aflora_models::adapter_folder;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind};

impl SavedRun {
    /// Writes the adapters of `runs`, which [are of one base](SavedRun::open_all), each with its weight, to
    /// `target` as one, which PEFT opens as plain LoRA. What trained beside the adapters, the head first of all, is that of the first run.
    ///
    /// # Errors
    /// There is no run, one has no adapters that fold into plain LoRA,
    /// they cannot be combined so, or the folder cannot be written.
    pub fn combine(
        runs: &[SavedRun],
        weights: &[f64],
        combination: &Combination,
        target: &Path,
    ) -> Result<()> {
        let Some(first) = runs.first() else { usage!("name the runs whose adapters to combine") };
        let mut layers: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        let models = SavedRun::models(runs, Device::Cpu, Kind::Float.into())?.models;
        for ((run, weight), own) in runs.iter().zip(weights).zip(&models) {
            for adapter in own.adapters() {
                let Some(pair) = tch::no_grad(|| adapter.low_rank()) else {
                    let name = run.adapter.description().method.name();
                    usage!("adapters of the method `{name}` fold into no plain LoRA: there is nothing to combine");
                };
                let scale = adapter.scale();
                let part = Part { a: pair.down / scale, b: pair.up, scale, weight: *weight };
                layers.entry(adapter.site().name.clone()).or_default().push(part);
            }
        }
        let Some(model) = models.first().filter(|_| !layers.is_empty()) else {
            usage!("the runs have no adapters: there is nothing to combine");
        };
        let mut pairs = Vec::new();
        for (site, parts) in layers {
            match combination.of(&site, &parts) {
                Ok(pair) => pairs.push((site, pair)),
                Err(error) => usage!("{site}: {error}"),
            }
        }
        let beside = model.saved_modules();
        if runs.len() > 1 && !beside.is_empty() {
            let beside = beside.join(", ");
            tracing::info!(
                "what trained beside the adapters ({beside}) is the first run's, as it is"
            );
        }
        let (source, generation) = (first.files.source(), &first.task().generation);
        let base = Some(first.files.base.clone());
        let chat = first.chat_format(model)?;
        Ok(adapter_folder::export_pairs(model, pairs, base, source, generation, &chat, target)?)
    }
}
