//! Writing with a decoder, a token at a time: every block keeps its keys and values.

use super::slots::CausalSlots;
use super::{masks, Decoder, DecoderBody, OutputHead};
use crate::batch::Batch;
use crate::generate::{DecodingSlots, DecodingState, SpecialTokens, TextGenerator};
use crate::heads::language::LanguageHead;
use crate::next_tokens::NextTokenHead;
use crate::nn::attention::{ForwardContext, KeyValues, Seen};
use crate::nn::rotary::Rotary;
use crate::{Error, Result};
use tch::{Kind, Tensor};

impl<N: DecoderBody> TextGenerator for Decoder<N> {
    fn tokens(&self) -> &SpecialTokens {
        &self.tokens
    }

    fn start<'a>(
        &'a self,
        batch: &Batch,
        room: i64,
    ) -> Result<(Tensor, Box<dyn DecodingState + 'a>)> {
        let length = batch.input_ids.size()[1];
        self.check_room(length, room)?;
        let OutputHead::Text(head) = &self.output_head else { return Err(Error::does_not_write()) };
        let (seen, positions) = self.mask_and_positions(batch);
        let mut state = CausalDecodingState {
            model: self,
            head,
            keys: Vec::new(),
            capacity: length + room,
            real: batch.left_padded.then(|| batch.attention_mask.to_kind(Kind::Bool)),
            positions: batch.left_padded.then(|| positions.narrow(1, length - 1, 1)),
            length: 0,
            turning: Turning::of(self, &batch.input_ids, room),
        };
        state.forget();
        let logits = state.advance(&batch.input_ids, &positions, seen);
        Ok((logits, Box::new(state)))
    }

    fn slots<'a>(
        &'a self,
        slots: i64,
        length: i64,
        room: i64,
    ) -> Result<Option<Box<dyn DecodingSlots + 'a>>> {
        self.check_room(length, room)?;
        let OutputHead::Text(head) = &self.output_head else { return Err(Error::does_not_write()) };
        let fixed = self.network.rotaries().iter().all(Rotary::is_fixed);
        if !fixed {
            return Ok(None);
        }
        Ok(Some(Box::new(CausalSlots::new(self, head, slots, length + room))))
    }
}

impl<N: DecoderBody> Decoder<N> {
    fn check_room(&self, length: i64, room: i64) -> Result<()> {
        let most = self.frame.about.max_positions;
        if length + room > most {
            return Err(Error::Length(format!(
                "a prompt of {length} tokens and {room} new ones are more than the model's {most} \
                 positions"
            )));
        }
        Ok(())
    }
}

/// The state of decoding a batch of texts: the cached keys and values of every block.
#[derive(Debug)]
struct CausalDecodingState<'a, N> {
    model: &'a Decoder<N>,
    head: &'a LanguageHead,
    keys: Vec<KeyValues>,
    /// The longest text there can be.
    capacity: i64,
    /// Which of the keys are tokens, not padding, `[batch, keys]`; none where all are.
    real: Option<Tensor>,
    /// The last token's position, `[batch, 1]`, where texts differ in it.
    positions: Option<Tensor>,
    length: i64,
    turning: Option<Turning>,
}

/// What is to be known where keys turn anew as soon as a text is longer than so many tokens: those
/// that are kept are of no use then.
#[derive(Debug)]
struct Turning {
    at: i64,
    /// All that was read, `[batch, length]`.
    ids: Tensor,
}

impl Turning {
    /// None where `room` tokens after `ids` do not reach there, or come from beyond.
    fn of<N: DecoderBody>(model: &Decoder<N>, ids: &Tensor, room: i64) -> Option<Self> {
        let length = ids.size()[1];
        let at = model.network.rotaries().iter().find_map(|rotary| rotary.turns_anew_at())?;
        (length <= at && at < length + room).then(|| Turning { at, ids: ids.shallow_clone() })
    }
}

impl<N: DecoderBody> CausalDecodingState<'_, N> {
    /// Starts without keys and values.
    fn forget(&mut self) {
        let blocks = self.model.network.blocks().len();
        self.keys = (0..blocks).map(|_| KeyValues::new(self.capacity)).collect();
        self.length = 0;
    }

    /// Reads all of the text once more, now that it turns otherwise.
    fn begin_again(&mut self) -> Tensor {
        let Some(Turning { ids, .. }) = self.turning.take() else { return Tensor::new() };
        let (seen, positions) = match &self.real {
            Some(real) => (Some(masks::causal(real)), masks::left_padded_positions(real)),
            None => (None, self.model.range(0, ids.size()[1])),
        };
        self.forget();
        self.advance(&ids, &positions, Seen::Causal(seen))
    }

    fn advance(&mut self, ids: &Tensor, positions: &Tensor, seen: Seen) -> Tensor {
        let network = &self.model.network;
        let mut x = network.embed(ids, positions, false);
        let rotations = self.model.rotations(positions, x.kind());
        let context = ForwardContext { rotations, seen, train: false };
        for (block, keys) in network.blocks().iter().zip(&mut self.keys) {
            x = block.forward(&x, &context, Some(keys));
        }
        let read = ids.size()[1];
        self.length += read;
        // Only the last token's logits are wanted: the head is the largest product of all.
        let hidden = network.norm(&x.narrow(1, read - 1, 1));
        self.head.logits(&hidden).whole().squeeze_dim(1)
    }
}

impl<N: DecoderBody> DecodingState for CausalDecodingState<'_, N> {
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor> {
        if self.length == self.model.frame.about.max_positions {
            return Err(Error::Length("there is no position left".into()));
        }
        let (positions, seen) = match (&mut self.positions, &mut self.real) {
            (Some(last), Some(real)) => {
                *last += 1;
                *real = Tensor::cat(&[&*real, &last.ones_like().to_kind(Kind::Bool)], 1);
                (last.shallow_clone(), Seen::Causal(Some(real.unsqueeze(1).unsqueeze(1))))
            }
            _ => (self.model.range(self.length, self.length + 1), Seen::Causal(None)),
        };
        let tokens = tokens.unsqueeze(1);
        if let Some(turning) = &mut self.turning {
            turning.ids = Tensor::cat(&[&turning.ids, &tokens], 1);
            if turning.ids.size()[1] > turning.at {
                return Ok(self.begin_again());
            }
        }
        Ok(self.advance(&tokens, &positions, seen))
    }

    fn select(&mut self, rows: &Tensor) {
        for keys in &mut self.keys {
            keys.select(rows);
        }
        let ids = self.turning.as_mut().map(|turning| &mut turning.ids);
        let per_row = [self.real.as_mut(), self.positions.as_mut(), ids];
        for per_row in per_row.into_iter().flatten() {
            *per_row = per_row.index_select(0, rows);
        }
    }
}
