//! What decoders of ours share: GPT-2, GPT-Neo, GPT-J and LLaMA are a [`Network`] each, everything else is here.
//!
//! A forward pass runs embeddings, blocks and head. In training, blocks can be checkpointed; in
//! decoding, every block keeps its keys and values, so that a step reads one token a text.
//! Texts of a batch are padded on the right for training, where the causal mask alone hides the
//! padding from every token, and on the left for decoding, where all texts end together.

pub(crate) use crate::nn::attention::{split_heads, Attention, KeyValues};
pub(crate) use crate::nn::rotary::{rotate, turn_pairs, Rotary};

use crate::backbone::{Backbone, Batch, InjectableLinear, Tied};
use crate::generate::{SpecialTokens, Writer, Writing};
use crate::{Error, Result};
use aflora_core::Checkpoints;
use std::cell::RefCell;
use std::rc::Rc;
use tch::{Kind, Tensor};
use tch_facade::nn;

/// What every block of one forward pass reads beside its input.
#[derive(Debug)]
pub(crate) struct View {
    /// Cosines and sines of the tokens' positions, where the network rotates by them.
    pub rotation: Option<(Tensor, Tensor)>,
    /// True where a query may see a key, `[batch, 1, queries, keys]`; without it the causal
    /// mask alone decides.
    pub mask: Option<Tensor>,
    pub train: bool,
}

/// One block: what it adds to the residual stream is in its output.
pub(crate) trait Block: std::fmt::Debug {
    /// `x` is `[batch, length, hidden]`; with `keys`, its keys and values are kept there, and
    /// those already there are seen.
    fn forward(&self, x: &Tensor, view: &View, keys: Option<&mut KeyValues>) -> Tensor;
}

/// A decoder: what differs from one to another.
pub(crate) trait Network: std::fmt::Debug {
    /// The input of the first block.
    fn embed(&self, ids: &Tensor, positions: &Tensor, train: bool) -> Tensor;
    fn blocks(&self) -> &[Rc<dyn Block>];
    /// Logits from the last block's output.
    fn logits(&self, x: &Tensor) -> Tensor;
    /// Makes a head, at the model's `root`, of one whose words are its head; gives its weight.
    fn untie(&self, root: nn::Path) -> Option<Tensor>;
    /// Cosines and sines of positions `[batch or 1, length]`, in `kind`.
    fn rotation(&self, positions: &Tensor, kind: Kind) -> Option<(Tensor, Tensor)>;
}

/// A decoder of ours as a backbone.
#[derive(Debug)]
pub(crate) struct Causal<N> {
    pub vs: nn::VarStore,
    pub network: N,
    pub linears: Vec<InjectableLinear>,
    pub tokens: SpecialTokens,
    pub prefix: &'static str,
    pub tied: &'static [Tied],
    pub max_positions: i64,
    pub vocab_size: i64,
    /// Checkpoints of the last training pass, if blocks are checkpointed.
    pub checkpoints: Option<RefCell<Checkpoints>>,
}

impl<N: Network> Causal<N> {
    fn run(&self, batch: &Batch, train: bool) -> Tensor {
        let (_, length) = sizes(&batch.input_ids);
        let (positions, mask) = if batch.left_padded {
            let real = batch.attention_mask.to_kind(Kind::Bool);
            (left_padded_positions(&batch.attention_mask), Some(causal_mask(&real, length)))
        } else {
            (self.range(0, length), None)
        };
        let x = self.network.embed(&batch.input_ids, &positions, train);
        let rotation = self.network.rotation(&positions, x.kind());
        let view = Rc::new(View { rotation, mask, train });
        let x = match &self.checkpoints {
            Some(kept) if train => {
                let mut checkpoints = Checkpoints::new(true);
                let mut x = x;
                for block in self.network.blocks() {
                    let (block, view) = (block.clone(), view.clone());
                    x = checkpoints.run(&x, move |x| block.forward(x, &view, None));
                }
                *kept.borrow_mut() = checkpoints;
                x
            }
            _ => self.network.blocks().iter().fold(x, |x, block| block.forward(&x, &view, None)),
        };
        self.network.logits(&x)
    }

    fn range(&self, from: i64, to: i64) -> Tensor {
        Tensor::arange_start(from, to, (Kind::Int64, self.vs.device())).unsqueeze(0)
    }
}

impl<N: Network> Backbone for Causal<N> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        Ok(self.run(batch, train).to_kind(Kind::Float))
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
        self.prefix
    }

    fn max_positions(&self) -> i64 {
        self.max_positions
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn writer(&self) -> Option<&dyn Writer> {
        Some(self)
    }

    fn tied(&self) -> &'static [Tied] {
        self.tied
    }

    fn untie(&self, _head: &str) -> Option<Tensor> {
        self.network.untie(self.vs.root())
    }

    fn take_checkpoints(&self) -> Checkpoints {
        self.checkpoints.as_ref().map(RefCell::take).unwrap_or_default()
    }
}

impl<N: Network> Writer for Causal<N> {
    fn tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    fn start<'a>(&'a self, batch: &Batch, room: i64) -> Result<(Tensor, Box<dyn Writing + 'a>)> {
        let (_, length) = sizes(&batch.input_ids);
        if length + room > self.max_positions {
            return Err(Error::Forward(format!(
                "a prompt of {length} tokens and {room} new ones are more than the model's {} \
                 positions",
                self.max_positions
            )));
        }
        let blocks = self.network.blocks().len();
        let mut state = State {
            model: self,
            keys: (0..blocks).map(|_| KeyValues::new(length + room)).collect(),
            real: None,
            positions: None,
            length: 0,
        };
        let (positions, mask) = if batch.left_padded {
            let real = batch.attention_mask.to_kind(Kind::Bool);
            let mask = causal_mask(&real, length);
            let positions = left_padded_positions(&batch.attention_mask);
            state.positions = Some(positions.narrow(1, length - 1, 1));
            state.real = Some(real);
            (positions, Some(mask))
        } else {
            (self.range(0, length), None)
        };
        let logits = state.advance(&batch.input_ids, &positions, mask);
        Ok((logits, Box::new(state)))
    }
}

/// Texts being written: the keys and values of every block.
#[derive(Debug)]
struct State<'a, N> {
    model: &'a Causal<N>,
    keys: Vec<KeyValues>,
    /// Which of the keys are tokens, not padding, `[batch, keys]`; none where all are.
    real: Option<Tensor>,
    /// The last token's position, `[batch, 1]`, where texts differ in it.
    positions: Option<Tensor>,
    length: i64,
}

impl<N: Network> State<'_, N> {
    fn advance(&mut self, ids: &Tensor, positions: &Tensor, mask: Option<Tensor>) -> Tensor {
        let network = &self.model.network;
        let mut x = network.embed(ids, positions, false);
        let rotation = network.rotation(positions, x.kind());
        let view = View { rotation, mask, train: false };
        for (block, keys) in network.blocks().iter().zip(&mut self.keys) {
            x = block.forward(&x, &view, Some(keys));
        }
        let (_, read) = sizes(ids);
        self.length += read;
        // Only the last token's logits are wanted: the head is the largest product of all.
        network.logits(&x.narrow(1, read - 1, 1)).squeeze_dim(1).to_kind(Kind::Float)
    }
}

impl<N: Network> Writing for State<'_, N> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        if self.length == self.model.max_positions {
            return Err(Error::Forward("there is no position left".into()));
        }
        let (positions, mask) = match (&mut self.positions, &mut self.real) {
            (Some(last), Some(real)) => {
                *last += 1;
                *real = Tensor::cat(&[&*real, &last.ones_like().to_kind(Kind::Bool)], 1);
                (last.shallow_clone(), Some(real.unsqueeze(1).unsqueeze(1)))
            }
            _ => (self.model.range(self.length, self.length + 1), None),
        };
        Ok(self.advance(&tokens.unsqueeze(1), &positions, mask))
    }

    fn select(&mut self, rows: &Tensor) {
        for keys in &mut self.keys {
            keys.select(rows);
        }
        for per_row in [&mut self.real, &mut self.positions].into_iter().flatten() {
            *per_row = per_row.index_select(0, rows);
        }
    }
}

fn sizes(ids: &Tensor) -> (i64, i64) {
    let size = ids.size();
    (size[0], size[1])
}

/// Positions that count tokens only: 0 at the first token after the padding.
fn left_padded_positions(attention_mask: &Tensor) -> Tensor {
    (attention_mask.cumsum(1, Kind::Int64) - 1).clamp_min(0)
}

/// What each query may see, `[batch, 1, length, length]`: itself and the tokens before it.
/// Padding sees itself, so that no row is empty.
fn causal_mask(real: &Tensor, length: i64) -> Tensor {
    let square = (Kind::Bool, real.device());
    let itself = Tensor::eye(length, square);
    let causal = Tensor::ones([length, length], square).tril(0);
    let seen = real.unsqueeze(1).logical_and(&causal).logical_or(&itself);
    seen.unsqueeze(1)
}
