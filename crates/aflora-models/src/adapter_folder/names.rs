//! What tensors are called in an adapter folder.

use aflora_core::adapter::TensorSpec;

/// The weights' file; older folders have a PyTorch file instead.
pub const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
/// Before the names of the model's own layers.
pub(super) const ROOT: &str = "base_model.model.";

/// How the names of biases end.
pub(super) const BIAS: &str = ".bias";
/// What stands between a layer's name and its own weights where an adapter sits on it.
pub(super) const BASE: &str = ".base_layer.";

/// The tensor's key for the adapter on `site`.
pub(super) fn key(site: &str, spec: &TensorSpec) -> String {
    match spec.shared {
        true => format!("base_model.{}", spec.key),
        false => format!("{ROOT}{site}.{}", spec.key),
    }
}
