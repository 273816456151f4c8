//! GPT-J's blocks.
//!
//! Ours, and not rust-bert's, which computes rotary angles in the precision of the weights: in
//! bf16, the usual one for a model of this size, most of them are off (see `upstream/rust-bert/README.md`).

use super::network::{self, GptVariant};
use super::sizes::{Sizes, ALIASES};
use crate::backbone::Backbone;
use crate::bodies::decoder::{DecoderBlock, LmHead};
use crate::config_file::ConfigFile;
use crate::heads::language::NAME;
use crate::heads::Head;
use crate::nn::attention::{split_heads, Attention, ForwardContext, KeyValues};
use crate::nn::linear::dropout;
use crate::nn::mlp::Mlp;
use crate::nn::rotary::{powers, rotate, Rope, Rotary, RotaryPairs};
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::nn::{self, Module};
use aflora_core::Block::{Attention as InAttention, Ffn};
use tch::Tensor;

/// GPT-J from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = file.rename(ALIASES);
    if file.flag("tie_word_embeddings", false)? {
        return Err(file.problem("`tie_word_embeddings` is true, which is not built".into()));
    }
    let sizes = Sizes::read(&file, 0.0)?;
    let size = sizes.hidden / sizes.heads;
    // Elements of a head that are rotated by their position.
    let rotary_dim = file.integer("rotary_dim", size)?;
    if rotary_dim < 2 || rotary_dim % 2 != 0 || rotary_dim > size {
        return Err(file.problem(format!(
            "`rotary_dim` is {rotary_dim}, but must be even and at most the size of a head, {size}"
        )));
    }
    let rotary = Some(Rotary::new(Rope::fixed(powers(10_000.0, rotary_dim)), options.device));
    let variant = GptVariant {
        tags: false,
        positions: false,
        rotary,
        lm_head: LmHead::Untied { name: NAME, bias: true },
    };
    network::build(&file, head, options, sizes, variant, |scope, _| Layer::new(scope, &sizes))
}

/// Attention and feed-forward side by side, on one norm.
#[derive(Debug)]
struct Layer {
    ln_1: nn::LayerNorm,
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    out_proj: nn::Linear,
    mlp: Mlp,
    heads: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(scope: Scope, sizes: &Sizes) -> Self {
        let (hidden, wide) = (sizes.hidden, sizes.wide);
        let (attn, mlp) = (&scope / "attn", &scope / "mlp");
        let projection = |name| attn.adaptable(InAttention, name, (hidden, hidden), false);
        Layer {
            ln_1: scope.layer_norm("ln_1", hidden, sizes.eps),
            q_proj: projection("q_proj"),
            k_proj: projection("k_proj"),
            v_proj: projection("v_proj"),
            out_proj: projection("out_proj"),
            mlp: Mlp {
                up: mlp.adaptable(Ffn, "fc_in", (hidden, wide), true),
                down: mlp.adaptable(Ffn, "fc_out", (wide, hidden), true),
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
        let normed = self.ln_1.forward(x);
        let parts = nn::together([&self.q_proj, &self.k_proj, &self.v_proj], &normed);
        let [query, key, value] = parts.map(|part| split_heads(&part, self.heads));
        let [query, key] = rotate(&query, &key, &context.rotations[0], RotaryPairs::Neighbours);
        let attended = self.attention.attend(&query, key, value, context, keys);
        let attended = residual(self.out_proj.forward(&attended));
        attended + residual(self.mlp.forward(&normed)) + x
    }
}
