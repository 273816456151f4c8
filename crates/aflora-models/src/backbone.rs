//! What a model must tell and do to be fine-tuned.

use crate::batch::Batch;
use crate::generate::TextGenerator;
use crate::heads::Head;
use crate::next_tokens::NextTokens;
use crate::nn::noise::Noise;
use crate::nn::scope::Made;
use crate::{Error, Result};
use aflora_core::nn::{self, LinearHandle, NamedLinear};
use aflora_core::sharded::ShardedBase;
use aflora_core::Checkpoints;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use tch::Tensor;

/// The name of a weight, and its further names.
pub type Tied = (&'static str, &'static [&'static str]);

/// What a model tells of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// What it answers with.
    pub head: Head,
    /// The checkpoint prefix that some files leave out, such as `bert.`.
    pub prefix: &'static str,
    /// The head's modules: new in a fresh fine-tuning, trained in full.
    pub head_modules: &'static [&'static str],
    /// The modules that a pretrained checkpoint may lack: the head, and what comes before it
    /// without having been pretrained. They get a random start then.
    pub new_modules: &'static [&'static str],
    /// The modules that nearly every pretrained checkpoint has. Where one has no tensor of such a
    /// module, that gets a random start, too.
    pub may_lack: &'static [&'static str],
    /// The head's last layer, which has a row for each class; none of a language head.
    pub class_rows: Option<&'static str>,
    /// Weights that stand in for others: a name, and the names under which checkpoints may hold
    /// the same weight, again or instead.
    pub tied: &'static [Tied],
    /// Those of the further names under which nothing else is expected, whatever `tie_word_embeddings`
    /// says: it is of the language head alone there.
    pub always_tied: &'static [&'static str],
    /// Weights that a checkpoint may leave out, and that are zero then.
    pub optional: &'static [&'static str],
    /// The longest sequence that the model can read.
    pub max_positions: i64,
}

/// A model's weights, its layers, and what it tells of itself.
#[derive(Debug)]
pub struct Frame {
    /// All weights, under the names of Hugging Face checkpoints.
    pub(crate) vs: nn::VarStore,
    /// The linear layers that an adapter can be put on, in the order of the forward pass.
    pub(crate) linears: Vec<NamedLinear>,
    /// All other linear layers, which take an adapter only where a folder has one for them.
    further: Vec<NamedLinear>,
    /// The table of words, `[vocabulary, hidden]`, with its name.
    words: (String, Tensor),
    pub(crate) about: About,
    /// How much noise its words get.
    noise: Noise,
    /// The weights that are spread over ranks.
    sharded: Option<Arc<ShardedBase>>,
    /// Those of [`About::may_lack`] that the loaded checkpoint had not.
    lacked: RefCell<Vec<&'static str>>,
    /// The weights that the loaded checkpoint had not.
    new: RefCell<Vec<String>>,
}

impl Frame {
    pub(crate) fn new(vs: nn::VarStore, made: Made, about: About) -> Self {
        let Made { linears, further, words, noise, sharded } = made;
        let (lacked, new) = (RefCell::default(), RefCell::default());
        Frame { vs, linears, further, words, about, noise, sharded, lacked, new }
    }

    /// The α of the noise that words get from the next forward pass on; 0 for none.
    pub(crate) fn set_noise(&self, alpha: f64) {
        self.noise.set(alpha);
    }

    /// Notes that the loaded checkpoint has nothing of these modules, and not these weights.
    pub(crate) fn set_lacked(&self, modules: Vec<&'static str>, weights: &[String]) {
        *self.lacked.borrow_mut() = modules;
        *self.new.borrow_mut() = weights.to_vec();
    }

    /// Whether the loaded checkpoint had not the weight `name`.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.new.borrow().iter().any(|new| new == name)
    }

    /// The table of words, `[vocabulary, hidden]`, and its name.
    pub(crate) fn words(&self) -> (&str, &Tensor) {
        (&self.words.0, &self.words.1)
    }

    /// All linear layers beside [`linears`](Self::linears), of the sizes that they have now.
    pub(crate) fn further(&self) -> Vec<NamedLinear> {
        let anew =
            |l: &NamedLinear| NamedLinear::new(l.site.name.clone(), l.site.block, l.layer.clone());
        self.further.iter().map(anew).collect()
    }
}

/// What a forward pass gives.
#[derive(Debug)]
pub struct Forward {
    /// fp32: `[batch, labels]`; of each token's classes `[batch, length, labels]`; of a language head
    /// `[batch, length, vocabulary]`, for each token the logits of the next.
    pub logits: Tensor,
    /// What the backward pass goes through; empty where the model keeps everything.
    pub checkpoints: Checkpoints,
}

impl Forward {
    /// `logits` in single precision.
    pub(crate) fn new(logits: Tensor, checkpoints: Checkpoints) -> Self {
        Forward { logits: logits.to_kind(tch::Kind::Float), checkpoints }
    }
}

/// A pretrained body with a head.
pub trait Backbone: std::fmt::Debug {
    /// The logits of a batch; `train` switches the model's own dropout on, and, in a model that
    /// was built for it, the checkpointing of its blocks.
    ///
    /// # Errors
    /// The batch lacks what the model reads, or is too long for it.
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward>;

    /// The same up to the head of a model that writes: what a loss of every token is made of,
    /// without the logits of all. Of the head, nothing trains: see
    /// [`AdaptedModel::next_tokens`](crate::AdaptedModel::next_tokens).
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or the model does not write.
    fn next_tokens(&self, _batch: &Batch, _train: bool) -> Result<NextTokens<'_>> {
        Err(Error::does_not_write())
    }

    /// Weights, layers and description.
    fn frame(&self) -> &Frame;

    /// The model as one that writes, if its head does.
    fn text_generator(&self) -> Option<&dyn TextGenerator> {
        None
    }

    /// Gives `name`, a further name of a [tied](About::tied) weight, a place of its own, for a
    /// checkpoint that holds other values under it; none where that is not built.
    fn untie(&self, _name: &str) -> Option<Tensor> {
        None
    }

    /// The linear layers that take an adapter only where a folder has one for them: those of the
    /// head, the pooler, and projections before the blocks.
    fn further_linears(&self) -> Vec<NamedLinear> {
        self.frame().further()
    }

    /// How many words the model has.
    fn vocab_size(&self) -> i64 {
        self.frame().words().1.size().first().copied().unwrap_or(0)
    }

    /// How many elements a word's embedding has.
    fn hidden_size(&self) -> i64 {
        self.frame().words().1.size().last().copied().unwrap_or(0)
    }

    /// What the model tells of itself.
    fn about(&self) -> &About {
        &self.frame().about
    }

    /// The modules that did not come with the weights, but start at random: those that never do, and
    /// those that the loaded checkpoint had not.
    fn new_modules(&self) -> Vec<&'static str> {
        [self.about().new_modules, &self.frame().lacked.borrow()].concat()
    }

    /// All weights, under the names of Hugging Face checkpoints.
    fn var_store(&self) -> &nn::VarStore {
        &self.frame().vs
    }

    /// The linear layers that an adapter can be put on, in the order of the forward pass.
    fn linears(&self) -> &[NamedLinear] {
        &self.frame().linears
    }

    /// The layers whose weight is quantised, by the weight's name: what `var_store` has there is only
    /// its place.
    fn quantised(&self) -> HashMap<String, &LinearHandle> {
        let mut layers = self.elsewhere();
        layers.retain(|_, layer| layer.format().is_some());
        layers
    }

    /// The layers whose weight is quantised or spread over ranks, by the weight's name.
    fn elsewhere(&self) -> HashMap<String, &LinearHandle> {
        let layers = self.linears().iter().filter(|linear| linear.layer.lies_elsewhere());
        layers.map(|l| (format!("{}.weight", l.site.name), &l.layer)).collect()
    }

    /// The weights that are spread over ranks, if they are.
    fn sharded(&self) -> Option<&Arc<ShardedBase>> {
        self.frame().sharded.as_ref()
    }
}
