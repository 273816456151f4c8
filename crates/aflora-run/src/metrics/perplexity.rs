//! Perplexity: e to the power of the mean loss of a token to be written, in nats.

pub(super) fn perplexity(loss: f64) -> f64 {
    loss.exp()
}
