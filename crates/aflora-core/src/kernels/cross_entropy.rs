//! The loss over a vocabulary.

use crate::Result;
use aflora_cuda::ops;
use tch::{Kind, Reduction, Tensor};

/// The label of a token that is not part of a sum.
const IGNORED: i64 = -100;

/// Logits of tokens as a head made them, in its kind: all of them, or those of the last few words apart, since rows whose
/// length is no multiple of eight are slow on a GPU.
#[derive(Debug)]
pub struct Logits {
    /// `[tokens, words]`, or `[tokens, words in front]`.
    pub first: Tensor,
    /// `[tokens, words behind]`.
    pub rest: Option<Tensor>,
    /// What is added to all, `[words]`.
    pub bias: Option<Tensor>,
}

impl From<Tensor> for Logits {
    fn from(first: Tensor) -> Logits {
        Logits { first, rest: None, bias: None }
    }
}

impl Logits {
    /// All of them in one, `[tokens, words]`, in fp32.
    pub fn whole(&self) -> Tensor {
        let first = self.first.to_kind(Kind::Float);
        // Parts are cast before they are joined, so that their gradients are rows of an even length again.
        let all = match &self.rest {
            Some(rest) => Tensor::cat(&[first, rest.to_kind(Kind::Float)], -1),
            None => first,
        };
        match &self.bias {
            Some(bias) => all + bias,
            None => all,
        }
    }

    /// All of them in one: as the head made them where they are, and else as [`whole`](Self::whole) has them.
    pub fn together(self) -> Tensor {
        match self {
            Logits { first, rest: None, bias: None } => first,
            apart => apart.whole(),
        }
    }

    /// The cross entropy with `labels`, `[tokens]` Int64, summed over the tokens whose label is not −100: `[]` in fp32. Of each a
    /// share `smoothing` goes to all words alike (Szegedy et al. 2016, §7).
    ///
    /// On a GPU one pass over the logits makes it and its gradient, for one backward pass.
    ///
    /// # Errors
    /// libtorch refuses.
    pub fn cross_entropy(&self, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
        let (rest, bias) = (self.rest.as_ref(), self.bias.as_ref());
        if let Some(sum) = ops::cross_entropy(&self.first, rest, bias, labels, smoothing) {
            return Ok(sum);
        }
        let (none, sum) = (None::<&Tensor>, Reduction::Sum);
        Ok(self.whole().f_cross_entropy_loss(labels, none, sum, IGNORED, smoothing)?)
    }
}
