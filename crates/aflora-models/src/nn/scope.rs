//! Where a model of ours makes its layers: a path among its weights, and what is noted as they are
//! made: the layers that take an adapter, each with its name and its part of a block, the table of
//! words, and the switch of the words' noise.

use super::linear::{with_bias, zeros};
use super::noise::{Noise, NoisyEmbedding};
use super::norm::{AddNorm, Norm, NormKind, RmsNorm, ScaleNorm};
use crate::Options;
use aflora_core::nn::{self, NamedLinear};
use aflora_core::sharded::ShardedBase;
use aflora_core::Block;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Div;
use std::sync::Arc;
use tch::Tensor;

/// A path among a model's weights. Weights start at zero, scales of norms at one.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    path: nn::Path<'a>,
    notes: &'a Notes,
    options: &'a Options,
}

/// What is noted as a network is made.
#[derive(Debug, Default)]
struct Notes {
    adaptable: RefCell<Vec<NamedLinear>>,
    further: RefCell<Vec<NamedLinear>>,
    words: RefCell<Option<(String, Tensor)>>,
    noise: Noise,
}

/// What was noted of a network as it was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// The layers that take an adapter, in the order in which they were made.
    pub linears: Vec<NamedLinear>,
    /// All others: those of the head, and of what lies between it, the tables and the blocks.
    pub further: Vec<NamedLinear>,
    /// The table of words that the model reads, with the name of its weight.
    pub words: (String, Tensor),
    /// How much noise its words get.
    pub noise: Noise,
    /// The weights that are spread over ranks.
    pub sharded: Option<Arc<ShardedBase>>,
}

/// Makes a network in `vs`, frozen, its layers held as `options` say; gives with it what was noted
/// meanwhile.
pub(crate) fn build<N>(
    vs: &mut nn::VarStore,
    options: &Options,
    network: impl FnOnce(Scope) -> N,
) -> (N, Made) {
    let notes = Notes::default();
    let network = network(Scope { path: vs.root(), notes: &notes, options });
    vs.freeze();
    let Notes { adaptable, further, words, noise } = notes;
    let (linears, further) = (adaptable.into_inner(), further.into_inner());
    let words = words.into_inner().unwrap_or_else(|| (String::new(), Tensor::new()));
    let spread: Vec<NamedLinear> =
        linears.iter().filter(|linear| options.spreads(&linear.site.name)).cloned().collect();
    let sharded = (!spread.is_empty()).then(|| nn::spread(options.shards.clone(), &spread));
    (network, Made { linears, further, words, noise, sharded })
}

impl<'a, T: Display> Div<T> for &Scope<'a> {
    type Output = Scope<'a>;

    /// What is below `name`, which may be several names with dots between.
    fn div(self, name: T) -> Scope<'a> {
        let name = name.to_string();
        let mut names = name.split('.');
        let first = self.path.sub(names.next().unwrap_or_default());
        let path = names.fold(first, |path, name| path.sub(name));
        Scope { path, ..*self }
    }
}

impl<'a, T: Display> Div<T> for Scope<'a> {
    type Output = Scope<'a>;

    fn div(self, name: T) -> Scope<'a> {
        &self / name
    }
}

impl<'a> Scope<'a> {
    /// The path itself, for what is made in no other way.
    pub fn path(&self) -> &nn::Path<'a> {
        &self.path
    }

    /// A linear layer that takes an adapter, `[from]` to `[to]`.
    pub fn adaptable(
        &self,
        block: Block,
        name: &str,
        (from, to): (i64, i64),
        bias: bool,
    ) -> nn::Linear {
        self.adapted(block, name, (from, to), bias, false, |path| {
            nn::linear(path, from, to, with_bias(zeros(), bias))
        })
    }

    /// As [`adaptable`](Self::adaptable), with a bias, and a weight that lies transposed.
    pub fn transposed(&self, block: Block, name: &str, (from, to): (i64, i64)) -> nn::Linear {
        self.adapted(block, name, (from, to), true, true, |path| nn::conv1d_linear(path, from, to))
    }

    fn adapted(
        &self,
        block: Block,
        name: &str,
        dims: (i64, i64),
        bias: bool,
        transposed: bool,
        make: impl FnOnce(&nn::Path) -> nn::Linear,
    ) -> nn::Linear {
        self.noted(&self.notes.adaptable, block, name, |path, name| {
            match (self.options.spreads(name), self.options.format_of(name)) {
                (true, format) => nn::spread_linear(path, dims, bias, transposed, format),
                (false, Some(format)) => nn::quantised_linear(path, dims, bias, transposed, format),
                (false, None) => make(path),
            }
        })
    }

    fn noted(
        &self,
        notes: &RefCell<Vec<NamedLinear>>,
        block: Block,
        name: &str,
        make: impl FnOnce(&nn::Path, &str) -> nn::Linear,
    ) -> nn::Linear {
        let path = (self / name).path;
        let weight = path.path("weight");
        let name = weight.strip_suffix(".weight").unwrap_or(&weight);
        let layer = make(&path, name);
        notes.borrow_mut().push(NamedLinear::new(name, block, layer.slot()));
        layer
    }

    /// A linear layer that takes an adapter only where a folder has one for it, its weight zero until
    /// loaded or initialised.
    pub fn linear(&self, name: &str, from: i64, to: i64) -> nn::Linear {
        self.further(name, from, to, true)
    }

    /// A [`linear`](Self::linear) without a bias.
    pub fn bare_linear(&self, name: &str, from: i64, to: i64) -> nn::Linear {
        self.further(name, from, to, false)
    }

    fn further(&self, name: &str, from: i64, to: i64, bias: bool) -> nn::Linear {
        self.noted(&self.notes.further, Block::Ffn, name, |path, _| {
            nn::linear(path, from, to, with_bias(zeros(), bias))
        })
    }

    /// A table of `rows` vectors.
    pub fn embedding(&self, name: &str, rows: i64, size: i64) -> nn::Embedding {
        let config = nn::EmbeddingConfig { ws_init: nn::Init::Const(0.0), ..Default::default() };
        nn::embedding((self / name).path, rows, size, config)
    }

    /// The table of the model's `rows` words.
    pub fn vocabulary(&self, name: &str, rows: i64, size: i64) -> nn::Embedding {
        let table = self.embedding(name, rows, size);
        let name = (self / name).path.path("weight");
        *self.notes.words.borrow_mut() = Some((name, table.ws.shallow_clone()));
        table
    }

    /// The [`vocabulary`](Self::vocabulary), with noise.
    pub fn words(&self, name: &str, rows: i64, size: i64) -> NoisyEmbedding {
        NoisyEmbedding::new(self.vocabulary(name, rows, size), self.notes.noise.clone())
    }

    /// How much noise words get.
    pub fn noise(&self) -> &Noise {
        &self.notes.noise
    }

    pub fn layer_norm(&self, name: &str, size: i64, eps: f64) -> nn::LayerNorm {
        let config = nn::LayerNormConfig { eps, ..Default::default() };
        nn::layer_norm((self / name).path, vec![size], config)
    }

    pub fn add_norm(&self, name: &str, size: i64, eps: f64, dropout: f64) -> AddNorm {
        AddNorm { norm: self.layer_norm(name, size, eps), eps, dropout }
    }

    /// A LayerNorm, with a shift where `shift` says so.
    pub fn scale_norm(&self, name: &str, size: i64, eps: f64, shift: bool) -> ScaleNorm {
        let path = (self / name).path;
        let scale = path.var("weight", &[size], nn::Init::Const(1.0));
        let shift = shift.then(|| path.var("bias", &[size], nn::Init::Const(0.0)));
        ScaleNorm { scale, shift, eps }
    }

    /// A norm whose scale is one.
    pub fn norm(&self, kind: NormKind, name: &str, size: i64, eps: f64) -> Norm {
        let weight = |start| (self / name).path.var("weight", &[size], nn::Init::Const(start));
        match kind {
            NormKind::Layer => Norm::Layer(self.layer_norm(name, size, eps)),
            NormKind::Rms => Norm::Rms(RmsNorm { weight: weight(1.0), centred: false, eps }),
            NormKind::CentredRms => Norm::Rms(RmsNorm { weight: weight(0.0), centred: true, eps }),
        }
    }
}
