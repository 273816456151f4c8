//! What encoder-decoders share: BART and T5 are an [`EncoderDecoderBody`] each, everything else is
//! here. They write text from text, or give a class or score for one.

mod head;
mod spec;
mod writing;

use crate::backbone::{About, Backbone, Forward, Frame};
use crate::batch::Batch;
use crate::config_file::ConfigFile;
use crate::generate::{DecodingState, SpecialTokens, TextGenerator};
use crate::heads::Head;
use crate::next_tokens::{NextTokenHead, NextTokens};
use crate::nn::attention::{ForwardContext, KeyValues, Seen};
use crate::nn::chain::chain;
use crate::nn::multi_head::HeadKeyValues;
use crate::nn::relative::RelativeBias;
use crate::nn::scope::{self, Scope};
use crate::options::Options;
use crate::{Error, Result};
use aflora_core::nn::{self, NamedLinear};
use aflora_core::Checkpoints;
use head::{EndOfText, NextToken};
pub(crate) use spec::EncoderDecoderSpec;
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

/// A block of the decoder, which also attends to what the encoder gave.
pub(crate) trait CrossBlock: std::fmt::Debug {
    /// What this block sees of the encoder's output.
    fn source(&self, encoded: &Tensor) -> HeadKeyValues;

    /// `own` says which target tokens are seen, `of_source` which source tokens.
    fn forward(
        &self,
        x: &Tensor,
        source: HeadKeyValues,
        own: &ForwardContext,
        of_source: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor;
}

/// What differs from one kind of encoder-decoder to another.
pub(crate) trait EncoderDecoderBody: std::fmt::Debug {
    /// The source's states, `[batch, length, hidden]`, of its ids and their attention mask, `[batch,
    /// length]`, with what a backward pass goes through.
    fn encode(
        &self,
        ids: &Tensor,
        attention_mask: &Tensor,
        train: bool,
        checkpointing: bool,
    ) -> (Tensor, Checkpoints);

    /// The decoder's blocks.
    fn decoder(&self) -> &[Rc<dyn CrossBlock>];

    /// The decoder's input, `[batch, length, hidden]`, of `ids`, `[batch, length]`, whose first
    /// token has the position `start`.
    fn to_decoder(&self, ids: &Tensor, start: i64, train: bool) -> Tensor;

    /// What is added to the scores that target tokens give one another.
    fn target_bias(&self) -> Option<Rc<RelativeBias>>;

    /// The decoder's states, `[batch, length, hidden]`, of what its last block gave.
    fn finish(&self, x: Tensor, train: bool) -> Tensor;

    /// The word embeddings.
    fn shared(&self) -> &nn::Embedding;

    /// Gives one side, by the name of its word embeddings, a table of its own, and gives that table's
    /// weight, `[vocabulary, hidden]`. None if there is no such side, or it has one.
    fn untie(&self, root: nn::Path, name: &str) -> Option<Tensor>;
}

/// Builds the encoder-decoder of the config.json `file` whose body `network` makes. Weights are
/// zero until loaded or initialised.
pub(crate) fn build<N: EncoderDecoderBody + 'static>(
    file: &ConfigFile,
    head: Head,
    options: &Options,
    spec: EncoderDecoderSpec,
    network: impl FnOnce(&Scope) -> N,
) -> Result<Box<dyn Backbone>> {
    let tokens = SpecialTokens::read(file.path(), file.keys(), spec.vocab_size, true)?;
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
    let ((network, output_head), made) = scope::build(&mut vs, options, |root| {
        let network = network(&root);
        let output_head = match labels {
            Some((labels, end)) => {
                OutputHead::Labels(EndOfText::new(&root, &spec, labels, [start, end]))
            }
            None => OutputHead::Text(NextToken::new(&root, network.shared(), &spec)),
        };
        (network, output_head)
    });
    let labels = labels.is_some();
    let modules: &[_] = if labels { &["classification_head"] } else { &[] };
    let (prefix, tied) = spec.names[usize::from(labels)];
    let about = About {
        head,
        prefix,
        head_modules: modules,
        new_modules: modules,
        may_lack: &[],
        class_rows: labels.then_some("classification_head.out_proj"),
        tied,
        always_tied: spec.always_tied,
        optional: if spec.logits_bias && !labels { &["final_logits_bias"] } else { &[] },
        max_positions: spec.max_positions,
    };
    let (frame, checkpointing) = (Frame::new(vs, made, about), options.checkpointing);
    Ok(Box::new(EncoderDecoder { frame, network, output_head, tokens, checkpointing }))
}

/// An encoder-decoder of ours.
#[derive(Debug)]
struct EncoderDecoder<N> {
    frame: Frame,
    network: N,
    output_head: OutputHead,
    tokens: SpecialTokens,
    checkpointing: bool,
}

/// A head: what is computed from the decoder's hidden states.
#[derive(Debug)]
enum OutputHead {
    Labels(EndOfText),
    Text(NextToken),
}

impl<N: EncoderDecoderBody> EncoderDecoder<N> {
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

    /// The decoder's states of the `ids` that it reads, with what a backward pass goes through.
    fn hidden(&self, batch: &Batch, ids: &Tensor, train: bool) -> (Tensor, Checkpoints) {
        let (network, mask) = (&self.network, &batch.attention_mask);
        let checkpointing = train && self.checkpointing;
        let (encoded, lower) = network.encode(&batch.input_ids, mask, train, checkpointing);
        let of_source = Rc::new(of_source(mask, train));
        let (bias, length, device) = (network.target_bias(), ids.size()[1], ids.device());
        // A block that runs twice makes the bias itself: the graph behind that is its own.
        let shared = (!checkpointing || bias.is_none())
            .then(|| Rc::new(of_target(bias.as_deref(), length, length, device, train)));
        let x = network.to_decoder(ids, 0, train);
        let blocks = network.decoder().iter().map(|layer| {
            let (layer, encoded) = (layer.clone(), encoded.shallow_clone());
            let (shared, bias, of_source) = (shared.clone(), bias.clone(), of_source.clone());
            move |x: &Tensor| {
                let source = layer.source(&encoded);
                match &shared {
                    Some(own) => layer.forward(x, source, own, &of_source, None),
                    None => {
                        let own = of_target(bias.as_deref(), length, length, device, train);
                        layer.forward(x, source, &own, &of_source, None)
                    }
                }
            }
        });
        let (decoded, upper) = chain(x, blocks, checkpointing);
        (network.finish(decoded, train), lower.followed_by(upper))
    }
}

impl<N: EncoderDecoderBody> Backbone for EncoderDecoder<N> {
    fn forward(&self, batch: &Batch, train: bool) -> Result<Forward> {
        batch.refuse_documents()?;
        self.check_length(batch.input_ids.size()[1])?;
        Ok(match &self.output_head {
            OutputHead::Text(head) => {
                let (decoded, checkpoints) = self.hidden(batch, self.begun(batch)?, train);
                Forward::new(head.logits(&decoded).whole(), checkpoints)
            }
            OutputHead::Labels(head) => {
                let ids = head.read(&batch.input_ids);
                let (decoded, checkpoints) = self.hidden(batch, &ids, train);
                Forward::new(head.forward(&decoded, batch, train), checkpoints)
            }
        })
    }

    fn next_tokens(&self, batch: &Batch, train: bool) -> Result<NextTokens<'_>> {
        let OutputHead::Text(head) = &self.output_head else { return Err(Error::does_not_write()) };
        batch.refuse_documents()?;
        self.check_length(batch.input_ids.size()[1])?;
        let (states, checkpoints) = self.hidden(batch, self.begun(batch)?, train);
        Ok(NextTokens::new(states, head, checkpoints))
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

    fn further_linears(&self) -> Vec<NamedLinear> {
        let mut layers = self.frame.further();
        if let OutputHead::Text(head) = &self.output_head {
            layers.extend(head.untied());
        }
        layers
    }

    fn untie(&self, name: &str) -> Option<Tensor> {
        let root = self.frame.vs.root();
        match (name, &self.output_head) {
            ("lm_head.weight", OutputHead::Text(head)) => head.untie(root, name),
            _ => self.network.untie(root, name),
        }
    }
}

impl<N: EncoderDecoderBody> TextGenerator for EncoderDecoder<N> {
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

/// What is seen of the source: its tokens, not its padding.
pub(crate) fn of_source(attention_mask: &Tensor, train: bool) -> ForwardContext {
    ForwardContext { rotations: Vec::new(), seen: Seen::tokens(attention_mask), train }
}

/// What the last `queries` of `keys` target tokens see of the target: those before.
fn of_target(
    bias: Option<&RelativeBias>,
    queries: i64,
    keys: i64,
    device: Device,
    train: bool,
) -> ForwardContext {
    let seen = match bias {
        Some(bias) => {
            let before = Tensor::ones([queries, keys], (Kind::Bool, device)).tril(keys - queries);
            Seen::All(Some(bias.forward(queries, keys, &before)))
        }
        None => Seen::Causal(None),
    };
    ForwardContext { rotations: Vec::new(), seen, train }
}
