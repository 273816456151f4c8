//! A backbone with adapters in it.

use crate::backbone::{Backbone, Forward};
use crate::batch::Batch;
use crate::generate::{self, GenerationConfig, TextGenerator};
use crate::next_tokens::NextTokens;
use crate::targets::Targets;
use crate::{Error, Result};
use aflora_core::nn::NamedLinear;
use aflora_core::{Injection, Method};
use std::ops::Deref;
use tch::Kind;

/// A backbone whose chosen linear layers carry adapters, ready to be trained: an [`Injection`], and
/// the model that it was put into.
#[derive(Debug)]
pub struct AdaptedModel {
    backbone: Box<dyn Backbone>,
    injection: Injection,
    /// The α of the words' noise in training.
    noise: f64,
}

impl Deref for AdaptedModel {
    type Target = Injection;

    fn deref(&self) -> &Injection {
        &self.injection
    }
}

impl AdaptedModel {
    /// Puts adapters of `method` on the layers that `targets` chooses.
    ///
    /// The head trains in full, and so does every module named in `train_modules` and every
    /// weight that the method itself trains. With a `base` kind of bf16, every other weight is
    /// cast to it once; adapters, head and loss stay in fp32.
    ///
    /// # Errors
    /// The targets match nothing, `train_modules` names no module, or the method trains the
    /// model's own weights and `base` is not fp32.
    pub fn new(
        backbone: Box<dyn Backbone>,
        method: &dyn Method,
        targets: &Targets,
        train_modules: &[String],
        base: Kind,
        seed: u64,
    ) -> Result<Self> {
        let layers = match method.adapts() {
            true => targets.chosen_of(backbone.linears())?,
            false => Vec::new(),
        };
        let mut trained: Vec<&str> = backbone.about().head_modules.to_vec();
        trained.extend(train_modules.iter().map(String::as_str));
        let mut model = AdaptedModel::on(backbone, method, layers, &trained, base, seed)?;
        let new = model.backbone.new_modules();
        model.keep(&new)?;
        Ok(model)
    }

    /// Puts adapters of `method` on `layers`. What trains beside them is `trained`, the head or not.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn on(
        backbone: Box<dyn Backbone>,
        method: &dyn Method,
        layers: Vec<NamedLinear>,
        trained: &[&str],
        base: Kind,
        seed: u64,
    ) -> Result<Self> {
        let vs = backbone.var_store();
        let injection = Injection::new(vs, layers, method, trained, seed)
            .and_then(|injection| injection.with_elsewhere(backbone.linears()))
            .map_err(|error| match error {
                aflora_core::Error::NoModule(_) => Error::TrainModules(error.to_string()),
                error => error.into(),
            })?;
        if injection.trains_own_weights() && base != Kind::Float {
            return Err(Error::Precision { method: method.name(), base });
        }
        injection.cast_frozen(base)?;
        Ok(AdaptedModel { backbone, injection, noise: 0.0 })
    }

    /// Lets these modules be saved beside the adapters although they do not train.
    ///
    /// # Errors
    /// The machine has not the memory.
    pub(crate) fn keep(&mut self, modules: &[&str]) -> Result<()> {
        Ok(self.injection.keep(modules)?)
    }

    /// Adds noise to the words' embeddings in training (NEFTune, arXiv 2310.05914): a number drawn
    /// evenly from ±α / √(length · hidden) to each element; of an encoder-decoder, to what it reads.
    pub fn with_noise(self, alpha: f64) -> Self {
        AdaptedModel { noise: alpha, ..self }
    }

    /// The logits of a batch, and what the backward pass goes through; `train` switches all dropout
    /// and [noise](Self::with_noise) on.
    ///
    /// # Errors
    /// As [`Backbone::forward`].
    pub fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        self.set_training(train);
        self.backbone.forward(batch, train)
    }

    /// The same up to the head of a model that writes.
    ///
    /// # Errors
    /// As [`Backbone::next_tokens`].
    pub fn next_tokens(&self, batch: &Batch, train: bool) -> Result<NextTokens<'_>> {
        self.set_training(train);
        let tokens = self.backbone.next_tokens(batch, train)?;
        let leaves = self.parameters().into_iter().map(|parameter| parameter.leaf);
        Ok(tokens.with_parameters(leaves.collect()))
    }

    /// Writes on after each text of `batch`; gives the new tokens, without the end token.
    ///
    /// # Errors
    /// The model does not write, or its positions do not suffice.
    pub fn write(&self, batch: &Batch, config: &GenerationConfig) -> Result<Vec<Vec<i64>>> {
        generate::write(self.writer()?, batch, config)
    }

    /// What writes, with the adapters as they are after training.
    ///
    /// # Errors
    /// The model does not write.
    pub fn writer(&self) -> Result<&dyn TextGenerator> {
        self.set_training(false);
        self.backbone.text_generator().ok_or_else(Error::does_not_write)
    }

    fn set_training(&self, train: bool) {
        self.injection.set_training(train);
        self.backbone.frame().set_noise(if train { self.noise } else { 0.0 });
    }

    /// The backbone, to be adapted anew: its layers compute what the adapters make of them until
    /// they get others.
    pub fn into_backbone(self) -> Box<dyn Backbone> {
        self.backbone
    }

    /// The backbone.
    pub fn backbone(&self) -> &dyn Backbone {
        self.backbone.as_ref()
    }
}
