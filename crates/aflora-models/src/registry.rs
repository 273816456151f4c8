//! The kinds of models that are built, each in one line: its names, its code, its usual targets.

use crate::backbone::Backbone;
use crate::bodies::bert_like::{albert, bert, distilbert, electra, mpnet, roberta};
use crate::bodies::gpt::{gpt2, gpt_j, gpt_neo};
use crate::bodies::llama_like::{gemma, gpt_neox, llama, mistral, phi3, qwen, smollm3};
use crate::bodies::{bart, deberta, modernbert, t5};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::{claims, panics, Error, Result};
use std::path::Path;

type Build = fn(ConfigFile, Head, &Options) -> Result<Box<dyn Backbone>>;

/// A kind of model.
struct ModelKind {
    /// The kind's name, which is the `model_type` of its config.json, and further ones of the same
    /// network; each with what the names of its classes in transformers begin with.
    types: &'static [(&'static str, &'static str)],
    /// The class of transformers with a language head; none of a model that does not write.
    writes: Option<&'static str>,
    /// Whether transformers has a class of it for tokens' classes.
    tags: bool,
    build: Build,
    /// Whether positions turn vectors or count by their distances, and have no row each in a table.
    rotary: bool,
    /// The layers that get an adapter where nobody says which: those of the shipped configurations,
    /// or, where none is shipped, PEFT's.
    targets: &'static [&'static str],
}

impl ModelKind {
    fn name(&self) -> &'static str {
        self.types[0].0
    }

    /// Refuses the config.json of a model of another kind.
    fn check_type(&self, file: &ConfigFile) -> Result<()> {
        let types: Vec<&str> = self.types.iter().map(|(name, _)| *name).collect();
        match file.model_type().filter(|found| !types.contains(found)) {
            None => Ok(()),
            Some(found) => Err(file.problem(format!(
                "model_type is `{found}`, but the backbone `{}` wants `{}`",
                self.name(),
                types.join("` or `")
            ))),
        }
    }

    fn has(&self, head: Head) -> bool {
        match head {
            Head::Classes(_) | Head::Scores(_) => true,
            Head::Tokens(_) => self.tags,
            Head::Language => self.writes.is_some(),
        }
    }
}

/// The linear layers of a block of BERT's names.
const BERT_LAYERS: &[&str] = &["query", "key", "value", "intermediate.dense", "output.dense"];

/// What PEFT puts adapters on in LLaMA's kin.
const QUERIES_VALUES: &[&str] = &["q_proj", "v_proj"];

const KINDS: &[ModelKind] = &[
    ModelKind {
        types: &[("albert", "Albert")],
        writes: None,
        tags: true,
        build: albert::build,
        rotary: false,
        targets: &["query", "key", "value", "ffn", "ffn_output"],
    },
    ModelKind {
        types: &[("bart", "Bart")],
        writes: Some("BartForConditionalGeneration"),
        tags: false,
        build: bart::build,
        rotary: false,
        targets: &["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    },
    ModelKind {
        types: &[("bert", "Bert")],
        writes: None,
        tags: true,
        build: bert::build,
        rotary: false,
        targets: BERT_LAYERS,
    },
    ModelKind {
        types: &[("deberta", "Deberta")],
        writes: None,
        tags: true,
        build: deberta::build_v1,
        rotary: false,
        targets: &["in_proj", "intermediate.dense", "output.dense"],
    },
    ModelKind {
        types: &[("deberta-v2", "DebertaV2")],
        writes: None,
        tags: true,
        build: deberta::build,
        rotary: false,
        targets: &["query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"],
    },
    ModelKind {
        types: &[("distilbert", "DistilBert")],
        writes: None,
        tags: true,
        build: distilbert::build,
        rotary: false,
        targets: &["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    },
    ModelKind {
        types: &[("electra", "Electra")],
        writes: None,
        tags: true,
        build: electra::build,
        rotary: false,
        targets: BERT_LAYERS,
    },
    ModelKind {
        types: &[("gemma", "Gemma")],
        writes: Some("GemmaForCausalLM"),
        tags: true,
        build: gemma::gemma,
        rotary: true,
        targets: QUERIES_VALUES,
    },
    ModelKind {
        types: &[("gemma2", "Gemma2")],
        writes: Some("Gemma2ForCausalLM"),
        tags: true,
        build: gemma::gemma2,
        rotary: true,
        targets: QUERIES_VALUES,
    },
    ModelKind {
        types: &[("gemma3_text", "Gemma3Text")],
        writes: Some("Gemma3ForCausalLM"),
        tags: false,
        build: gemma::gemma3_text,
        rotary: true,
        targets: QUERIES_VALUES,
    },
    ModelKind {
        types: &[("gpt2", "GPT2")],
        writes: Some("GPT2LMHeadModel"),
        tags: true,
        build: gpt2::build,
        rotary: false,
        targets: &["c_attn", "c_proj", "c_fc"],
    },
    ModelKind {
        types: &[("gpt_neo", "GPTNeo")],
        writes: Some("GPTNeoForCausalLM"),
        tags: true,
        build: gpt_neo::build,
        rotary: false,
        targets: &["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"],
    },
    ModelKind {
        types: &[("gpt_neox", "GPTNeoX")],
        writes: Some("GPTNeoXForCausalLM"),
        tags: true,
        build: gpt_neox::build,
        rotary: true,
        targets: &["query_key_value"],
    },
    ModelKind {
        types: &[("gptj", "GPTJ")],
        writes: Some("GPTJForCausalLM"),
        tags: false,
        build: gpt_j::build,
        rotary: true,
        targets: &["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"],
    },
    ModelKind {
        types: &[("llama", "Llama")],
        writes: Some("LlamaForCausalLM"),
        tags: true,
        build: llama::build,
        rotary: true,
        targets: &["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
    },
    ModelKind {
        types: &[("mistral", "Mistral")],
        writes: Some("MistralForCausalLM"),
        tags: true,
        build: mistral::build,
        rotary: true,
        targets: QUERIES_VALUES,
    },
    ModelKind {
        types: &[("modernbert", "ModernBert")],
        writes: None,
        tags: true,
        build: modernbert::build,
        rotary: true,
        targets: &["Wqkv", "Wo", "Wi"],
    },
    ModelKind {
        types: &[("mpnet", "MPNet")],
        writes: None,
        tags: true,
        build: mpnet::build,
        rotary: false,
        targets: &["q", "k", "v", "o", "intermediate.dense", "output.dense"],
    },
    ModelKind {
        types: &[("phi3", "Phi3")],
        writes: Some("Phi3ForCausalLM"),
        tags: true,
        build: phi3::build,
        rotary: true,
        targets: &["qkv_proj"],
    },
    ModelKind {
        types: &[("qwen2", "Qwen2")],
        writes: Some("Qwen2ForCausalLM"),
        tags: true,
        build: qwen::qwen2,
        rotary: true,
        targets: QUERIES_VALUES,
    },
    ModelKind {
        types: &[("qwen3", "Qwen3")],
        writes: Some("Qwen3ForCausalLM"),
        tags: true,
        build: qwen::qwen3,
        rotary: true,
        targets: QUERIES_VALUES,
    },
    ModelKind {
        types: &[("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"), ("camembert", "Camembert")],
        writes: None,
        tags: true,
        build: roberta::build,
        rotary: false,
        targets: BERT_LAYERS,
    },
    ModelKind {
        types: &[("smollm3", "SmolLM3")],
        writes: Some("SmolLM3ForCausalLM"),
        tags: true,
        build: smollm3::build,
        rotary: true,
        targets: QUERIES_VALUES,
    },
    ModelKind {
        types: &[("t5", "T5")],
        writes: Some("T5ForConditionalGeneration"),
        tags: true,
        build: t5::build,
        rotary: true,
        targets: &["q", "v"],
    },
];

/// The names of all kinds.
pub fn kinds() -> Vec<&'static str> {
    KINDS.iter().map(ModelKind::name).collect()
}

/// The kind `name`, which has such a head.
fn entry(name: &str, head: Head) -> Result<&'static ModelKind> {
    let known = |entries: &mut dyn Iterator<Item = &ModelKind>| {
        entries.map(ModelKind::name).collect::<Vec<_>>().join(", ")
    };
    let Some(entry) = KINDS.iter().find(|entry| entry.name() == name) else {
        let known = known(&mut KINDS.iter());
        return Err(Error::UnknownBackbone { name: name.into(), known });
    };
    if !entry.has(head) {
        let known = known(&mut KINDS.iter().filter(|entry| entry.has(head)));
        let wanted = match head {
            Head::Classes(_) | Head::Scores(_) => "labels texts",
            Head::Tokens(_) => "labels tokens",
            Head::Language => "writes text",
        };
        return Err(Error::NoHead { name: name.into(), wanted, known });
    }
    Ok(entry)
}

/// Refuses a kind that is not built, or not with such a head, before anything is fetched for it.
///
/// # Errors
/// It is not, with the names of those that are.
pub fn check_kind(kind: &str, head: Head) -> Result<()> {
    entry(kind, head).map(drop)
}

/// A kind with the layers of it that get an adapter where nobody says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// The kind's name.
    pub kind: &'static str,
    /// Names, for [`Pattern::Names`](crate::Pattern::Names).
    pub targets: &'static [&'static str],
}

/// The entry of a `model_type`, and how the names of its classes begin.
fn of_type(model_type: &str) -> Option<(&'static ModelKind, &'static str)> {
    KINDS.iter().find_map(|entry| {
        let (_, class) = entry.types.iter().find(|(name, _)| *name == model_type)?;
        Some((entry, *class))
    })
}

/// The kind that runs the model of a `config.json`, by its `model_type`.
///
/// # Errors
/// The file cannot be read, names no `model_type`, or one that is not built.
pub fn kind_of(config: &Path) -> Result<Usual> {
    let file = ConfigFile::open(config)?;
    let every = kinds().join(", ");
    let Some(name) = file.model_type() else {
        let problem = format!("it names no `model_type`, which would be one of: {every}");
        return Err(file.problem(problem));
    };
    match of_type(name) {
        Some((entry, _)) => Ok(Usual { kind: entry.name(), targets: entry.targets }),
        None => {
            Err(file
                .problem(format!("models of the type `{name}` are not built; there are: {every}")))
        }
    }
}

/// The class of transformers that opens a model of this `model_type` with such a head.
pub(crate) fn class_in_transformers(model_type: &str, head: Head) -> Option<String> {
    let (entry, class) = of_type(model_type)?;
    Some(match head {
        Head::Language => entry.writes?.to_string(),
        Head::Classes(_) | Head::Scores(_) => format!("{class}ForSequenceClassification"),
        Head::Tokens(_) if entry.tags => format!("{class}ForTokenClassification"),
        Head::Tokens(_) => return None,
    })
}

/// Builds the model of the kind `kind` that a Hugging Face `config.json` describes, with `head`.
/// Its weights hold nothing of use until they are loaded
/// ([`weights::load`](crate::weights::load)) or initialised.
///
/// # Errors
/// The file is unreadable, describes another architecture than `kind`, or one that is not built;
/// `kind` is not built with such a head, or not as `options` ask for; the machine has not the
/// memory.
pub fn build(
    kind: &str,
    config: &Path,
    head: Head,
    options: &Options,
) -> Result<Box<dyn Backbone>> {
    let entry = entry(kind, head)?;
    let file = ConfigFile::open(config)?;
    entry.check_type(&file)?;
    claims::check(&file, entry.rotary)?;
    let built = panics::catch_reading(|| (entry.build)(file, head, options));
    let model = built.unwrap_or_else(|problem| {
        let problem = format!("the model that it describes cannot be built: {problem}");
        Err(Error::Config { path: config.to_path_buf(), problem })
    })?;
    options.widen(model.var_store(), model.about().head_modules);
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_names_of_transformers() {
        for (model_type, head, expected) in [
            ("llama", Head::Language, "LlamaForCausalLM"),
            ("llama", Head::Scores(1), "LlamaForSequenceClassification"),
            ("gpt2", Head::Language, "GPT2LMHeadModel"),
            ("gptj", Head::Classes(2), "GPTJForSequenceClassification"),
            ("bart", Head::Language, "BartForConditionalGeneration"),
            ("xlm-roberta", Head::Classes(2), "XLMRobertaForSequenceClassification"),
            ("llama", Head::Tokens(5), "LlamaForTokenClassification"),
            ("t5", Head::Tokens(5), "T5ForTokenClassification"),
            ("gemma3_text", Head::Language, "Gemma3ForCausalLM"),
            ("gemma3_text", Head::Classes(2), "Gemma3TextForSequenceClassification"),
        ] {
            assert_eq!(class_in_transformers(model_type, head).as_deref(), Some(expected));
        }
        assert_eq!(class_in_transformers("bert", Head::Language), None);
        assert_eq!(class_in_transformers("gptj", Head::Tokens(3)), None);
        assert_eq!(class_in_transformers("mt5", Head::Scores(1)), None);
    }
}
