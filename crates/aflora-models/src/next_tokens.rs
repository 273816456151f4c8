//! The loss of every next token, from the states before the head: logits of all tokens at once,
//! `[tokens, vocabulary]`, are never made.

use crate::Result;
use aflora_core::kernels::Logits;
use aflora_core::{sum_in_chunks, Checkpoints};
use tch::Tensor;

/// Logits that are made at once, 64 MB of them in fp32.
const CHUNK: i64 = 1 << 24;

/// A head that gives the logits of the next token.
pub(crate) trait NextTokenHead: std::fmt::Debug {
    /// Logits of states `[.., hidden]`.
    fn logits(&self, states: &Tensor) -> Logits;

    /// How many words there are.
    fn vocabulary(&self) -> i64;
}

/// A forward pass of a model that writes, up to its head.
#[derive(Debug)]
pub struct NextTokens<'a> {
    /// `[batch, length, hidden]`.
    states: Tensor,
    head: &'a dyn NextTokenHead,
    /// What trains, in the head or elsewhere.
    parameters: Vec<Tensor>,
    /// Tokens whose logits are made at once.
    rows: i64,
    /// What the backward pass goes through; empty where the model keeps everything.
    pub checkpoints: Checkpoints,
}

impl<'a> NextTokens<'a> {
    pub(crate) fn new(
        states: Tensor,
        head: &'a dyn NextTokenHead,
        checkpoints: Checkpoints,
    ) -> Self {
        let rows = (CHUNK / head.vocabulary()).max(1);
        NextTokens { states, head, parameters: Vec::new(), rows, checkpoints }
    }

    /// The same beside leaves that train, among them those that the head reads: others in it would
    /// have no gradient.
    pub(crate) fn with_parameters(self, parameters: Vec<Tensor>) -> Self {
        NextTokens { parameters, ..self }
    }

    /// The same with so many tokens to a chunk, in place of what 64 MB of logits hold.
    pub fn in_chunks_of(self, tokens: i64) -> Self {
        NextTokens { rows: tokens.max(1), ..self }
    }

    /// The cross entropy with `labels`, `[batch, length]` Int64, summed over the tokens whose label
    /// is not −100: `[]` in fp32, with its gradient.
    ///
    /// The gradients of the states, and of what trains in the head, are made in the forward pass, a
    /// chunk of tokens after the other.
    ///
    /// # Errors
    /// libtorch refuses.
    pub fn loss(&self, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
        let parameters: Vec<&Tensor> = self.parameters.iter().collect();
        let (states, labels) = (self.states.flatten(0, 1), labels.flatten(0, 1));
        Ok(sum_in_chunks(&states, &labels, &parameters, self.rows, |states, labels| {
            self.head.logits(states).cross_entropy(labels, smoothing)
        })?)
    }

    /// The [loss](Self::loss) for each smoothing, without a gradient: `[smoothings]`, for one
    /// product with the head.
    ///
    /// # Errors
    /// As there.
    pub fn losses(&self, labels: &Tensor, smoothings: &[f64]) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let (states, labels) = (self.states.flatten(0, 1), labels.flatten(0, 1));
        Ok(sum_in_chunks(&states, &labels, &[], self.rows, |states, labels| {
            let logits = self.head.logits(states);
            let sums = smoothings.iter().map(|&by| logits.cross_entropy(labels, by));
            Ok(Tensor::f_stack(&sums.collect::<aflora_core::Result<Vec<_>>>()?, 0)?)
        })?)
    }
}
