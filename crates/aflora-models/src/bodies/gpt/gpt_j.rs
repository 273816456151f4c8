//! GPT-J's blocks.
//!
//! Ours, and not rust-bert's, which computes rotary angles in the precision of the weights: in
//! bf16, the usual one for a model of this size, most of them are off (see `docs/backbones.md`).

use super::network::{self, Around};
use super::sizes::{Sizes, ALIASES};
use crate::backbone::Backbone;
use crate::bodies::decoder::{Block, LmHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::attention::{split_heads, Attention, KeyValues, View};
use crate::nn::linear::dropout;
use crate::nn::mlp::Mlp;
use crate::nn::rotary::{turn_pairs, Rotary};
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::Block::{Attention as InAttention, Ffn};
use std::path::Path;
use tch::Tensor;
use tch_facade::nn::{self, Module};

/// GPT-J from its `config.json`.
pub(crate) fn build(path: &Path, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = ConfigFile::read(path, "gptj", &["gptj"])?.rename(ALIASES);
    if file.flag("tie_word_embeddings", false)? {
        return Err(file.problem("`tie_word_embeddings` is true, which is not built".into()));
    }
    let sizes = Sizes::read(&file, 0.0)?;
    let size = sizes.hidden / sizes.heads;
    // Elements of a head that turn with the position.
    let turning = file.integer("rotary_dim", size)?;
    if turning < 2 || turning % 2 != 0 || turning > size {
        return Err(file.problem(format!(
            "`rotary_dim` is {turning}, but must be even and at most the size of a head, {size}"
        )));
    }
    let frequency = |i: i64| 10_000f64.powf(-2.0 * i as f64 / turning as f64);
    let frequencies: Vec<f64> = (0..turning / 2).map(frequency).collect();
    let rotary = Some(Rotary::new(&frequencies, options.device));
    let around = Around { positions: false, rotary, lm_head: LmHead::Own { bias: true } };
    network::build((path, &file), head, options, sizes, around, |scope, _| {
        Layer::new(scope, &sizes, turning)
    })
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
    /// Elements of a head that turn with the position.
    turning: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(scope: Scope, sizes: &Sizes, turning: i64) -> Self {
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
            turning,
            attention: Attention { dropout: sizes.attention_dropout, ..Default::default() },
            residual_dropout: sizes.residual_dropout,
        }
    }

    /// The first elements of every head turned by their position.
    fn turned(&self, x: Tensor, view: &View) -> Tensor {
        let Some(rotation) = &view.rotation else { return x };
        let rest = x.size()[3] - self.turning;
        let turned = turn_pairs(&x.narrow(3, 0, self.turning), rotation);
        match rest {
            0 => turned,
            _ => Tensor::cat(&[turned, x.narrow(3, self.turning, rest)], 3),
        }
    }
}

impl Block for Layer {
    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor {
        let residual = |out: Tensor| dropout(out, self.residual_dropout, view.train);
        let normed = self.ln_1.forward(x);
        let [query, key, value] = [&self.q_proj, &self.k_proj, &self.v_proj]
            .map(|projection| split_heads(&projection.forward(&normed), self.heads));
        let (query, key) = (self.turned(query, view), self.turned(key, view));
        let attended = self.attention.attend(&query, key, value, view, keys);
        let attended = residual(self.out_proj.forward(&attended));
        attended + residual(self.mlp.forward(&normed)) + x
    }
}
