//! What it costs that a merged weight is rounded to fewer bits than it was computed in.

use crate::adapted::AdaptedModel;
use crate::batch::Batch;
use crate::{Result, TextEncoder};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The text on which logits are compared.
const TEXT: &str = "The quick brown fox jumps over the lazy dog, and nobody knows why.";

/// The most tokens of it.
const LENGTH: usize = 64;

/// The difference between merged weights in single precision, M = W0 + ΔW, and as they were rounded, R,
/// over the layers that have an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounding {
    /// How many weights there are.
    pub weights: usize,
    /// The largest |R - M| of an element.
    pub largest: f64,
    /// The mean of |R - M| over all elements.
    pub mean: f64,
    /// ‖R - M‖ / ‖ΔW‖ over all of them: the part of what the adapters add that is noise.
    pub of_added: f64,
    /// The layer for which that is largest, and how much it is.
    pub worst: (String, f64),
    /// On a short text, the largest difference of a logit once all weights are rounded, and the
    /// largest logit; none where the model has no tokenizer to read it.
    pub logits: Option<(f64, f64)>,
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rounding { weights, largest, mean, of_added, worst: (layer, worst), logits } = self;
        write!(
            f,
            "{weights} weights with an adapter in them, each rounded once, by {largest:.1e} at most \
             and {mean:.1e} on average: {:.2} % of what the adapters add, {:.2} % in {layer}",
            100.0 * of_added,
            100.0 * worst
        )?;
        match logits {
            Some((difference, most)) => {
                write!(
                    f,
                    "; on a short text it moves a logit by {difference:.1e} at most, of {most:.1e}"
                )
            }
            None => Ok(()),
        }
    }
}

impl Rounding {
    /// That of `model`, in single precision, which reads by the tokenizer in `source`, whose weights are rounded by
    /// `round`; none of a model without adapters, in which nobody knows what is new.
    ///
    /// # Errors
    /// The model fails, or `round` does.
    pub fn of(
        model: AdaptedModel,
        source: &Path,
        round: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Option<Rounding>> {
        let merged = model.merged_weights();
        let float = |t: Tensor| t.to_kind(Kind::Double);
        let norm = |t: &Tensor| t.square().sum(Kind::Double).double_value(&[]);
        let (mut largest, mut sum, mut elements) = (0f64, 0f64, 0usize);
        let (mut noise, mut added, mut worst) = (0f64, 0f64, (String::new(), 0f64));
        let mut weights = 0;
        tch::no_grad(|| {
            for injected in model.injected() {
                let layer = &injected.linear().site.name;
                let name = format!("{layer}.weight");
                let Some(exact) = merged.get(&name) else { continue };
                let own = injected.linear().layer.stored();
                let off = float(round(exact)?) - float(exact.shallow_clone());
                let change = float(exact.shallow_clone()) - float(own);
                largest = largest.max(off.abs().max().double_value(&[]));
                sum += off.abs().sum(Kind::Double).double_value(&[]);
                elements += off.numel();
                let (of_noise, of_change) = (norm(&off), norm(&change));
                let share = (of_noise / of_change).sqrt();
                if share.is_finite() && share >= worst.1 {
                    worst = (layer.clone(), share);
                }
                (noise, added, weights) = (noise + of_noise, added + of_change, weights + 1);
            }
            Ok::<_, crate::Error>(())
        })?;
        // Adapters that have learned nothing add nothing.
        if weights == 0 || added == 0.0 {
            return Ok(None);
        }
        let mean = sum / elements as f64;
        let of_added = (noise / added).sqrt();
        let logits = logits(&model, merged, source, round)?;
        Ok(Some(Rounding { weights, largest, mean, of_added, worst, logits }))
    }
}

/// The largest difference of a logit between the weights of `model` as they are merged and as they are
/// rounded, which they are from then on, and the largest logit.
fn logits(
    model: &AdaptedModel,
    merged: BTreeMap<String, Tensor>,
    source: &Path,
    round: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Option<(f64, f64)>> {
    let Ok(encoder) = TextEncoder::from_folder(source, LENGTH) else { return Ok(None) };
    let ids = encoder.encode(&[(TEXT, None)])?.remove(0).ids;
    let device = model.weights().values().next().map_or(Device::Cpu, Tensor::device);
    let ids = Tensor::from_slice(&ids).unsqueeze(0).to_device(device);
    let generator = model.backbone().text_generator();
    let decodes = generator.is_some_and(|writer| writer.tokens().decoder_start.is_some());
    let batch = Batch {
        decoder_input_ids: decodes.then(|| ids.shallow_clone()),
        ..Batch::new(ids.shallow_clone(), ids.ones_like())
    };
    tch::no_grad(|| {
        model.injected().iter().for_each(|injected| injected.linear().layer.clear());
        // What is in codes is numbers from here on, as all else.
        for (name, layer) in model.backbone().quantised() {
            layer.replace(&merged[&name])?;
        }
        let with = |of: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<Tensor> {
            for (name, weight) in model.weights().iter().filter(|(_, w)| w.is_floating_point()) {
                if let Some(merged) = merged.get(name) {
                    weight.shallow_clone().f_set_data(&of(merged)?)?;
                }
            }
            Ok(model.forward(&batch, false)?.logits)
        };
        let exact = with(&|merged| Ok(merged.f_contiguous()?))?;
        let rounded = with(&|merged| round(&merged.f_contiguous()?))?;
        let most = |t: &Tensor| t.abs().max().double_value(&[]);
        Ok(Some((most(&(rounded - &exact)), most(&exact))))
    })
}
