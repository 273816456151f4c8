//! What can go wrong with models, weights and tokenizers.

use std::path::{Path, PathBuf};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error about a model, its weights or its tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A model's config.json does not describe a model that can be built.
    #[error("{path}: {problem}", path = path.display())]
    Config {
        /// The config.json.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// No code runs models of this kind.
    #[error("models of the kind `{name}` are not built; the kinds are: {known}")]
    UnknownBackbone {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A kind of model has no head for what the task wants.
    #[error(
        "the task wants a model that {wanted}, which models of the kind `{name}` are not built to do; \
         these are: {known}"
    )]
    NoHead {
        /// The kind.
        name: String,
        /// What the task wants of a model.
        wanted: &'static str,
        /// The kinds that do.
        known: String,
    },
    /// A weight or adapter file is damaged or of another format.
    #[error("{path}: not a readable {format} file: {problem}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        format: &'static str,
        /// What is wrong, and what would be right where that is known.
        problem: String,
    },
    /// A folder holds no weights.
    #[error("{path}: no weights here; looked for {looked_for}", path = path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// The names that would do.
        looked_for: String,
    },
    /// Weights and model do not fit.
    #[error("{path} does not fit the model:{problems}", path = path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// One line each.
        problems: Listing,
    },
    /// A method trains what the precision would round.
    #[error("the method `{method}` trains the model's own weights, so they must stay in single precision (precision=fp32), not {base:?}")]
    Precision {
        /// The method's name.
        method: &'static str,
        /// What was asked for.
        base: tch::Kind,
    },
    /// A target pattern selects nothing, or is no pattern.
    #[error("target modules: {0}")]
    Targets(String),
    /// A module that is to train in full is none of the model's.
    #[error("train_modules: {0}")]
    TrainModules(String),
    /// A folder holds no tokenizer.
    #[error(
        "{path}: no tokenizer here: expected `tokenizer.json`, a SentencePiece `spm.model` or \
         `tokenizer.model`, `vocab.json` with `merges.txt`, or a WordPiece `vocab.txt`{unread}",
        path = path.display(),
        unread = not_read(*unread)
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
        /// A file in it with a tokenizer of a kind that is not read.
        unread: Option<&'static str>,
    },
    /// A tokenizer is damaged.
    #[error("{path}: {problem}", path = path.display())]
    Tokenizer {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A chat template is none, or cannot write a conversation.
    #[error("{path}: the chat template: {problem}", path = path.display())]
    ChatTemplate {
        /// The file or folder that it comes from.
        path: PathBuf,
        /// What is wrong, or what the template says.
        problem: String,
    },
    /// A text cannot be encoded.
    #[error("cannot encode a text: {0}")]
    Encode(String),
    /// Something is asked of a model that is not built for it.
    #[error("{0}")]
    Unbuilt(String),
    /// A text, or one to be written, has more tokens than the model has positions.
    #[error("{0}")]
    Length(String),
    /// The search for a text cannot be made.
    #[error("generation: {0}")]
    Generation(String),
    /// The model's forward pass failed.
    #[error("forward pass: {0}")]
    Forward(String),
    /// The core refused something.
    #[error(transparent)]
    Core(#[from] aflora_core::Error),
    /// libtorch refused an operation.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// Text is asked of a model without a language head.
    pub(crate) fn does_not_write() -> Error {
        Error::Unbuilt("this model does not write".into())
    }

    /// Classes of tokens are asked of a model that has no head for them.
    pub(crate) fn does_not_tag() -> Error {
        Error::Unbuilt("this model does not label tokens".into())
    }

    /// An [`Error::Io`] at `path`, for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }
}

/// What to do with a tokenizer's file that is not read.
fn not_read(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| {
        format!(
            "; `{name}` is not read: transformers' AutoTokenizer makes a tokenizer.json of it \
             (from_pretrained, then save_pretrained)"
        )
    })
}

/// `problem`, with what to do where a download that broke off can be the reason.
pub(crate) fn cut(problem: String) -> String {
    format!("{problem}; it may be truncated: get it again")
}

/// Lines of a listing, each on a line of its own below the sentence; long ones are cut.
#[derive(Debug)]
pub struct Listing(pub Vec<String>);

impl std::fmt::Display for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 20;
        for line in self.0.iter().take(SHOWN) {
            write!(f, "\n  {line}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  … and {more} more"),
        }
    }
}
