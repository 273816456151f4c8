//! Logits without gradients, batch after batch: what evaluations and predictions compute.
//!
//! On a GPU a pass is recorded once for each shape of batch and replayed from then on: launched one by
//! one, the hundreds of operations of a small model take the host several times what they take the GPU.

use crate::{AdaptedModel, Batch, Result};
use aflora_core::Recorder;
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

/// What tells shapes of batches apart: those of all tensors, and where padding stands.
type Shape = (Vec<(Vec<i64>, Kind)>, bool);

/// A model that computes logits.
#[derive(Debug)]
pub struct Inference<'a> {
    model: &'a AdaptedModel,
    device: Device,
    recorder: Option<Recorder<Shape>>,
    places: HashMap<Shape, Place>,
}

/// Where the passes of one shape read their batch, and where the logits of the latest lie.
#[derive(Debug)]
struct Place {
    batch: Batch,
    logits: Tensor,
}

impl<'a> Inference<'a> {
    /// Of this model, which lies on `device`; its weights must stay where they are. Passes are recorded
    /// if `record` says so and it is a GPU.
    pub fn new(model: &'a AdaptedModel, device: Device, record: bool) -> Self {
        let recorder = (record && matches!(device, Device::Cuda(_))).then(|| Recorder::new(device));
        Inference { model, device, recorder, places: HashMap::new() }
    }

    /// The logits of a batch, which may lie on the host, as [`AdaptedModel::forward`] gives them. They hold their
    /// values until the next call.
    ///
    /// # Errors
    /// The model refuses the batch.
    pub fn logits(&mut self, batch: &Batch) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let (model, device) = (self.model, self.device);
        let there = || batch.map(|tensor| tensor.to_device(device));
        let Some(recorder) = &mut self.recorder else {
            return Ok(model.forward(&there(), false)?.logits);
        };
        let mut shapes = Vec::new();
        batch.each(|tensor| shapes.push((tensor.size(), tensor.kind())));
        let shape = (shapes, batch.left_padded);
        let place = match self.places.get_mut(&shape) {
            Some(place) => {
                place.read(batch);
                place
            }
            None => {
                let place = Place { batch: there(), logits: Tensor::new() };
                self.places.entry(shape.clone()).or_insert(place)
            }
        };
        recorder.run(shape, || {
            place.logits = model.forward(&place.batch, false)?.logits;
            Ok::<_, crate::Error>(())
        })?;
        Ok(place.logits.shallow_clone())
    }

    /// How many shapes are recorded.
    pub fn recordings(&self) -> usize {
        self.recorder.as_ref().map_or(0, Recorder::len)
    }

    /// Why passes run operation by operation where they were to be recorded, once it is known; told once.
    pub fn remark(&mut self) -> Option<String> {
        self.recorder.as_mut()?.remark()
    }
}

impl Place {
    fn read(&mut self, batch: &Batch) {
        let mut places = Vec::new();
        self.batch.each(|place| places.push(place.shallow_clone()));
        let mut places = places.into_iter();
        batch.each(|tensor| {
            let mut place = places.next().expect("a batch of this shape");
            place.copy_(tensor);
        });
    }
}
