//! The kinds of models that GGUF files are read of: which tensor of theirs is which of Hugging
//! Face's.

use super::arrangement::Arrangement;
use super::own_keys::{AMPLITUDE, BOUNDS, DIVISORS, LLAMA3, LOCAL, LONG, PATTERN, SHORT, WINDOW};
use super::yarn::YARN;
use crate::bodies::llama_like::description::Usual;
use crate::bodies::llama_like::{gemma as gemmas, phi3 as phi, qwen};

/// A kind of model.
#[derive(Debug)]
pub(super) struct Architecture {
    /// Its `general.architecture`.
    pub name: &'static str,
    /// The `model_type` of its config.json, and its class that writes.
    pub model_type: &'static str,
    pub class: &'static str,
    /// What its config.json means where it is silent.
    pub usual: &'static Usual,
    /// The names of its activation in config.json, the best first: files do not tell it.
    pub activation: &'static [&'static str],
    /// The tensors of a block by their names in a file and in a checkpoint.
    block: &'static [Parts],
    /// Whether its head may be a tensor of its own.
    head: bool,
    /// Whether queries and keys are [interleaved](Arrangement::Interleaved).
    interleaved: bool,
    /// Whether norms are [raised](Arrangement::Raised).
    raised: bool,
    /// What the names of the layers in a block that may have biases begin with, and the key of
    /// config.json that tells of them.
    pub biases: &'static [(&'static str, Option<&'static str>)],
    /// The keys of its headers beyond those of all, behind the architecture's name.
    pub keys: &'static [&'static str],
    /// Its tensors that are no weights.
    pub tensors: &'static [&'static str],
    /// The scalings of the rotary angles, by their names in config.json, that are written.
    pub scalings: &'static [&'static str],
}

/// Names in a file, and in a checkpoint.
type Parts = &'static [(&'static str, &'static str)];

/// Tensors beside the blocks.
const BESIDE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), HEAD];
const HEAD: (&str, &str) = ("output", "lm_head");

const APART: Parts = &[
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
];
const JOINED: Parts = &[("attn_qkv", "self_attn.qkv_proj"), ("attn_output", "self_attn.o_proj")];
const NORMED_HEADS: Parts =
    &[("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")];
const PRE: Parts = &[("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")];
const SANDWICH: Parts = &[
    ("attn_norm", "input_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];
const GATED: Parts =
    &[("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj")];
/// The gate first, in files as in checkpoints.
const JOINED_GATED: Parts = &[("ffn_up", "mlp.gate_up_proj"), ("ffn_down", "mlp.down_proj")];

const SILU: &[&str] = &["silu", "swish"];
const GELU: &[&str] = &["gelu_pytorch_tanh", "gelu_new", "gelu_fast"];
const ATTENTION_BIAS: (&str, Option<&str>) = ("attn_", Some("attention_bias"));

const ARCHITECTURES: [Architecture; 7] = [
    Architecture {
        name: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        usual: &Usual::LLAMA,
        activation: SILU,
        block: &[APART, PRE, GATED],
        head: true,
        interleaved: true,
        raised: false,
        biases: &[ATTENTION_BIAS, ("ffn_", Some("mlp_bias"))],
        keys: &[],
        tensors: &[DIVISORS],
        scalings: &["linear", LLAMA3, YARN],
    },
    Architecture {
        name: "qwen2",
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        usual: &qwen::SECOND,
        activation: SILU,
        block: &[APART, PRE, GATED],
        head: true,
        interleaved: false,
        raised: false,
        biases: &[("attn_q", None), ("attn_k", None), ("attn_v", None)],
        keys: &[],
        tensors: &[],
        scalings: &["linear", YARN],
    },
    Architecture {
        name: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        usual: &qwen::THIRD,
        activation: SILU,
        block: &[APART, NORMED_HEADS, PRE, GATED],
        head: true,
        interleaved: false,
        raised: false,
        biases: &[ATTENTION_BIAS],
        keys: &[],
        tensors: &[],
        scalings: &["linear", YARN],
    },
    Architecture {
        name: "gemma",
        model_type: "gemma",
        class: "GemmaForCausalLM",
        usual: &gemmas::FIRST,
        // The first release's files say `gelu`, and mean the other.
        activation: &["gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu"],
        block: &[APART, PRE, GATED],
        head: false,
        interleaved: false,
        raised: true,
        biases: &[ATTENTION_BIAS],
        keys: &[],
        tensors: &[],
        scalings: &["linear"],
    },
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        usual: &gemmas::SECOND,
        activation: GELU,
        block: &[APART, SANDWICH, GATED],
        head: false,
        interleaved: false,
        raised: true,
        biases: &[ATTENTION_BIAS],
        keys: &[WINDOW, PATTERN, BOUNDS[0], BOUNDS[1]],
        tensors: &[],
        scalings: &["linear"],
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        usual: &gemmas::THIRD,
        activation: GELU,
        block: &[APART, NORMED_HEADS, SANDWICH, GATED],
        head: true,
        interleaved: false,
        raised: true,
        biases: &[ATTENTION_BIAS],
        keys: &[WINDOW, PATTERN, BOUNDS[1], LOCAL],
        tensors: &[],
        scalings: &["linear"],
    },
    Architecture {
        name: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        usual: &phi::USUAL,
        activation: SILU,
        block: &[JOINED, PRE, JOINED_GATED],
        head: true,
        interleaved: false,
        raised: false,
        biases: &[],
        keys: &[WINDOW, AMPLITUDE],
        tensors: &[SHORT, LONG],
        scalings: &["linear", "longrope", "su", "yarn"],
    },
];

impl Architecture {
    /// By its name in files.
    pub(super) fn of(name: &str) -> Result<&'static Self, String> {
        ARCHITECTURES.iter().find(|known| known.name == name).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.name).collect();
            format!(
                "it is of the architecture `{}`; those that are read: {}",
                super::header::short(name),
                known.join(", ")
            )
        })
    }

    /// By the `model_type` of a config.json.
    pub(super) fn of_model(model_type: &str) -> Result<&'static Self, String> {
        ARCHITECTURES.iter().find(|known| known.model_type == model_type).ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.model_type).collect();
            format!(
                "GGUF files are written of models of the types {}, not of `{model_type}`",
                known.join(", ")
            )
        })
    }

    /// The checkpoint's name of a file's tensor; none if models of this kind have none such.
    pub(super) fn own_name(&self, stored: &str) -> Option<String> {
        let (stem, last) = stored.rsplit_once('.').filter(|(_, last)| is_parameter(last))?;
        if let Some((_, own)) = self.beside().find(|(name, _)| *name == stem) {
            return Some(format!("{own}.{last}"));
        }
        let (number, part) = stem.strip_prefix("blk.")?.split_once('.')?;
        // Nothing but the number itself: `+1` and `01` would be another tensor of the same name.
        let number = number.parse::<u32>().ok().filter(|n| n.to_string() == number)?;
        let (_, own) = self.parts().find(|(name, _)| *name == part)?;
        let fits = last != "bias" || self.biases.iter().any(|(begin, _)| part.starts_with(begin));
        fits.then(|| format!("model.layers.{number}.{own}.{last}"))
    }

    /// The file's name of a checkpoint's tensor; none if files have no place for it.
    pub(super) fn stored_name(&self, own: &str) -> Option<String> {
        let (stem, last) = own.rsplit_once('.').filter(|(_, last)| is_parameter(last))?;
        if let Some((name, _)) = self.beside().find(|(_, known)| *known == stem) {
            return Some(format!("{name}.{last}"));
        }
        let (number, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
        let (name, _) = self.parts().find(|(_, known)| *known == part)?;
        Some(format!("blk.{number}.{name}.{last}"))
    }

    fn beside(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> + '_ {
        BESIDE.iter().filter(|part| self.head || **part != HEAD)
    }

    fn parts(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.block.iter().copied().flatten()
    }

    /// What a file makes of the tensor `own` of a model with so many heads of queries, and of keys.
    pub(super) fn arrangement(&self, own: &str, [queries, keys]: [i64; 2]) -> Arrangement {
        let is = |layer: &str| own.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with(layer));
        if self.interleaved && is(".q_proj") {
            Arrangement::Interleaved(queries)
        } else if self.interleaved && is(".k_proj") {
            Arrangement::Interleaved(keys)
        } else if self.raised && is("norm") {
            Arrangement::Raised
        } else {
            Arrangement::Own
        }
    }
}

fn is_parameter(last: &str) -> bool {
    matches!(last, "weight" | "bias")
}
