//! SmolLM3 (Bakouch et al. 2025): a LLaMA in some of whose layers positions do not count (NoPE,
//! Yang et al. 2025).

use super::description::{Bias, Description, Usual};
use super::rope::RopeKeys;
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;

const USUAL: Usual = Usual {
    key_value_heads: Some(4),
    max_positions: 32_768,
    tied: true,
    rope: RopeKeys { theta: ("rope_theta", 2e6), ..RopeKeys::LLAMA },
    ..Usual::LLAMA
};

/// SmolLM3 from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let bias = Bias { feed_forward: file.flag("mlp_bias", false)?, ..Bias::of_attention(&file)? };
    let mut smol = Description { bias, ..Description::read(&file, &USUAL)? };
    let turned = turned_layers(&file, smol.layers.len())?;
    let window = match file.flag("use_sliding_window", false)? {
        true => Description::window(&file, None)?,
        false => None,
    };
    smol.windows_by_type(&file, window, |i| !turned[i])?;
    for (layer, turned) in smol.layers.iter_mut().zip(turned) {
        layer.rope = layer.rope.filter(|_| turned);
    }
    smol.build(&file, head, options)
}

/// Whether each layer's queries and keys are turned: what `no_rope_layers` says, whose ones are
/// those that are, or all but every `no_rope_layer_interval`-th.
fn turned_layers(file: &ConfigFile, count: usize) -> Result<Vec<bool>> {
    let list: Vec<u8> = file.parse_or("no_rope_layers", Vec::new())?;
    if list.is_empty() {
        let interval = file.integer("no_rope_layer_interval", 4)?;
        if interval < 1 {
            let problem = format!("`no_rope_layer_interval` is {interval}; it must be positive");
            return Err(file.problem(problem));
        }
        return Ok((1..=count as i64).map(|i| i % interval != 0).collect());
    }
    if list.len() < count {
        return Err(file.problem(format!(
            "`no_rope_layers` is of {} layers, but `num_hidden_layers` is {count}",
            list.len()
        )));
    }
    Ok(list.into_iter().take(count).map(|turned| turned != 0).collect())
}
