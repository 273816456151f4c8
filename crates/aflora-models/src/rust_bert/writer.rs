//! rust-bert's models that write, as backbones.
//!
//! A further one is a [`Model`]: how it reads tokens, with and without what it remembers. The
//! memory is a list of tensors a layer, texts in the first dimension, whatever rust-bert calls
//! it.

use crate::backbone::{name_linears, Backbone, Batch, InjectableLinear, Tied, WriterOptions};
use crate::generate::{SpecialTokens, Writer, Writing};
use crate::{Error, Result};
use aflora_core::Block;
use tch::{Kind, Tensor};
use tch_facade::nn;

/// What each layer remembers of the tokens read.
pub(super) type Memory = Vec<Vec<Tensor>>;

/// What a pass reads beside the new tokens.
pub(super) struct Context<'a> {
    /// The source's mask of an encoder-decoder; of a decoder which of all tokens so far are
    /// real, none where all are.
    pub mask: Option<&'a Tensor>,
    /// The source of an encoder-decoder, where it is still to be encoded.
    pub source: Option<&'a Tensor>,
    /// What the encoder made of the source.
    pub encoded: Option<&'a Tensor>,
    pub memory: Option<&'a Memory>,
    pub train: bool,
}

/// What a pass gives.
pub(super) struct Output {
    /// The last layer's output.
    pub hidden: Tensor,
    /// The memory with the new tokens in it.
    pub memory: Memory,
    /// What the encoder made of the source, if it was encoded.
    pub encoded: Option<Tensor>,
}

/// What sets one model apart from another.
pub(super) trait Model {
    /// Reads the tokens `ids`.
    fn read(&self, ids: &Tensor, context: &Context) -> Result<Output>;

    /// Logits from the last layer's output.
    fn logits(&self, hidden: &Tensor) -> Tensor;
}

/// What is known of a model beside its code.
pub(super) struct About {
    pub block: fn(&str) -> Option<Block>,
    pub prefix: &'static str,
    pub tied: &'static [Tied],
    pub optional: &'static [&'static str],
    pub tokens: SpecialTokens,
    pub max_positions: i64,
    pub vocab_size: i64,
}

/// A rust-bert model that writes.
pub(super) struct RustBertWriter<M> {
    vs: nn::VarStore,
    model: M,
    linears: Vec<InjectableLinear>,
    about: About,
}

impl<M: Model> RustBertWriter<M> {
    pub(super) fn new(
        options: &WriterOptions,
        about: About,
        build: impl FnOnce(&nn::Path) -> Result<M>,
    ) -> Result<Self> {
        if options.checkpointing {
            return Err(Error::Unbuilt(
                "gradient checkpointing goes block by block; rust-bert's models run as a whole"
                    .into(),
            ));
        }
        // rust-bert makes some tensors in single precision: cast later, by name.
        let mut vs = nn::VarStore::new(options.device);
        let (model, captured) = tch_facade::capture(|| build(&vs.root()));
        let model = model?;
        let linears = name_linears(&vs, captured, about.block);
        // A causal mask that rust-bert keeps among the weights, and does not read from there.
        if let Ok(mut variables) = vs.variables_.lock() {
            variables.named_variables.retain(|name, _| !name.ends_with(".attn.bias"));
        }
        vs.freeze();
        Ok(RustBertWriter { vs, model, linears, about })
    }

    fn check_length(&self, length: i64) -> Result<()> {
        if length > self.about.max_positions {
            return Err(Error::Forward(format!(
                "{length} tokens are more than the model's {} positions",
                self.about.max_positions
            )));
        }
        Ok(())
    }
}

impl<M> std::fmt::Debug for RustBertWriter<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RustBertWriter").field("linears", &self.linears).finish_non_exhaustive()
    }
}

/// What is read first, with its mask.
struct Beginning<'a> {
    ids: &'a Tensor,
    source: Option<&'a Tensor>,
    mask: Option<&'a Tensor>,
}

impl<M: Model> RustBertWriter<M> {
    fn beginning<'a>(&self, batch: &'a Batch) -> Result<Beginning<'a>> {
        let ids = batch.decoder_input_ids.as_ref().unwrap_or(&batch.input_ids);
        let length = ids.size()[1];
        self.check_length(length)?;
        Ok(match (&batch.decoder_input_ids, batch.left_padded) {
            (Some(ids), _) => {
                self.check_length(batch.input_ids.size()[1])?;
                let (source, mask) = (Some(&batch.input_ids), Some(&batch.attention_mask));
                Beginning { ids, source, mask }
            }
            (None, true) => Beginning { ids, source: None, mask: Some(&batch.attention_mask) },
            // Padding on the right is hidden by the causal mask.
            (None, false) => Beginning { ids, source: None, mask: None },
        })
    }
}

impl<M: Model> Backbone for RustBertWriter<M> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        if self.about.tokens.decoder_start.is_some() && batch.decoder_input_ids.is_none() {
            return Err(Error::Forward("an encoder-decoder needs what its decoder reads".into()));
        }
        let Beginning { ids, source, mask } = self.beginning(batch)?;
        let context = Context { mask, source, encoded: None, memory: None, train };
        let hidden = self.model.read(ids, &context)?.hidden;
        Ok(self.model.logits(&hidden).to_kind(Kind::Float))
    }

    fn var_store(&self) -> &nn::VarStore {
        &self.vs
    }

    fn linears(&self) -> &[InjectableLinear] {
        &self.linears
    }

    fn head(&self) -> &'static [&'static str] {
        &[]
    }

    fn prefix(&self) -> &'static str {
        self.about.prefix
    }

    fn max_positions(&self) -> i64 {
        self.about.max_positions
    }

    fn vocab_size(&self) -> i64 {
        self.about.vocab_size
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn tied(&self) -> &'static [Tied] {
        self.about.tied
    }

    fn optional(&self) -> &'static [&'static str] {
        self.about.optional
    }
}

impl<M: Model> Writer for RustBertWriter<M> {
    fn tokens(&self) -> &SpecialTokens {
        &self.about.tokens
    }

    fn start<'a>(&'a self, batch: &Batch, room: i64) -> Result<(Tensor, Box<dyn Writing + 'a>)> {
        let Beginning { ids, source, mask } = self.beginning(batch)?;
        let length = ids.size()[1];
        self.check_length(length + room)?;
        let mut state = State {
            writer: self,
            grows: mask.is_some() && source.is_none(),
            mask: mask.map(Tensor::shallow_clone),
            encoded: None,
            memory: None,
        };
        let logits = state.advance(ids, source)?;
        Ok((logits, Box::new(state)))
    }
}

/// Texts being written.
struct State<'a, M> {
    writer: &'a RustBertWriter<M>,
    /// Whether the mask grows with the text.
    grows: bool,
    mask: Option<Tensor>,
    encoded: Option<Tensor>,
    memory: Option<Memory>,
}

impl<M: Model> State<'_, M> {
    fn advance(&mut self, ids: &Tensor, source: Option<&Tensor>) -> Result<Tensor> {
        let context = Context {
            mask: self.mask.as_ref(),
            source,
            encoded: self.encoded.as_ref(),
            memory: self.memory.as_ref(),
            train: false,
        };
        let Output { hidden, memory, encoded } = self.writer.model.read(ids, &context)?;
        self.memory = Some(memory);
        self.encoded = encoded.or(self.encoded.take());
        let last = hidden.narrow(1, hidden.size()[1] - 1, 1);
        Ok(self.writer.model.logits(&last).squeeze_dim(1).to_kind(Kind::Float))
    }
}

impl<M: Model> Writing for State<'_, M> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        if let (true, Some(mask)) = (self.grows, &mut self.mask) {
            *mask = Tensor::cat(&[&*mask, &tokens.ones_like().unsqueeze(1)], 1);
        }
        self.advance(&tokens.unsqueeze(1), None)
    }

    fn select(&mut self, rows: &Tensor) {
        let choose = |t: &mut Tensor| *t = t.index_select(0, rows);
        self.memory.iter_mut().flatten().flatten().for_each(choose);
        // What was encoded lies in the memory as keys and values from the first pass on.
        self.mask.iter_mut().for_each(choose);
    }
}
