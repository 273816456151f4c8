//! What stands before and behind a GPT's blocks.

use super::sizes::Sizes;
use crate::backbone::Backbone;
use crate::bodies::decoder::{self, DecoderBlock, DecoderBody, DecoderSpec, LmHead};
use crate::config_file::ConfigFile;
use crate::heads::each_token::TokenHead;
use crate::heads::language::NAME;
use crate::heads::Head;
use crate::nn::linear::dropout;
use crate::nn::noise::NoisyEmbedding;
use crate::nn::rotary::Rotary;
use crate::nn::scope::Scope;
use crate::options::Options;
use crate::Result;
use aflora_core::nn::{self, Module};
use std::rc::Rc;
use tch::Tensor;

/// How one kind of GPT differs from another outside its blocks.
pub(super) struct GptVariant {
    /// Learned positions, added to the words.
    pub positions: bool,
    /// Positions by which blocks turn queries and keys.
    pub rotary: Option<Rotary>,
    pub lm_head: LmHead,
    /// Whether transformers has a class of it for tokens' classes.
    pub tags: bool,
}

/// The head that `tie_word_embeddings` asks for, which is `true` if not given.
pub(super) fn lm_head(file: &ConfigFile) -> Result<LmHead> {
    Ok(match file.flag("tie_word_embeddings", true)? {
        true => LmHead::Tied(&[("transformer.wte.weight", &["lm_head.weight"])]),
        false => LmHead::Untied { name: NAME, bias: false },
    })
}

/// A GPT whose blocks `block` makes, by their number.
pub(super) fn build<B: DecoderBlock + 'static>(
    file: &ConfigFile,
    head: Head,
    options: &Options,
    sizes: Sizes,
    GptVariant { positions, rotary, lm_head, tags }: GptVariant,
    block: impl Fn(Scope, usize) -> B,
) -> Result<Box<dyn Backbone>> {
    let dropout = decoder::token_dropout(file, "hidden_dropout")?;
    let token_head = TokenHead { name: "classifier", modules: &["classifier"], dropout };
    let spec = DecoderSpec {
        prefix: "transformer.",
        hidden: sizes.hidden,
        max_positions: sizes.max_positions,
        vocab_size: sizes.vocab_size,
        lm_head,
        softcap: None,
        token_head: tags.then_some(token_head),
    };
    decoder::build(file, head, options, spec, |root| {
        let model = root / "transformer";
        let blocks = &model / "h";
        let block = |i: i64| Rc::new(block(&blocks / i, i as usize)) as Rc<dyn DecoderBlock>;
        let table = |name: &str, rows| model.embedding(name, rows, sizes.hidden);
        Gpt {
            words: model.words("wte", sizes.vocab_size, sizes.hidden),
            positions: positions.then(|| table("wpe", sizes.max_positions)),
            blocks: (0..sizes.layers).map(block).collect(),
            norm: model.layer_norm("ln_f", sizes.hidden, sizes.eps),
            rotary,
            dropout: sizes.embedding_dropout,
        }
    })
}

#[derive(Debug)]
struct Gpt {
    words: NoisyEmbedding,
    positions: Option<nn::Embedding>,
    blocks: Vec<Rc<dyn DecoderBlock>>,
    norm: nn::LayerNorm,
    rotary: Option<Rotary>,
    dropout: f64,
}

impl DecoderBody for Gpt {
    fn embed(&self, ids: &Tensor, positions: &Tensor, train: bool) -> Tensor {
        let mut x = self.words.forward(ids);
        if let Some(table) = &self.positions {
            x += table.forward(positions);
        }
        dropout(x, self.dropout, train)
    }

    fn blocks(&self) -> &[Rc<dyn DecoderBlock>] {
        &self.blocks
    }

    fn norm(&self, x: &Tensor) -> Tensor {
        self.norm.forward(x)
    }

    fn rotaries(&self) -> &[Rotary] {
        self.rotary.as_slice()
    }

    fn words(&self) -> &nn::Embedding {
        &self.words
    }
}
