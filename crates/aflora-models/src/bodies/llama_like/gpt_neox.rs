//! GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023): a block's two parts side by side,
//! queries, keys and values in one product, head by head, and a part of each head turned.

use super::description::{
    Bias, Description, Dropout, FeedForward, Names, Projections, Residual, Usual,
};
use super::rope::RopeKeys;
use crate::backbone::Backbone;
use crate::config_file::ConfigFile;
use crate::heads::each_token::TokenHead;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::norm::NormKind;
use crate::options::Options;
use crate::Result;

const NAMES: Names = Names {
    model: "gpt_neox",
    prefix: "gpt_neox.",
    words: "embed_in",
    attention: "attention",
    attention_out: "dense",
    norm: "final_layer_norm",
    head: "embed_out",
    tied: &[("gpt_neox.embed_in.weight", &["embed_out.weight"])],
};

const USUAL: Usual = Usual {
    eps: 1e-5,
    eps_key: "layer_norm_eps",
    activation: ("hidden_act", Activation::Gelu),
    rope: RopeKeys {
        theta: ("rotary_emb_base", 10_000.0),
        share: Some(("rotary_pct", 0.25)),
        ..RopeKeys::LLAMA
    },
    ..Usual::LLAMA
};

/// GPT-NeoX from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let common = Description::read(&file, &USUAL)?;
    if common.heads * common.head_dim != common.hidden || common.key_value_heads != common.heads {
        return Err(file.problem(format!(
            "`hidden_size` {} is no multiple of `num_attention_heads` {}",
            common.hidden, common.heads
        )));
    }
    let residual = match file.flag("use_parallel_residual", true)? {
        true => Residual::Parallel,
        false => Residual::Pre,
    };
    let (attention, dropout) =
        (file.flag("attention_bias", true)?, file.dropout("hidden_dropout", 0.0)?);
    let neox = Description {
        names: &NAMES,
        norm: NormKind::Layer,
        residual,
        projections: Projections::JoinedByHead("query_key_value"),
        feed_forward: FeedForward::Plain { up: "dense_h_to_4h", down: "dense_4h_to_h" },
        bias: Bias { queries_keys_values: attention, attention_out: attention, feed_forward: true },
        dropout: Dropout { embeddings: dropout, residual: dropout, ..common.dropout },
        token_head: Some(TokenHead {
            name: "classifier",
            modules: &["classifier"],
            dropout: file.dropout("classifier_dropout", 0.1)?,
        }),
        ..common
    };
    neox.build(&file, head, options)
}
