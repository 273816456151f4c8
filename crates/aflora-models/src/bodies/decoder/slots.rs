//! Writing with a decoder into slots, each text at its own length.

use super::{Decoder, DecoderBody};
use crate::backbone::Backbone;
use crate::generate::DecodingSlots;
use crate::heads::language::LanguageHead;
use crate::next_tokens::NextTokenHead;
use crate::nn::attention::{ForwardContext, KeyValues, Seen};
use crate::nn::slots::{Reads, SlotKeys};
use tch::Tensor;

/// A decoder and the keys and values of every block.
#[derive(Debug)]
pub(super) struct CausalSlots<'a, N> {
    model: &'a Decoder<N>,
    head: &'a LanguageHead,
    keys: Vec<KeyValues>,
}

impl<'a, N: DecoderBody> CausalSlots<'a, N> {
    /// So many slots for texts of at most `capacity` tokens.
    pub fn new(model: &'a Decoder<N>, head: &'a LanguageHead, slots: i64, capacity: i64) -> Self {
        let blocks = model.network.blocks().iter();
        let keys = blocks.map(|_| KeyValues::Slots(SlotKeys::new(slots, capacity))).collect();
        CausalSlots { model, head, keys }
    }

    /// The last block's output, `[texts, read, hidden]`.
    fn advance(&mut self, ids: &Tensor, positions: &Tensor, seen: Seen, reads: &Reads) -> Tensor {
        let network = &self.model.network;
        let mut x = network.embed(ids, positions, false);
        let rotations = self.model.rotations(positions, x.kind());
        let context = ForwardContext { rotations, seen, train: false };
        for (block, keys) in network.blocks().iter().zip(&mut self.keys) {
            if let KeyValues::Slots(keys) = keys {
                keys.expect(reads);
            }
            x = block.forward(&x, &context, Some(keys));
        }
        x
    }

    /// Logits, `[texts, vocabulary]`, of a state a text, `[texts, 1, hidden]`.
    fn logits(&self, x: &Tensor) -> Tensor {
        let hidden = self.model.network.norm(x);
        self.head.logits(&hidden).whole().squeeze_dim(1)
    }
}

impl<N: DecoderBody> DecodingSlots for CausalSlots<'_, N> {
    fn fill(&mut self, slots: &Tensor, ids: &Tensor, lengths: &Tensor) -> Tensor {
        let positions = self.model.range(0, ids.size()[1]);
        // Padding stands behind the texts, where no token sees it, and is written over by what follows.
        let reads = Reads::Prompts(slots.shallow_clone());
        let x = self.advance(ids, &positions, Seen::Causal(None), &reads);
        let last = (lengths - 1).view([-1, 1, 1]).expand([-1, 1, x.size()[2]], false);
        self.logits(&x.gather(1, &last, false))
    }

    fn step(&mut self, tokens: &Tensor, positions: &Tensor, seen: i64) -> Tensor {
        let positions = positions.unsqueeze(1);
        let mask = Seen::up_to(&positions, seen);
        let reads = Reads::Next { positions: positions.shallow_clone(), seen };
        let x = self.advance(&tokens.unsqueeze(1), &positions, mask, &reads);
        self.logits(&x)
    }

    fn keep(&mut self, slots: &Tensor, used: i64) {
        for keys in &mut self.keys {
            if let KeyValues::Slots(keys) = keys {
                keys.keep(slots, used);
            }
        }
    }

    fn can_be_recorded(&self) -> bool {
        self.model.sharded().is_none()
    }
}
