//! What a model reads.

use crate::{Documents, Error, Result};
use tch::Tensor;

/// One batch of token sequences, padded to a common length.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, `[batch, length]`, Int64.
    pub input_ids: Tensor,
    /// 1 for a token, 0 for padding, `[batch, length]`, Int64.
    pub attention_mask: Tensor,
    /// 0 for the first text, 1 for the second, `[batch, length]`, Int64; all 0 if not given.
    pub token_type_ids: Option<Tensor>,
    /// What the decoder of an encoder-decoder reads, `[batch, target length]`, Int64.
    pub decoder_input_ids: Option<Tensor>,
    /// Where a row is several documents, one after another. Decoders read them; other models refuse them.
    pub documents: Option<Documents>,
    /// Whether padding stands before the texts, as decoding wants it, and not behind them.
    pub left_padded: bool,
}

impl Batch {
    /// A batch of single texts, padded on the right.
    pub fn new(input_ids: Tensor, attention_mask: Tensor) -> Self {
        Batch {
            input_ids,
            attention_mask,
            token_type_ids: None,
            decoder_input_ids: None,
            documents: None,
            left_padded: false,
        }
    }

    /// The same with what `map` makes of each tensor in its place: all of them, always in the same order.
    pub fn map(&self, mut map: impl FnMut(&Tensor) -> Tensor) -> Self {
        Batch {
            input_ids: map(&self.input_ids),
            attention_mask: map(&self.attention_mask),
            token_type_ids: self.token_type_ids.as_ref().map(&mut map),
            decoder_input_ids: self.decoder_input_ids.as_ref().map(&mut map),
            documents: self.documents.as_ref().map(|documents| documents.map(&mut map)),
            left_padded: self.left_padded,
        }
    }

    /// Shows `look` each tensor, in the order of [`map`](Self::map).
    pub(crate) fn each(&self, mut look: impl FnMut(&Tensor)) {
        let _ = self.map(|tensor| {
            look(tensor);
            tensor.shallow_clone()
        });
    }

    /// Refuses rows of several documents, for a model that would read each as one.
    pub(crate) fn refuse_documents(&self) -> Result<()> {
        match &self.documents {
            None => Ok(()),
            Some(_) => {
                let words = "this model reads no rows of several documents";
                Err(Error::Forward(words.into()))
            }
        }
    }

    /// The token types, zeros if there are none.
    pub(crate) fn types(&self) -> Tensor {
        let types = self.token_type_ids.as_ref();
        types.map_or_else(|| self.input_ids.zeros_like(), Tensor::shallow_clone)
    }
}
