//! What a model must tell and do to be fine-tuned.

use crate::bodies::gpt::{gpt2, gpt_j, gpt_neo};
use crate::bodies::rust_bert::{albert, bert, distilbert, electra, roberta};
use crate::bodies::{bart, deberta, llama};
use crate::config_file::ConfigFile;
use crate::generate::Writer;
use crate::{claims, foreign};
use crate::{Error, Result};
use aflora_core::{Block, Checkpoints, Site};
use serde_json::Value;
use std::cell::RefCell;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tch_facade::{nn, CapturedLinear};

/// One batch of token sequences, padded to a common length.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, `[batch, length]`, Int64.
    pub input_ids: Tensor,
    /// 1 for a token, 0 for padding, `[batch, length]`, Int64.
    pub attention_mask: Tensor,
    /// 0 for the first text, 1 for the second, `[batch, length]`, Int64; all 0 if not given.
    pub token_type_ids: Option<Tensor>,
    /// What the decoder of an encoder-decoder reads, `[batch, target length]`, Int64.
    pub decoder_input_ids: Option<Tensor>,
    /// Whether padding stands before the texts, as decoding wants it, and not behind them.
    pub left_padded: bool,
}

impl Batch {
    /// A batch of single texts, padded on the right.
    pub fn new(input_ids: Tensor, attention_mask: Tensor) -> Self {
        Batch {
            input_ids,
            attention_mask,
            token_type_ids: None,
            decoder_input_ids: None,
            left_padded: false,
        }
    }

    /// The token types, zeros if there are none.
    pub(crate) fn types(&self) -> Tensor {
        let types = self.token_type_ids.as_ref();
        types.map_or_else(|| self.input_ids.zeros_like(), Tensor::shallow_clone)
    }
}

/// A linear layer of a backbone, with its name and the slot for an adapter.
#[derive(Debug)]
pub struct InjectableLinear {
    /// Name, shape and block.
    pub site: Site,
    /// The layer.
    pub layer: CapturedLinear,
}

/// A pretrained model: one with a classification or regression head, or one that writes text.
pub trait Backbone: std::fmt::Debug {
    /// Logits, fp32: `[batch, labels]`, or of a model that writes `[batch, length, vocabulary]`,
    /// for each token those of the next.
    ///
    /// `train` switches the model's own dropout on.
    fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor>;

    /// All weights, under the names of Hugging Face checkpoints.
    fn var_store(&self) -> &nn::VarStore;

    /// The linear layers that an adapter can be put on, in the order of the forward pass.
    fn linears(&self) -> &[InjectableLinear];

    /// The task head's modules: new in a fresh fine-tuning, trained in full.
    fn head(&self) -> &'static [&'static str];

    /// The modules that a pretrained checkpoint may lack: the head, and what comes before it
    /// without having been pretrained. They get a random start then.
    fn new_modules(&self) -> &'static [&'static str] {
        self.head()
    }

    /// The checkpoint prefix that some files leave out, such as `bert.`.
    fn prefix(&self) -> &'static str;

    /// The longest sequence that the model can read.
    fn max_positions(&self) -> i64;

    /// Size of the token vocabulary.
    fn vocab_size(&self) -> i64;

    /// The model as one that writes, if it does.
    fn writer(&self) -> Option<&dyn Writer> {
        None
    }

    /// The checkpoints of the last training pass, for the backward pass; empty where the model
    /// keeps everything.
    fn take_checkpoints(&self) -> Checkpoints {
        Checkpoints::default()
    }

    /// Weights that stand in for others: a name, and the names under which checkpoints may hold
    /// the same weight, again or instead.
    fn tied(&self) -> &'static [Tied] {
        &[]
    }

    /// Gives `name`, a further name of a [tied](Self::tied) weight, a place of its own, for a
    /// checkpoint that holds other values under it; none where that is not built.
    fn untie(&self, _name: &str) -> Option<Tensor> {
        None
    }

    /// Weights that a checkpoint may leave out, and that are zero then.
    fn optional(&self) -> &'static [&'static str] {
        &[]
    }
}

/// The name of a weight, and its further names.
pub type Tied = (&'static str, &'static [&'static str]);

type BuildClassifier = fn(&Path, i64, Device) -> Result<Box<dyn Backbone>>;
type BuildWriter = fn(&Path, &WriterOptions) -> Result<Box<dyn Backbone>>;

/// A kind of backbone.
struct Entry<B> {
    /// The `model_type` of its config.json.
    name: &'static str,
    /// Further ones of the same network.
    also: &'static [&'static str],
    build: B,
    /// The layers that get an adapter where nobody says which: those of the shipped configurations.
    targets: &'static [&'static str],
}

/// The linear layers of a block of BERT's names.
const BERT_LAYERS: &[&str] = &["query", "key", "value", "intermediate.dense", "output.dense"];

/// The kinds that classify.
const CLASSIFIERS: [Entry<BuildClassifier>; 6] = [
    Entry {
        name: "albert",
        also: &[],
        build: albert::build,
        targets: &["query", "key", "value", "ffn", "ffn_output"],
    },
    Entry { name: "bert", also: &[], build: bert::build, targets: BERT_LAYERS },
    Entry {
        name: "deberta-v2",
        also: &[],
        build: deberta::build,
        targets: &["query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"],
    },
    Entry {
        name: "distilbert",
        also: &[],
        build: distilbert::build,
        targets: &["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    },
    Entry { name: "electra", also: &[], build: electra::build, targets: BERT_LAYERS },
    Entry {
        name: "roberta",
        also: &["xlm-roberta", "camembert"],
        build: roberta::build,
        targets: BERT_LAYERS,
    },
];

/// The kinds that write text.
const WRITERS: [Entry<BuildWriter>; 5] = [
    Entry {
        name: "bart",
        also: &[],
        build: bart::build,
        targets: &["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    },
    Entry { name: "gpt2", also: &[], build: gpt2::build, targets: &["c_attn", "c_proj", "c_fc"] },
    Entry {
        name: "gpt_neo",
        also: &[],
        build: gpt_neo::build,
        targets: &["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"],
    },
    Entry {
        name: "gptj",
        also: &[],
        build: gpt_j::build,
        targets: &["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"],
    },
    Entry {
        name: "llama",
        also: &[],
        build: llama::build,
        targets: &["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
    },
];

/// What a model is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Classes, or a score.
    Classify,
    /// Text.
    Write,
}

/// The names of the kinds for a purpose.
pub fn kinds(purpose: Purpose) -> Vec<&'static str> {
    match purpose {
        Purpose::Classify => CLASSIFIERS.iter().map(|entry| entry.name).collect(),
        Purpose::Write => WRITERS.iter().map(|entry| entry.name).collect(),
    }
}

/// Refuses a kind that is not built for `purpose`, before anything is fetched for it.
pub fn check_kind(kind: &str, purpose: Purpose) -> Result<()> {
    let other = match purpose {
        Purpose::Classify => Purpose::Write,
        Purpose::Write => Purpose::Classify,
    };
    let known = kinds(purpose);
    if known.contains(&kind) {
        return Ok(());
    }
    let (name, known) = (kind.to_string(), known.join(", "));
    Err(match kinds(other).contains(&kind) {
        true => Error::Purpose {
            name,
            does: if other == Purpose::Write { "write text" } else { "classify" },
            wanted: if purpose == Purpose::Write { "writes text" } else { "classifies" },
            known,
        },
        false => Error::UnknownBackbone { name, known },
    })
}

/// A kind with the layers of it that get an adapter where nobody says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual {
    /// The kind's name.
    pub kind: &'static str,
    /// Names, for [`Pattern::Names`](crate::Pattern::Names).
    pub targets: &'static [&'static str],
}

/// The kind that runs the model of a `config.json`, by its `model_type`.
///
/// # Errors
/// The file cannot be read, names no `model_type`, or one that is not built.
pub fn kind_of(config: &Path) -> Result<Usual> {
    let file = ConfigFile::open(config)?;
    let every = || [kinds(Purpose::Classify), kinds(Purpose::Write)].concat().join(", ");
    let Some(name) = file.keys().get("model_type").and_then(Value::as_str) else {
        let problem = format!("it names no `model_type`, which would be one of: {}", every());
        return Err(file.problem(problem));
    };
    fn of<B>(entries: &[Entry<B>], name: &str) -> Option<Usual> {
        let entry = entries.iter().find(|e| e.name == name || e.also.contains(&name))?;
        Some(Usual { kind: entry.name, targets: entry.targets })
    }
    of(&CLASSIFIERS, name).or_else(|| of(&WRITERS, name)).ok_or_else(|| {
        file.problem(format!("models of the type `{name}` are not built; there are: {}", every()))
    })
}

/// Builds the classifier that a Hugging Face `config.json` describes. Its weights hold nothing
/// of use until they are loaded ([`weights::load`](crate::weights::load)) or initialised.
///
/// `labels` is the number of logits: the classes, or 1 for a regression.
///
/// # Errors
/// The file is unreadable, describes another architecture than `kind`, or one that is not built.
pub fn build(kind: &str, config: &Path, labels: i64, device: Device) -> Result<Box<dyn Backbone>> {
    check_kind(kind, Purpose::Classify)?;
    let found = CLASSIFIERS.iter().find(|entry| entry.name == kind);
    found.map_or_else(
        || Err(unknown(kind)),
        |entry| whole(config, || (entry.build)(config, labels, device)),
    )
}

/// How a model that writes is built.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Where its weights are.
    pub device: Device,
    /// The kind that its frozen weights are made in, so that a large model never takes twice its
    /// size.
    pub base: Kind,
    /// Keeps only each block's input for the backward pass, and runs blocks twice.
    pub checkpointing: bool,
}

impl WriterOptions {
    /// Single precision, nothing run twice.
    pub fn new(device: Device) -> Self {
        WriterOptions { device, base: Kind::Float, checkpointing: false }
    }

    /// An empty store for the weights.
    pub(crate) fn var_store(&self) -> nn::VarStore {
        let mut vs = nn::VarStore::new(self.device);
        vs.set_kind(self.base);
        vs
    }

    pub(crate) fn checkpoints(&self) -> Option<RefCell<Checkpoints>> {
        self.checkpointing.then(RefCell::default)
    }
}

/// Builds the model of `config.json` that writes text; as [`build`].
pub fn build_writer(
    kind: &str,
    config: &Path,
    options: &WriterOptions,
) -> Result<Box<dyn Backbone>> {
    check_kind(kind, Purpose::Write)?;
    let found = WRITERS.iter().find(|entry| entry.name == kind);
    found.map_or_else(
        || Err(unknown(kind)),
        |entry| whole(config, || (entry.build)(config, options)),
    )
}

/// A model of plausible size, or why there is none: a machine without the memory for it, too.
fn whole<T>(config: &Path, build: impl FnOnce() -> Result<T>) -> Result<T> {
    claims::check(config)?;
    foreign::held(build).unwrap_or_else(|problem| {
        let problem = format!("the model that it describes cannot be built: {problem}");
        Err(Error::Config { path: config.to_path_buf(), problem })
    })
}

fn unknown(kind: &str) -> Error {
    Error::UnknownBackbone { name: kind.to_string(), known: String::new() }
}

/// Runs `build`; what it builds has shapes, and its large weights take no memory. It can be
/// looked at, but neither loaded nor run.
pub fn shapes_only<T>(build: impl FnOnce() -> T) -> T {
    tch_facade::without_weights(build)
}

/// Names the captured layers after the variables that hold their weights, and keeps those for
/// which `block` knows a place in a transformer block.
pub(crate) fn name_linears(
    vs: &nn::VarStore,
    captured: Vec<CapturedLinear>,
    block: fn(&str) -> Option<Block>,
) -> Vec<InjectableLinear> {
    let names: std::collections::HashMap<usize, String> =
        vs.variables().into_iter().map(|(name, t)| (t.data_ptr() as usize, name)).collect();
    captured
        .into_iter()
        .filter_map(|layer| {
            let name = names.get(&(layer.ws.data_ptr() as usize))?.strip_suffix(".weight")?;
            let (rows, columns) = layer.ws.size2().ok()?;
            let (out_features, in_features) =
                if layer.transposed { (columns, rows) } else { (rows, columns) };
            let site =
                Site { name: name.to_string(), in_features, out_features, block: block(name)? };
            Some(InjectableLinear { site, layer })
        })
        .collect()
}
