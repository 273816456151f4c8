//! Qwen 2, 2.5 and 3 (Yang et al. 2024, 2025): biases of queries, keys and values, later norms of
//! queries and keys in their place; windows in the upper layers where the file asks for them.

use super::description::{Bias, Description, Usual};
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;

/// Qwen 2's.
pub(crate) const SECOND: Usual =
    Usual { key_value_heads: Some(32), max_positions: 32_768, ..Usual::LLAMA };
/// Qwen 3's.
pub(crate) const THIRD: Usual = Usual { head_dim: Some(128), ..SECOND };

/// Qwen 2 or 2.5 from its `config.json`.
pub(crate) fn qwen2(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let bias = Bias { queries_keys_values: true, ..Default::default() };
    let qwen = Description { bias, ..read(&file, &SECOND)? };
    qwen.build(&file, head, options)
}

/// Qwen 3 from its `config.json`.
pub(crate) fn qwen3(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let bias = Bias::of_attention(&file)?;
    let qwen = Description { bias, normed_heads: true, ..read(&file, &THIRD)? };
    qwen.build(&file, head, options)
}

fn read(file: &ConfigFile, usual: &Usual) -> Result<Description> {
    let mut qwen = Description::read(file, usual)?;
    let window = match file.flag("use_sliding_window", false)? {
        true => Description::window(file, Some(4096))?,
        false => None,
    };
    let below = file.integer("max_window_layers", 28)?;
    qwen.windows_by_type(file, window, |i| i as i64 >= below)?;
    Ok(qwen)
}
