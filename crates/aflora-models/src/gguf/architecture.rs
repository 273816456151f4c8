//! The kinds of models that GGUF files are read of: which tensor of theirs is which of Hugging
//! Face's.

use super::arrangement::Arrangement;

/// A kind of model.
#[derive(Debug)]
pub(super) struct Architecture {
    /// Its `general.architecture`.
    pub name: &'static str,
    /// The `model_type` of its config.json, and its class that writes.
    pub model_type: &'static str,
    pub class: &'static str,
    /// The tensors of a block by their names in a file and in a checkpoint.
    block: &'static [(&'static str, &'static str)],
    /// Whether queries and keys are [interleaved](Arrangement::Interleaved).
    interleaved: bool,
    /// Whether queries, keys and values have biases that config.json does not tell of.
    pub biases: bool,
}

/// Tensors beside the blocks.
const BESIDE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// LLaMA's block, which others share.
const LLAMA: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Qwen 3's, which has norms of queries and keys.
const QWEN3: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const ARCHITECTURES: [Architecture; 3] = [
    Architecture {
        name: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        block: LLAMA,
        interleaved: true,
        biases: false,
    },
    Architecture {
        name: "qwen2",
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        block: LLAMA,
        interleaved: false,
        biases: true,
    },
    Architecture {
        name: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        block: QWEN3,
        interleaved: false,
        biases: false,
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
        if let Some((_, own)) = BESIDE.iter().find(|(name, _)| *name == stem) {
            return Some(format!("{own}.{last}"));
        }
        let (number, part) = stem.strip_prefix("blk.")?.split_once('.')?;
        // Nothing but the number itself: `+1` and `01` would be another tensor of the same name.
        let number = number.parse::<u32>().ok().filter(|n| n.to_string() == number)?;
        let (_, own) = self.block.iter().find(|(name, _)| *name == part)?;
        Some(format!("model.layers.{number}.{own}.{last}"))
    }

    /// The file's name of a checkpoint's tensor; none if files have no place for it.
    pub(super) fn stored_name(&self, own: &str) -> Option<String> {
        let (stem, last) = own.rsplit_once('.').filter(|(_, last)| is_parameter(last))?;
        if let Some((name, _)) = BESIDE.iter().find(|(_, known)| *known == stem) {
            return Some(format!("{name}.{last}"));
        }
        let (number, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
        let (name, _) = self.block.iter().find(|(_, known)| *known == part)?;
        Some(format!("blk.{number}.{name}.{last}"))
    }

    /// What a file makes of the tensor `own` of a model with so many heads of queries, and of keys.
    pub(super) fn arrangement(&self, own: &str, [queries, keys]: [i64; 2]) -> Arrangement {
        let is = |layer: &str| own.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with(layer));
        match self.interleaved {
            true if is(".q_proj") => Arrangement::Interleaved(queries),
            true if is(".k_proj") => Arrangement::Interleaved(keys),
            _ => Arrangement::Own,
        }
    }
}

fn is_parameter(last: &str) -> bool {
    matches!(last, "weight" | "bias")
}
