//! The tiny models that write, of `fixtures/writers`.

use super::tiny::Tiny;
use aflora_models::{Backbone, Batch, Options};
use std::collections::BTreeMap;
use tch::{Reduction, Tensor};

pub type Io = BTreeMap<String, Tensor>;

pub fn load(name: &str, options: &Options) -> (Box<dyn Backbone>, Io) {
    let tiny = Tiny::of(&format!("writers/{name}"));
    (tiny.load(options), tiny.io)
}

pub fn batch(io: &Io, side: &str) -> Batch {
    let get = |name: &str| io.get(&format!("{side}.{name}")).map(Tensor::shallow_clone);
    let (ids, mask) = (get("input_ids").unwrap(), get("attention_mask").unwrap());
    Batch { decoder_input_ids: get("decoder_input_ids"), ..Batch::new(ids, mask) }
}

/// Transformers' own loss: of a decoder, each token against the next.
pub fn loss(logits: &Tensor, io: &Io) -> Tensor {
    let labels = &io["right.labels"];
    let (logits, labels, smoothing) = if io.contains_key("right.decoder_input_ids") {
        (logits.shallow_clone(), labels.shallow_clone(), 0.1)
    } else {
        let n = labels.size()[1] - 1;
        (logits.narrow(1, 0, n), labels.narrow(1, 1, n), 0.0)
    };
    let (logits, labels) = (logits.flatten(0, 1), labels.flatten(0, 1));
    logits.cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, smoothing)
}
