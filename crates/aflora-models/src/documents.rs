//! Rows that are several documents, one after another.

use tch::{Device, Kind, Tensor};

/// Documents that come to this many, or a multiple, with empty ones behind the last: so that batches of as many rows
/// have few shapes.
const MULTIPLE: usize = 32;

/// Which tokens of a batch belong together. A token sees its own document alone, and counts positions from
/// its beginning.
#[derive(Debug)]
pub struct Documents {
    of_tokens: Tensor,
    bounds: Tensor,
}

impl Documents {
    /// Of a batch whose token at each place is of the document `of_tokens`, `[batch, length]`, Int64: a
    /// document is a stretch of one row with one number. Read on the host.
    pub fn new(of_tokens: Tensor) -> Self {
        let length = of_tokens.size()[1].max(1);
        let whole = of_tokens.to_device(Device::Cpu).to_kind(Kind::Int64).flatten(0, 1);
        let numbers = Vec::<i64>::try_from(whole).expect("whole numbers on the host");
        let begins =
            |&at: &usize| at as i64 % length == 0 || at == 0 || numbers[at] != numbers[at - 1];
        let mut bounds: Vec<i32> = (0..numbers.len()).filter(begins).map(|at| at as i32).collect();
        bounds.resize(bounds.len().next_multiple_of(MULTIPLE) + 1, numbers.len() as i32);
        let bounds = Tensor::from_slice(&bounds).to_device(of_tokens.device());
        Documents { of_tokens, bounds }
    }

    /// The same, of tensors that `map` makes of these: on a device, or elsewhere in memory.
    pub fn map(&self, mut map: impl FnMut(&Tensor) -> Tensor) -> Self {
        Documents { of_tokens: map(&self.of_tokens), bounds: map(&self.bounds) }
    }

    /// Which document each token is of, `[batch, length]`, Int64.
    pub fn of_tokens(&self) -> &Tensor {
        &self.of_tokens
    }

    /// Where each document begins among all tokens of the batch, one row behind the other, and where the last ends,
    /// `[documents + 1]`, Int. The last documents may be empty.
    pub fn bounds(&self) -> &Tensor {
        &self.bounds
    }

    /// Positions that begin at 0 with each document, `[batch, length]`.
    pub(crate) fn positions(&self) -> Tensor {
        let of = &self.of_tokens;
        let length = of.size()[1];
        let columns = Tensor::arange(length, (Kind::Int64, of.device())).expand_as(of);
        let changes = of.narrow(1, 1, length - 1).ne_tensor(&of.narrow(1, 0, length - 1));
        let begins = changes.to_kind(Kind::Int64).constant_pad_nd([1, 0]);
        let (starts, _) = (&columns * begins).cummax(1);
        columns - starts
    }

    /// What each query may see, `[batch, 1, length, length]`: its own document's tokens up to itself.
    pub(crate) fn causal_mask(&self) -> Tensor {
        let of = &self.of_tokens;
        let length = of.size()[1];
        let causal = Tensor::ones([length, length], (Kind::Bool, of.device())).tril(0);
        let own = of.unsqueeze(2).eq_tensor(&of.unsqueeze(1));
        own.logical_and(&causal).unsqueeze(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_ends_with_its_row() {
        let rows: [i64; 8] = [0, 0, 1, -1, -1, -1, 1, 1];
        let documents = Documents::new(Tensor::from_slice(&rows).view([2, 4]));
        let bounds = Vec::<i32>::try_from(documents.bounds()).unwrap();
        assert_eq!(bounds[..6], [0, 2, 3, 4, 6, 8]);
        assert_eq!(bounds.len(), 33);
        assert!(bounds[5..].iter().all(|&end| end == 8));
        let positions = Vec::<i64>::try_from(documents.positions().flatten(0, 1)).unwrap();
        assert_eq!(positions, [0, 1, 0, 0, 0, 1, 0, 1]);
    }
}
