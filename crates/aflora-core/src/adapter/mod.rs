//! Modules that run beside a frozen linear layer.
//!
//! A [`Method`] puts an [`Adapter`] on each [`Layer`] that was chosen, and may bring a
//! [`Hook`](crate::Hook) that acts during training. One file a method, every file of the same
//! shape: settings and what PEFT calls them, method, adapter, hook. [`MethodConfig`] is the table
//! of all of them: a further method is a file here and a line there.

pub mod adalora;
pub mod aflora;
pub mod aflora_rank;
mod checks;
pub mod combine;
mod components;
pub mod dora;
pub mod elora;
mod factored;
mod init;
pub mod lora;
mod methods;
pub mod peft;
pub mod plain;
mod side_path;
mod site;
pub mod sora;
mod start;
mod tensor;
mod traits;
mod wrap;

pub use adalora::{AdaLora, AdaLoraConfig};
pub use aflora::{Aflora, AfloraConfig, PmTrainable};
pub use aflora_rank::{AfloraRank, AfloraRankConfig};
pub use dora::{Dora, DoraConfig};
pub use elora::{Elora, EloraConfig};
pub use init::normal;
pub use lora::{Lora, LoraConfig};
pub use methods::MethodConfig;
pub use plain::{BitFitConfig, FullConfig, HeadConfig, Plain};
pub use side_path::SidePath;
pub use site::{Block, Layer, Site};
pub use sora::{Sora, SoraConfig};
pub use start::Init;
pub use tensor::{AdapterTensor, Origin, Role, TensorSpec};
pub use traits::{Adapter, LowRank, Method, MethodSettings};
pub use wrap::AdaptedLinear;
