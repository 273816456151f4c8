//! A batch to learn from.

use aflora_core::MapTensors;
use aflora_models::Batch;
use tch::{Device, Tensor};

/// Rows as a model reads them, with what is right for them.
#[derive(Debug)]
pub struct Examples {
    /// What the model reads.
    pub batch: Batch,
    /// What is right: of each row its class, `[batch]`, Int64, its score, `[batch]`, fp32, or several
    /// numbers, `[batch, labels]`, fp32; of a task that writes the token wanted at each place, `[batch, length]`, Int64.
    pub labels: Tensor,
}

impl Examples {
    /// The same on a device.
    pub fn to_device(&self, device: Device) -> Self {
        self.map_tensors(&mut |tensor| tensor.to_device(device))
    }
}

impl MapTensors for Examples {
    fn map_tensors(&self, map: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        Examples { batch: self.batch.map(&mut *map), labels: map(&self.labels) }
    }
}
