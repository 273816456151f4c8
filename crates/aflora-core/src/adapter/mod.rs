//! Modules that run beside a frozen linear layer.
//!
//! A [`Method`] puts an [`Adapter`] on each [`Layer`] that was chosen, and may bring a
//! [`Hook`](crate::Hook) that acts during training. One file a method, every file of the same
//! shape: settings, method, adapter, hook.
//!
//! | method | trains | file |
//! |---|---|---|
//! | AFLoRA | low-rank matrices until they freeze, two vectors | [`aflora`] |
//! | LoRA | two low-rank matrices | [`lora`] |
//! | ELoRA (VeRA) | two vectors beside one shared random pair | [`elora`] |
//! | AdaLoRA | a singular value decomposition, to a rank budget | [`adalora`] |
//! | SoRA | low-rank matrices behind a gate that shrinks to zeros | [`sora`] |
//! | full, BitFit, head | the model's own weights, its biases, nothing but the head | [`plain`] |
//! | AFLoRA with adaptive rank | AFLoRA by components: some freeze, some leave | [`aflora_rank`] |

pub mod adalora;
pub mod aflora;
pub mod aflora_rank;
mod components;
pub mod elora;
mod factored;
mod init;
pub mod lora;
mod methods;
mod path;
pub mod plain;
mod site;
pub mod sora;
mod tensor;
mod traits;
mod wrap;

pub use adalora::{AdaLora, AdaLoraConfig};
pub use aflora::{Aflora, AfloraConfig, PmTrainable};
pub use aflora_rank::{AfloraRank, AfloraRankConfig};
pub use elora::{Elora, EloraConfig};
pub use init::{normal, shapes_only};
pub use lora::{Lora, LoraConfig};
pub use methods::MethodConfig;
pub use plain::Plain;
pub use site::{Block, Layer, Site};
pub use sora::{Sora, SoraConfig};
pub use tensor::{AdapterTensor, Origin, Role, TensorSpec};
pub use traits::{Adapter, LowRank, Method};
pub use wrap::AdaptedLinear;
