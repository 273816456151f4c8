//! GPT-2's blocks.
//!
//! Ours, and not rust-bert's: its linear layers are a `Conv1D` of its own that no slot reaches,
//! and rewriting each weight in every step (W₀ + ΔW, the other way in) would cost a copy of the
//! whole model. Here they are adaptable layers whose weight lies transposed, as checkpoints have
//! it; attention is fused, and decoding keeps keys and values.

use super::network::{self, lm_head, GptVariant};
use super::sizes::{Sizes, ALIASES};
use crate::backbone::Backbone;
use crate::bodies::decoder::DecoderBlock;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::attention::{split_heads, Attention, ForwardContext, KeyValues};
use crate::nn::linear::dropout;
use crate::nn::mlp::Mlp;
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::nn::{self, Module};
use aflora_core::Block::{Attention as InAttention, Ffn};
use tch::Tensor;

/// GPT-2 from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = file.rename(ALIASES);
    for (key, usual) in [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false)] {
        if file.flag(key, usual)? != usual {
            return Err(file.problem(format!("`{key}` is {}, which is not built", !usual)));
        }
    }
    let sizes = Sizes::read(&file, 0.1)?;
    let variant =
        GptVariant { tags: true, positions: true, rotary: None, lm_head: lm_head(&file)? };
    network::build(&file, head, options, sizes, variant, |scope, _| Layer::new(scope, &sizes))
}

#[derive(Debug)]
struct Layer {
    ln_1: nn::LayerNorm,
    /// Queries, keys and values in one product.
    c_attn: nn::Linear,
    c_proj: nn::Linear,
    ln_2: nn::LayerNorm,
    mlp: Mlp,
    heads: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(scope: Scope, sizes: &Sizes) -> Self {
        let (hidden, wide) = (sizes.hidden, sizes.wide);
        let (attn, mlp) = (&scope / "attn", &scope / "mlp");
        Layer {
            ln_1: scope.layer_norm("ln_1", hidden, sizes.eps),
            c_attn: attn.transposed(InAttention, "c_attn", (hidden, 3 * hidden)),
            c_proj: attn.transposed(InAttention, "c_proj", (hidden, hidden)),
            ln_2: scope.layer_norm("ln_2", hidden, sizes.eps),
            mlp: Mlp {
                up: mlp.transposed(Ffn, "c_fc", (hidden, wide)),
                down: mlp.transposed(Ffn, "c_proj", (wide, hidden)),
                activation: sizes.activation,
            },
            heads: sizes.heads,
            attention: Attention { dropout: sizes.attention_dropout, ..Default::default() },
            residual_dropout: sizes.residual_dropout,
        }
    }
}

impl DecoderBlock for Layer {
    fn forward(
        &self,
        x: &Tensor,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let residual = |out: Tensor| dropout(out, self.residual_dropout, context.train);
        let together = self.c_attn.forward(&self.ln_1.forward(x)).chunk(3, 2);
        let [query, key, value] = [0, 1, 2].map(|i| split_heads(&together[i], self.heads));
        let attended = self.attention.attend(&query, key, value, context, keys);
        let x = x + residual(self.c_proj.forward(&attended));
        let wide = self.mlp.forward(&self.ln_2.forward(&x));
        x + residual(wide)
    }
}
