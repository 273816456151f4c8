//! Logits without gradients, batch after batch: what evaluations and predictions compute.
//!
//! On a GPU a pass is recorded once for each shape of batch and replayed from then on: launched one by
//! one, the hundreds of operations of a small model take the host several times what they take the GPU. That
//! is done at a shape's third batch, since to record takes as long as some passes.

use crate::{AdaptedModel, Batch, Result};
use aflora_core::Recorder;
use std::collections::{HashMap, HashSet};
use tch::{Device, Kind, Tensor};

/// What tells shapes of batches apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shape {
    tensors: Vec<(Vec<i64>, Kind)>,
    /// Which of those that may be missing are there.
    given: [bool; 3],
    left_padded: bool,
}

impl Shape {
    fn of(batch: &Batch) -> Self {
        let mut tensors = Vec::new();
        batch.each(|tensor| tensors.push((tensor.size(), tensor.kind())));
        let Batch { token_type_ids, decoder_input_ids, documents, left_padded, .. } = batch;
        let given = [token_type_ids.is_some(), decoder_input_ids.is_some(), documents.is_some()];
        Shape { tensors, given, left_padded: *left_padded }
    }
}

/// A model that computes logits.
#[derive(Debug)]
pub struct Inference<'a> {
    model: &'a AdaptedModel,
    device: Device,
    recorder: Option<Recorder<Shape>>,
    /// Shapes that came, and places of those that came again.
    seen: HashSet<Shape>,
    places: HashMap<Shape, Place>,
}

/// Shapes that may have a place.
const MOST: usize = 32;

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
        let (seen, places) = Default::default();
        Inference { model, device, recorder, seen, places }
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
        let shape = Shape::of(batch);
        let again = !self.seen.insert(shape.clone());
        let room = self.places.len() < MOST || self.places.contains_key(&shape);
        let recorder = match &mut self.recorder {
            Some(recorder) if again && room => recorder,
            _ => return Ok(model.forward(&there(), false)?.logits),
        };
        let place = match self.places.get_mut(&shape) {
            Some(place) => {
                place.read(batch);
                place
            }
            None => {
                // The place is written over by later batches: it is none of the caller's tensors.
                let own = |tensor: &Tensor| tensor.to_device_(device, tensor.kind(), false, true);
                let place = Place { batch: batch.map(own), logits: Tensor::new() };
                self.places.entry(shape.clone()).or_insert(place)
            }
        };
        recorder.run(shape, || {
            place.logits = model.forward(&place.batch, false)?.logits;
            Ok::<_, crate::Error>(())
        })?;
        Ok(place.logits.shallow_clone())
    }

    /// Whether passes are recorded, as far as they can be.
    pub fn records(&self) -> bool {
        self.recorder.is_some()
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
