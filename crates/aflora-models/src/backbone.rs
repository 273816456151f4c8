//! What a model must tell and do to be fine-tuned.

use crate::deberta;
use crate::rust_bert::{albert, bert, distilbert, electra, roberta};
use crate::{Error, Result};
use aflora_core::{Block, Site};
use std::path::Path;
use tch::{Device, Tensor};
use tch_facade::{nn, CapturedLinear};

/// One batch of token sequences, padded to a common length.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, `[batch, length]`, Int64.
    pub input_ids: Tensor,
    /// 1 for a token, 0 for padding, `[batch, length]`, Int64.
    pub attention_mask: Tensor,
    /// 0 for the first text, 1 for the second, `[batch, length]`, Int64.
    pub token_type_ids: Tensor,
}

/// A linear layer of a backbone, with its name and the slot for an adapter.
#[derive(Debug)]
pub struct InjectableLinear {
    /// Name, shape and block.
    pub site: Site,
    /// The layer.
    pub layer: CapturedLinear,
}

/// A pretrained model with a classification or regression head.
pub trait Backbone: std::fmt::Debug {
    /// Logits `[batch, labels]`, fp32.
    ///
    /// `train` switches the model's own dropout on.
    fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor>;

    /// All weights, under the names of Hugging Face checkpoints.
    fn var_store(&self) -> &nn::VarStore;

    /// The linear layers that an adapter can be put on, in the order of the forward pass.
    fn linears(&self) -> &[InjectableLinear];

    /// The task head's modules: new in a fresh fine-tuning, trained in full.
    fn head(&self) -> &'static [&'static str];

    /// The modules that a pretrained checkpoint may lack: the head, and what comes before it
    /// without having been pretrained. They get a random start then.
    fn new_modules(&self) -> &'static [&'static str] {
        self.head()
    }

    /// The checkpoint prefix that some files leave out, such as `bert.`.
    fn prefix(&self) -> &'static str;

    /// The longest sequence that the model can read.
    fn max_positions(&self) -> i64;

    /// Size of the token vocabulary.
    fn vocab_size(&self) -> i64;
}

type Build = fn(&Path, i64, Device) -> Result<Box<dyn Backbone>>;

/// The kinds of backbone, by the `model_type` of their config.json.
const KINDS: [(&str, Build); 6] = [
    ("albert", albert::build),
    ("bert", bert::build),
    ("deberta-v2", deberta::build),
    ("distilbert", distilbert::build),
    ("electra", electra::build),
    ("roberta", roberta::build),
];

/// The names of the kinds that [`build`] knows.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// Refuses a kind that [`build`] does not know, before anything is fetched for it.
pub fn check_kind(kind: &str) -> Result<()> {
    builder(kind).map(|_| ())
}

fn builder(kind: &str) -> Result<Build> {
    let found = KINDS.iter().find(|(name, _)| *name == kind);
    found.map(|(_, build)| *build).ok_or_else(|| Error::UnknownBackbone {
        name: kind.to_string(),
        known: kinds().collect::<Vec<_>>().join(", "),
    })
}

/// Builds the backbone that a Hugging Face `config.json` describes. Its weights hold nothing
/// of use until they are loaded ([`weights::load`](crate::weights::load)) or initialised.
///
/// `labels` is the number of logits: the classes, or 1 for a regression.
///
/// # Errors
/// The file is unreadable, describes another architecture than `kind`, or one that is not built.
pub fn build(kind: &str, config: &Path, labels: i64, device: Device) -> Result<Box<dyn Backbone>> {
    builder(kind)?(config, labels, device)
}

/// Names the captured layers after the variables that hold their weights, and keeps those for
/// which `block` knows a place in a transformer block.
pub(crate) fn name_linears(
    vs: &nn::VarStore,
    captured: Vec<CapturedLinear>,
    block: fn(&str) -> Option<Block>,
) -> Vec<InjectableLinear> {
    let names: std::collections::HashMap<usize, String> =
        vs.variables().into_iter().map(|(name, t)| (t.data_ptr() as usize, name)).collect();
    captured
        .into_iter()
        .filter_map(|layer| {
            let name = names.get(&(layer.ws.data_ptr() as usize))?.strip_suffix(".weight")?;
            let (out_features, in_features) = layer.ws.size2().ok()?;
            let site =
                Site { name: name.to_string(), in_features, out_features, block: block(name)? };
            Some(InjectableLinear { site, layer })
        })
        .collect()
}
