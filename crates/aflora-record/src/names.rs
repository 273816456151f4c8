//! Names of the files in a run's folder.

use aflora_files::write::is_leftover;

/// The resolved configuration.
pub const CONFIG: &str = "config.yaml";
/// Where everything came from.
pub const PROVENANCE: &str = "provenance.json";
/// What happened, a line an event.
pub const EVENTS: &str = "events.jsonl";
/// How the names of TensorBoard's files begin.
pub const SCALARS: &str = "events.out.tfevents.";
/// The gradients of each step, where they are recorded.
pub const GRADIENTS: &str = "gradients.bin";
/// When each matrix froze.
pub const FREEZES: &str = "freeze.csv";
/// The file whose presence says that the run ended well.
pub const METRICS: &str = "metrics.json";
/// The best epoch's adapter.
pub const ADAPTER: &str = "adapter";
/// What it takes to go on with an interrupted run.
pub const CHECKPOINTS: &str = "checkpoint";

/// What a written text's predictions of an evaluation are called.
pub fn predictions(split: &str, epoch: u64) -> String {
    format!("{PREDICTIONS}{split}-epoch{epoch}.jsonl")
}

const PREDICTIONS: &str = "predictions-";

/// Whether a run that starts anew in its folder removes what has this name: it will write it again,
/// or would not.
pub fn is_of_an_earlier_start(name: &str) -> bool {
    let begins = [EVENTS, SCALARS, PREDICTIONS].iter().any(|start| name.starts_with(start));
    begins || [ADAPTER, CHECKPOINTS, FREEZES].contains(&name) || is_leftover(name)
}
