//! Phi-3 and Phi-4-mini (Abdin et al. 2024): queries, keys and values in one product, gate and up
//! in another, LongRoPE for long texts.

use super::description::{Description, Dropout, FeedForward, Projections, Usual};
use super::rope::RopeKeys;
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;

/// Positions of pretraining where a file is silent.
pub(crate) const ORIGINAL: i64 = 4096;

/// Phi-3's.
pub(crate) const USUAL: Usual = Usual {
    max_positions: 4096,
    eps: 1e-5,
    rope: RopeKeys {
        share: Some(("partial_rotary_factor", 1.0)),
        original: Some(ORIGINAL),
        longrope: &["longrope", "su", "yarn"],
        ..RopeKeys::LLAMA
    },
    ..Usual::LLAMA
};

/// Phi-3 from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let common = Description::read(&file, &USUAL)?;
    let residual = file.dropout("resid_pdrop", 0.0)?;
    let mut phi = Description {
        projections: Projections::Joined("qkv_proj"),
        feed_forward: FeedForward::JoinedGated,
        dropout: Dropout { residual, ..common.dropout },
        ..common
    };
    let window = Description::window(&file, None)?;
    for layer in &mut phi.layers {
        layer.window = window;
    }
    phi.build(&file, head, options)
}
