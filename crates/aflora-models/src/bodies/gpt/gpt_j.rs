//! GPT-J's blocks.
//!
//! Ours, and not rust-bert's, which computes rotary angles in the precision of the weights: in
//! bf16, the usual one for a model of this size, most of them are off (see `docs/backbones.md`).

use super::{layer_norm, Around, Head, Sizes};
use crate::backbone::{Backbone, WriterOptions};
use crate::bodies::decoder::{split_heads, turn_pairs, Attention, Block, KeyValues, Rotary, View};
use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::nn::linear::{bare_linear, dropout, linear};
use crate::Result;
use std::path::Path;
use tch::Tensor;
use tch_facade::nn::{self, Module};

/// GPT-J from its `config.json`.
pub(crate) fn build(path: &Path, options: &WriterOptions) -> Result<Box<dyn Backbone>> {
    let file = ConfigFile::read(path, "gptj", &["gptj"])?.rename(super::ALIASES);
    if file.flag("tie_word_embeddings", false)? {
        return Err(file.problem("`tie_word_embeddings` is true, which is not built".into()));
    }
    let sizes = Sizes::read(&file, 0.0)?;
    let head = sizes.hidden / sizes.heads;
    // Elements of a head that turn with the position.
    let turning = file.integer("rotary_dim", head)?;
    if turning < 2 || turning % 2 != 0 || turning > head {
        return Err(file.problem(format!(
            "`rotary_dim` is {turning}, but must be even and at most the size of a head, {head}"
        )));
    }
    let frequency = |i: i64| 10_000f64.powf(-2.0 * i as f64 / turning as f64);
    let frequencies: Vec<f64> = (0..turning / 2).map(frequency).collect();
    let rotary = Some(Rotary::new(&frequencies, options.device));
    let around = Around { positions: false, rotary, head: Head::Biased };
    super::build((path, &file), options, sizes, around, |path, _| Layer::new(path, &sizes, turning))
}

/// Attention and feed-forward side by side, on one norm.
#[derive(Debug)]
struct Layer {
    ln_1: nn::LayerNorm,
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    out_proj: nn::Linear,
    fc_in: nn::Linear,
    fc_out: nn::Linear,
    activation: Activation,
    heads: i64,
    /// Elements of a head that turn with the position.
    turning: i64,
    attention: Attention,
    residual_dropout: f64,
}

impl Layer {
    fn new(path: nn::Path, sizes: &Sizes, turning: i64) -> Self {
        let (hidden, wide) = (sizes.hidden, sizes.wide);
        let (attn, mlp) = (&path / "attn", &path / "mlp");
        Layer {
            ln_1: layer_norm(&path / "ln_1", sizes),
            q_proj: bare_linear(&attn / "q_proj", hidden, hidden),
            k_proj: bare_linear(&attn / "k_proj", hidden, hidden),
            v_proj: bare_linear(&attn / "v_proj", hidden, hidden),
            out_proj: bare_linear(&attn / "out_proj", hidden, hidden),
            fc_in: linear(&mlp / "fc_in", hidden, wide),
            fc_out: linear(&mlp / "fc_out", wide, hidden),
            activation: sizes.activation,
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
        let wide = self.activation.apply(&self.fc_in.forward(&normed));
        attended + residual(self.fc_out.forward(&wide)) + x
    }
}
