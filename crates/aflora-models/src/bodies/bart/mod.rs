//! BART: text from text, or a class or score for one.
//!
//! Ours, and not rust-bert's, which agrees with the released models in single precision, but
//! counts out its causal mask in the precision of the weights, copies keys and values for a cache
//! in training too, and does not fuse attention: a step of BART-large took longer than PEFT's and
//! twice its memory (`bench/README.md`).

mod config;
mod head;
mod layers;
mod network;
mod writing;

use crate::backbone::{About, Backbone, Forward, Frame, Tied};
use crate::batch::Batch;
use crate::config_file::ConfigFile;
use crate::generate::{DecodingState, SpecialTokens, TextGenerator};
use crate::heads::Head;
use crate::nn::scope;
use crate::options::Options;
use crate::{Error, Result};
use config::BartConfig;
use head::{EndOfText, NextToken};
use network::{of_source, BartBody};
use std::rc::Rc;
use tch::Tensor;

/// Keys that transformers reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "d_model"),
    ("num_attention_heads", "encoder_attention_heads"),
    ("num_hidden_layers", "encoder_layers"),
];

/// The word embeddings' further names, of which the last is the language head's.
const WORDS: &[&str] =
    &["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"];
const TIED: [&[Tied]; 2] =
    [&[("model.shared.weight", WORDS)], &[("model.shared.weight", WORDS.split_at(2).0)]];

/// BART from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = file.rename(ALIASES);
    let config = BartConfig::read(&file)?;
    let tokens = SpecialTokens::read(file.path(), file.keys(), config.vocab_size, true)?;
    let Some(start) = tokens.decoder_start else {
        return Err(file.problem("`decoder_start_token_id` is missing".into()));
    };
    let labels = match head {
        Head::Classes(labels) | Head::Scores(labels) => {
            Some((labels, file.integer("eos_token_id", 2)?))
        }
        Head::Tokens(_) => return Err(Error::does_not_tag()),
        Head::Language => None,
    };
    let mut vs = options.var_store();
    let ((network, output_head), made) = scope::build(&mut vs, |root| {
        let network = BartBody::new(&root, &config);
        let output_head = match labels {
            Some((labels, end)) => {
                OutputHead::Labels(EndOfText::new(&root, &config, labels, [start, end]))
            }
            None => OutputHead::Text(NextToken::new(&root, network.shared())),
        };
        (network, output_head)
    });
    let labels = labels.is_some();
    let modules: &[_] = if labels { &["classification_head"] } else { &[] };
    let about = About {
        head,
        prefix: "model.",
        head_modules: modules,
        new_modules: modules,
        may_lack: &[],
        class_rows: labels.then_some("classification_head.out_proj"),
        tied: TIED[usize::from(labels)],
        optional: if labels { &[] } else { &["final_logits_bias"] },
        max_positions: config.max_positions,
        vocab_size: config.vocab_size,
    };
    let (frame, checkpointing) = (Frame::new(vs, made, about), options.checkpointing);
    Ok(Box::new(Bart { frame, network, output_head, tokens, checkpointing }))
}

/// A BART.
#[derive(Debug)]
struct Bart {
    frame: Frame,
    network: BartBody,
    output_head: OutputHead,
    tokens: SpecialTokens,
    checkpointing: bool,
}

/// BART's head: what is computed from the decoder's hidden states.
#[derive(Debug)]
enum OutputHead {
    Labels(EndOfText),
    Text(NextToken),
}

impl Bart {
    /// What the decoder begins with.
    fn begun<'a>(&self, batch: &'a Batch) -> Result<&'a Tensor> {
        let ids = batch.decoder_input_ids.as_ref();
        let ids = ids.ok_or_else(|| {
            Error::Forward("an encoder-decoder needs what its decoder reads".into())
        })?;
        self.check_length(ids.size()[1])?;
        Ok(ids)
    }

    fn check_length(&self, length: i64) -> Result<()> {
        let most = self.frame.about.max_positions;
        if length > most {
            let words = format!("{length} tokens are more than the model's {most} positions");
            return Err(Error::Length(words));
        }
        Ok(())
    }
}

impl Backbone for Bart {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        batch.refuse_documents()?;
        self.check_length(batch.input_ids.size()[1])?;
        let checkpointing = train && self.checkpointing;
        let hidden = |ids: &Tensor| {
            let of_source = Rc::new(of_source(&batch.attention_mask, train));
            let (encoded, lower) = self.network.encode(&batch.input_ids, &of_source, checkpointing);
            let (decoded, upper) = self.network.decode(ids, &encoded, &of_source, checkpointing);
            (decoded, lower.followed_by(upper))
        };
        Ok(match &self.output_head {
            OutputHead::Text(head) => {
                let (decoded, checkpoints) = hidden(self.begun(batch)?);
                Forward::new(head.forward(&decoded), checkpoints)
            }
            OutputHead::Labels(head) => {
                let (decoded, checkpoints) = hidden(&head.read(&batch.input_ids));
                Forward::new(head.forward(&decoded, batch, train), checkpoints)
            }
        })
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn text_generator(&self) -> Option<&dyn TextGenerator> {
        match &self.output_head {
            OutputHead::Text(_) => Some(self),
            OutputHead::Labels(_) => None,
        }
    }

    fn untie(&self, name: &str) -> Option<Tensor> {
        let root = self.frame.vs.root();
        match (name, &self.output_head) {
            ("lm_head.weight", OutputHead::Text(head)) => head.untie(root, name),
            _ => self.network.untie(root, name),
        }
    }
}

impl TextGenerator for Bart {
    fn tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    fn start<'a>(
        &'a self,
        batch: &Batch,
        room: i64,
    ) -> Result<(Tensor, Box<dyn DecodingState + 'a>)> {
        self.check_length(batch.input_ids.size()[1])?;
        let ids = self.begun(batch)?;
        let capacity = ids.size()[1] + room;
        self.check_length(capacity)?;
        let OutputHead::Text(head) = &self.output_head else { return Err(Error::does_not_write()) };
        let (logits, texts) = writing::start(&self.network, head, batch, ids, capacity);
        Ok((logits, Box::new(texts)))
    }
}
