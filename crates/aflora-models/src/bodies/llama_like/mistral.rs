//! Mistral (Jiang et al. 2023): a LLaMA whose every layer sees a window.

use super::description::{Description, Usual};
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;

const USUAL: Usual = Usual { key_value_heads: Some(8), max_positions: 131_072, ..Usual::LLAMA };

/// Mistral from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    file.refuse_unless_null("layer_types")?;
    let mut mistral = Description::read(&file, &USUAL)?;
    let window = Description::window(&file, Some(4096))?;
    for layer in &mut mistral.layers {
        layer.window = window;
    }
    mistral.build(&file, head, options)
}
