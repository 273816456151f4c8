//! The loss over a vocabulary.

use super::{raw, run};
use tch::Tensor;

/// The cross entropy of `logits` with `labels`, summed over the tokens whose label is not −100; a share `smoothing` of
/// each goes to all words alike. The gradient is made with it, once, and is what is kept: a second backward pass is an error.
///
/// `logits`: `[tokens, words]`, or without the last few words, which are `rest`, `[tokens, others]`; `bias`, frozen:
/// `[words]`, fp32; `labels`: `[tokens]`, Int64. Gives `[]` in fp32; no number where a label is no word.
pub fn cross_entropy(
    logits: &Tensor,
    rest: Option<&Tensor>,
    bias: Option<&Tensor>,
    labels: &Tensor,
    smoothing: f64,
) -> Option<Tensor> {
    let (x, labels) = (logits.as_ptr(), labels.as_ptr());
    // SAFETY: tensors that live through the call.
    run(logits, |shim, out| unsafe {
        (shim.cross_entropy)(out, x, raw(rest), raw(bias), labels, smoothing)
    })
}
