//! What is fuzzed: each reader of aflora's as a function of bytes.
//!
//! libFuzzer runs these functions for as long as one likes (`make fuzz`); a test runs them on
//! seeds and on some thousand deterministic mutations of each, with every other test. Seeds are
//! the files that the tests of the readers have anyway.
//!
//! A reader may refuse a file; it may not panic, crash, hang, or take memory that the file is
//! not worth.

mod data;
mod files;
mod models;
pub mod mutate;
mod network;
mod runs;
mod settings;

/// One reader with files that it should read.
#[derive(Debug, Clone, Copy)]
pub struct FuzzTarget {
    /// Its name, which is that of libFuzzer's target, too.
    pub name: &'static str,
    /// Reads the bytes.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> FuzzTarget {
    FuzzTarget { name, run, seeds }
}

/// All fuzz targets, a reader of files each.
pub const TARGETS: &[FuzzTarget] = &[
    target("config", settings::config, settings::config_seeds),
    target("experiment", settings::experiment, settings::experiment_seeds),
    target("targets", settings::targets, settings::targets_seeds),
    target("tsv", data::tsv, data::tsv_seeds),
    target("jsonl", data::jsonl, data::jsonl_seeds),
    target("conll", data::conll, data::conll_seeds),
    target("csv", data::csv, data::csv_seeds),
    target("parquet", data::parquet, data::parquet_seeds),
    target("safetensors", models::safetensors, models::safetensors_seeds),
    target("pickle", models::pickle, models::pickle_seeds),
    target("weight_index", models::weight_index, models::weight_index_seeds),
    target("model_config", models::model_config, models::model_config_seeds),
    target("adapter_folder", models::adapter_folder, models::adapter_folder_seeds),
    target("tokenizer_json", models::tokenizer_json, models::tokenizer_json_seeds),
    target("sentencepiece", models::sentencepiece, models::sentencepiece_seeds),
    target("vocabulary", models::vocabulary, models::vocabulary_seeds),
    target("events", runs::events, runs::events_seeds),
    target("state", runs::state, runs::state_seeds),
    target("gradients", runs::gradients, runs::gradients_seeds),
    target("run_folder", runs::run_folder, runs::run_folder_seeds),
    target("results", runs::results, runs::results_seeds),
    target("hub", network::hub, network::hub_seeds),
    target("tokenizer_settings", models::tokenizer_settings, models::tokenizer_settings_seeds),
    target("generation_config", models::generation_config, models::generation_config_seeds),
    target("chat_template", models::chat_template, models::chat_template_seeds),
    target("gguf", models::gguf, models::gguf_seeds),
    target("gguf_tokenizer", models::gguf_tokenizer, models::gguf_tokenizer_seeds),
];

/// The target of that name.
pub fn find(name: &str) -> Option<&'static FuzzTarget> {
    TARGETS.iter().find(|target| target.name == name)
}
