//! GPT-2's blocks.
//!
//! Ours, and not rust-bert's: its linear layers are a `Conv1D` of its own that no slot reaches,
//! and rewriting each weight in every step (W₀ + ΔW, the other way in) would cost a copy of the
//! whole model. Here they are adaptable layers whose weight lies transposed, as checkpoints have
//! it; attention is fused, and decoding keeps keys and values.

use super::{layer_norm, Around, Head, Sizes};
use crate::backbone::{Backbone, WriterOptions};
use crate::bodies::decoder::{split_heads, Attention, Block, KeyValues, View};
use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::nn::linear::dropout;
use crate::Result;
use std::path::Path;
use tch::Tensor;
use tch_facade::nn::{self, Module};

/// GPT-2 from its `config.json`.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    let file = ConfigFile::read(path, "gpt2", &["gpt2"])?.rename(super::ALIASES);
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if file.flag(key, usual)? != usual {
            return Err(file.problem(format!("`{key}` is {}, which is not built", !usual)));
        }
    }
    let sizes = Sizes::read(&file, 0.1)?;
    let around = Around { positions: true, head: Head::read(&file)?, ..Default::default() };
    super::build((path, &file), options, sizes, around, |path, _| Layer::new(path, &sizes))
}

#[derive(Debug)]
struct Layer {
    ln_1: nn::LayerNorm,
    /// Queries, keys and values in one product.
    c_attn: nn::Linear,
    attn_c_proj: nn::Linear,
    ln_2: nn::LayerNorm,
    c_fc: nn::Linear,
    mlp_c_proj: nn::Linear,
    activation: Activation,
    heads: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(path: nn::Path, sizes: &Sizes) -> Self {
        let (hidden, wide) = (sizes.hidden, sizes.wide);
        let (attn, mlp) = (&path / "attn", &path / "mlp");
        Layer {
            ln_1: layer_norm(&path / "ln_1", sizes),
            c_attn: nn::conv1d_linear(&attn / "c_attn", hidden, 3 * hidden),
            attn_c_proj: nn::conv1d_linear(&attn / "c_proj", hidden, hidden),
            ln_2: layer_norm(&path / "ln_2", sizes),
            c_fc: nn::conv1d_linear(&mlp / "c_fc", hidden, wide),
            mlp_c_proj: nn::conv1d_linear(&mlp / "c_proj", wide, hidden),
            activation: sizes.activation,
            heads: sizes.heads,
            attention: Attention { dropout: sizes.attention_dropout, ..Default::default() },
            residual_dropout: sizes.residual_dropout,
        }
    }
}

impl Block for Layer {
    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor {
        let residual = |out: Tensor| dropout(out, self.residual_dropout, view.train);
        let together = self.c_attn.forward(&self.ln_1.forward(x)).chunk(3, 2);
        let [query, key, value] = [0, 1, 2].map(|i| split_heads(&together[i], self.heads));
        let attended = self.attention.attend(&query, key, value, view, keys);
        let x = x + residual(self.attn_c_proj.forward(&attended));
        let wide = self.activation.apply(&self.c_fc.forward(&self.ln_2.forward(&x)));
        x + residual(self.mlp_c_proj.forward(&wide))
    }
}
