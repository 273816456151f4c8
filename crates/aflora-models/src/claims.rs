//! What a config.json claims of a model's size, held against what models have.
//!
//! Building takes the memory that the file asks for, before any weight is read. A slip or a
//! damaged file asks for more than any machine has.

use crate::config_file::ConfigFile;
use crate::Result;
use serde_json::Value;
use std::path::Path;

/// Rows of the largest matrices.
const ROWS: &[&str] = &[
    "vocab_size",
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "type_vocab_size",
    "intermediate_size",
    "hidden_dim",
    "n_inner",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "d_ff",
    "pooler_hidden_size",
    "max_relative_positions",
    "position_buckets",
    "relative_attention_num_buckets",
];

/// Those of them that some models compute instead.
const POSITIONS: &[&str] = &["max_position_embeddings", "n_positions", "n_ctx"];

/// Columns.
const COLUMNS: &[&str] = &[
    "hidden_size",
    "n_embd",
    "d_model",
    "dim",
    "embedding_size",
    "head_dim",
    "attention_head_size",
    "d_kv",
];

/// Layers, and what else is counted one by one.
const COUNTS: &[&str] = &[
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "num_hidden_groups",
    "inner_group_num",
    "num_attention_heads",
    "num_key_value_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_decoder_layers",
    "conv_kernel_size",
    "conv_groups",
];

const MOST_ROWS: i64 = 1 << 24;
const MOST_COUNTED: i64 = 1 << 12;
/// Elements of one matrix: eight times those of the largest that was published.
const MOST_ELEMENTS: i64 = 1 << 34;

/// The least elements that the embeddings of a config.json's model have, if it says so much.
pub(crate) fn embeddings(path: &Path) -> Option<i64> {
    let file = ConfigFile::open(path).ok()?;
    let number = |key: &str| file.keys().get(key).and_then(Value::as_i64);
    let columns = COLUMNS[..5].iter().filter_map(|key| number(key)).min()?;
    Some(number("vocab_size")?.saturating_mul(columns))
}

/// The key by which a config.json says that there are so many layers, for a layer's weight `name`.
pub(crate) fn layers_key(file: &ConfigFile, name: &str, layers: usize) -> Option<&'static str> {
    let says = |key: &&&str| file.keys().get(**key).and_then(Value::as_u64) == Some(layers as u64);
    let of_side = |key: &&&str| match (name.contains("decoder."), key.contains("coder_")) {
        (decoder, true) => key.starts_with("decoder_") == decoder,
        (_, false) => true,
    };
    COUNTS[..6].iter().filter(of_side).find(says).copied()
}

/// Refuses a config.json whose numbers no model has. What else is wrong with its keys, its reader
/// tells. `rotary` positions turn vectors, and have no row each.
pub(crate) fn check(file: &ConfigFile, rotary: bool) -> Result<()> {
    let keys = file.keys();
    let problem = |problem: String| Err(file.problem(problem));
    let number = |key: &&'static str| match keys.get(*key) {
        Some(Value::Number(n)) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Some((*key, n)),
            // Beyond i64, a number is a float; a small one with a fraction is its reader's.
            (None, Some(x)) if x.abs() > 9e15 => Some((*key, i64::MAX)),
            _ => None,
        },
        _ => None,
    };
    for (names, most) in [(ROWS, MOST_ROWS), (COLUMNS, MOST_ROWS), (COUNTS, MOST_COUNTED)] {
        for (key, value) in names.iter().filter_map(number) {
            if value > most || value < -1 {
                return problem(format!("`{key}` is {}; no model has so many", keys[key]));
            }
        }
    }
    let in_rows = |key: &&&str| !(rotary && POSITIONS.contains(*key));
    for (row, rows) in ROWS.iter().filter(in_rows).chain(COLUMNS).filter_map(number) {
        for (column, columns) in COLUMNS.iter().filter_map(number) {
            if rows.saturating_mul(columns) > MOST_ELEMENTS {
                return problem(format!(
                    "`{row}` by `{column}` is {rows} by {columns}; no model has so large a matrix"
                ));
            }
        }
    }
    Ok(())
}
