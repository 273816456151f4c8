//! GPT-Neo's blocks.
//!
//! Ours, and not rust-bert's, which lets its local layers see the whole text: from the window's
//! width (256 tokens) on, its answers are others than the released models' (see
//! `upstream/rust-bert/README.md`).

use super::network::{self, lm_head, GptVariant};
use super::sizes::Sizes;
use crate::backbone::Backbone;
use crate::bodies::decoder::DecoderBlock;
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::attention::{split_heads, Attention, ForwardContext, KeyValues};
use crate::nn::linear::dropout;
use crate::nn::mlp::Mlp;
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::nn::{self, Module};
use aflora_core::Block::{Attention as InAttention, Ffn};
use tch::Tensor;

/// Keys that transformers reads as others.
const ALIASES: &[(&str, &str)] =
    &[("num_attention_heads", "num_heads"), ("num_hidden_layers", "num_layers")];

/// GPT-Neo from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = file.rename(ALIASES);
    let hidden = file.size("hidden_size")?;
    let sizes = Sizes {
        vocab_size: file.size("vocab_size")?,
        max_positions: file.size("max_position_embeddings")?,
        layers: file.size("num_layers")?,
        hidden,
        heads: file.size("num_heads")?,
        wide: file.integer("intermediate_size", 4 * hidden)?,
        activation: file.parse_or("activation_function", Activation::GeluTanh)?,
        eps: file.number("layer_norm_epsilon", 1e-5)?,
        embedding_dropout: file.number("embed_dropout", 0.0)?,
        attention_dropout: file.number("attention_dropout", 0.0)?,
        residual_dropout: file.number("resid_dropout", 0.0)?,
    }
    .checked(&file)?;
    let local = local_layers(&file, sizes.layers)?;
    let window = file.integer("window_size", 256)?;
    let variant =
        GptVariant { tags: true, positions: true, rotary: None, lm_head: lm_head(&file)? };
    network::build(&file, head, options, sizes, variant, |scope, i| {
        Layer::new(scope, &sizes, local[i].then_some(window))
    })
}

/// Whether each layer sees a window only. Some files only have `attention_types`: patterns, with
/// how often each is repeated.
fn local_layers(file: &ConfigFile, layers: i64) -> Result<Vec<bool>> {
    let mut list: Vec<String> = file.parse_or("attention_layers", Vec::new())?;
    if list.is_empty() {
        let types: Vec<(Vec<String>, u16)> = file.parse_or("attention_types", Vec::new())?;
        let repeated = |(kinds, times)| vec![kinds; usize::from(times)];
        list = types.into_iter().flat_map(repeated).flatten().collect();
    }
    let known = |kind: &String| matches!(kind.as_str(), "global" | "local");
    if list.len() as i64 != layers || !list.iter().all(known) {
        return Err(file.problem(format!(
            "attention_layers must say `global` or `local` for each of the {layers} layers"
        )));
    }
    Ok(list.iter().map(|kind| kind == "local").collect())
}

#[derive(Debug)]
struct Layer {
    ln_1: nn::LayerNorm,
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    out_proj: nn::Linear,
    ln_2: nn::LayerNorm,
    mlp: Mlp,
    heads: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(scope: Scope, sizes: &Sizes, window: Option<i64>) -> Self {
        let (hidden, wide) = (sizes.hidden, sizes.wide);
        let (attn, mlp) = (&scope / "attn" / "attention", &scope / "mlp");
        let projection = |name, bias| attn.adaptable(InAttention, name, (hidden, hidden), bias);
        Layer {
            ln_1: scope.layer_norm("ln_1", hidden, sizes.eps),
            q_proj: projection("q_proj", false),
            k_proj: projection("k_proj", false),
            v_proj: projection("v_proj", false),
            out_proj: projection("out_proj", true),
            ln_2: scope.layer_norm("ln_2", hidden, sizes.eps),
            mlp: Mlp {
                up: mlp.adaptable(Ffn, "c_fc", (hidden, wide), true),
                down: mlp.adaptable(Ffn, "c_proj", (wide, hidden), true),
                activation: sizes.activation,
            },
            heads: sizes.heads,
            attention: Attention {
                dropout: sizes.attention_dropout,
                // GPT-Neo does not divide scores by √size.
                scale: Some(1.0),
                window,
                softcap: None,
            },
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
        let attended = self.attention.attend(&query, key, value, context, keys);
        let x = x + residual(self.out_proj.forward(&attended));
        let wide = self.mlp.forward(&self.ln_2.forward(&x));
        x + residual(wide)
    }
}
