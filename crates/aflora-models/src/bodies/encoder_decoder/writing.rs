//! An encoder-decoder writing, a token at a time.

use super::head::NextToken;
use super::{of_source, of_target, EncoderDecoderBody};
use crate::batch::Batch;
use crate::generate::DecodingState;
use crate::next_tokens::NextTokenHead;
use crate::nn::attention::{ForwardContext, KeyValues};
use crate::nn::multi_head::HeadKeyValues;
use crate::Result;
use tch::Tensor;

/// The state of decoding a batch of texts: the cached keys and values of every block, and what the
/// blocks see of the source.
#[derive(Debug)]
pub(super) struct CrossDecodingState<'a, N> {
    network: &'a N,
    head: &'a NextToken,
    /// What each block sees of the encoder's output.
    sources: Vec<HeadKeyValues>,
    of_source: ForwardContext,
    keys: Vec<KeyValues>,
    length: i64,
}

/// Reads the source in `batch` and what its targets begin with, `ids`, `[batch, length]`; gives
/// the next token's logits, `[batch, vocabulary]`. There is room for `capacity` tokens in all.
pub(super) fn start<'a, N: EncoderDecoderBody>(
    network: &'a N,
    head: &'a NextToken,
    batch: &Batch,
    ids: &Tensor,
    capacity: i64,
) -> (Tensor, CrossDecodingState<'a, N>) {
    let mask = &batch.attention_mask;
    let (encoded, _) = network.encode(&batch.input_ids, mask, false, false);
    let decoder = network.decoder();
    let mut texts = CrossDecodingState {
        network,
        head,
        sources: decoder.iter().map(|layer| layer.source(&encoded)).collect(),
        of_source: of_source(mask, false),
        keys: decoder.iter().map(|_| KeyValues::new(capacity)).collect(),
        length: 0,
    };
    let logits = texts.advance(ids);
    (logits, texts)
}

impl<N: EncoderDecoderBody> CrossDecodingState<'_, N> {
    fn advance(&mut self, ids: &Tensor) -> Tensor {
        let network = self.network;
        let read = ids.size()[1];
        let (bias, keys) = (network.target_bias(), self.length + read);
        let own = of_target(bias.as_deref(), read, keys, ids.device(), false);
        let mut x = network.to_decoder(ids, self.length, false);
        let blocks = network.decoder().iter().zip(&self.sources).zip(&mut self.keys);
        for ((layer, source), keys) in blocks {
            let source = [0, 1].map(|i: usize| source[i].shallow_clone());
            x = layer.forward(&x, source, &own, &self.of_source, Some(keys));
        }
        self.length += read;
        let states = network.finish(x.narrow(1, read - 1, 1), false);
        self.head.logits(&states).whole().squeeze_dim(1)
    }
}

impl<N: EncoderDecoderBody> DecodingState for CrossDecodingState<'_, N> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        Ok(self.advance(&tokens.unsqueeze(1)))
    }

    fn select(&mut self, rows: &Tensor) {
        for keys in &mut self.keys {
            keys.select(rows);
        }
        let mask = self.of_source.seen.mask_mut();
        for per_row in self.sources.iter_mut().flatten().chain(mask) {
            *per_row = per_row.index_select(0, rows);
        }
    }
}
