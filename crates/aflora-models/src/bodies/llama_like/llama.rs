//! LLaMA, 1 to 3, and what calls itself so (SmolLM 1 and 2, TinyLlama, …).

use super::description::{Bias, Description, Usual};
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;

/// LLaMA from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let bias = Bias { feed_forward: file.flag("mlp_bias", false)?, ..Bias::of_attention(&file)? };
    let llama = Description { bias, ..Description::read(&file, &Usual::LLAMA)? };
    llama.build(&file, head, options)
}
