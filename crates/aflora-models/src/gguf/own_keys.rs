//! The names of what headers of some kinds of models have beyond those of all: keys, behind the
//! architecture's name, and tensors that are no weights.

/// The window, and which layers have it.
pub(super) const WINDOW: &str = "attention.sliding_window";
pub(super) const PATTERN: &str = "attention.sliding_window_pattern";
/// The bounds of scores and of logits, as config.json names them, too.
pub(super) const BOUNDS: [&str; 2] = ["attn_logit_softcapping", "final_logit_softcapping"];
/// θ of the layers with a window.
pub(super) const LOCAL: &str = "rope.freq_base_swa";
/// What LongRoPE multiplies queries and keys by.
pub(super) const AMPLITUDE: &str = "rope.scaling.attn_factor";
/// The length of the texts of pretraining, where angles are scaled for longer ones.
pub(super) const POSITIONS: &str = "rope.scaling.original_context_length";
/// LongRoPE's factors of short and of long texts, as tensors.
pub(super) const SHORT: &str = "rope_factors_short.weight";
pub(super) const LONG: &str = "rope_factors_long.weight";
/// What LLaMA 3.1's frequencies are divided by, as a tensor.
pub(super) const DIVISORS: &str = "rope_freqs.weight";
/// The name of that scaling in a config.json.
pub(super) const LLAMA3: &str = "llama3";
