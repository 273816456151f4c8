//! What llama.cpp makes of a tensor before it writes it down, and its way back.

use crate::Result;
use tch::{Kind, Tensor};

/// How a tensor of a file stands to the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// It is the model's own.
    Own,
    /// The rows of queries and keys: of each of so many heads, a row of the first half and one of
    /// the second in turn, since the rotary angles turn neighbours there, and halves in the models.
    Interleaved(i64),
    /// What a norm scales by: the model's own weight plus one.
    Raised,
}

impl Arrangement {
    /// How many of a tensor's `rows` stay together.
    pub(crate) fn group(self, rows: i64) -> i64 {
        match self {
            Arrangement::Interleaved(heads) => rows / heads,
            Arrangement::Own | Arrangement::Raised => 1,
        }
    }

    /// That of `some` of a tensor's `rows`.
    pub(crate) fn of_rows(self, some: i64, rows: i64) -> Self {
        match self {
            Arrangement::Interleaved(heads) => Arrangement::Interleaved(some / (rows / heads)),
            Arrangement::Own | Arrangement::Raised => self,
        }
    }

    /// The model's own tensor of the file's.
    pub(crate) fn undone(self, tensor: &Tensor) -> Result<Tensor> {
        match self {
            Arrangement::Own => Ok(tensor.shallow_clone()),
            Arrangement::Raised => raised(tensor, -1.0),
            Arrangement::Interleaved(heads) => {
                let half = tensor.size()[0] / heads / 2;
                swapped(tensor, heads, [half, 2])
            }
        }
    }

    /// The file's tensor of the model's own.
    pub(crate) fn done(self, tensor: &Tensor) -> Result<Tensor> {
        match self {
            Arrangement::Own => Ok(tensor.shallow_clone()),
            Arrangement::Raised => raised(tensor, 1.0),
            Arrangement::Interleaved(heads) => {
                let half = tensor.size()[0] / heads / 2;
                swapped(tensor, heads, [2, half])
            }
        }
    }
}

/// A tensor plus `by`, in single precision at the least: half precision has few places behind the one.
fn raised(tensor: &Tensor, by: f64) -> Result<Tensor> {
    let kind = match tensor.kind() {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    };
    Ok(tensor.f_to_kind(kind)?.f_add_scalar(by)?)
}

/// The rows of each head, taken as a table of these sizes, column by column.
fn swapped(tensor: &Tensor, heads: i64, [rows, columns]: [i64; 2]) -> Result<Tensor> {
    let shape = tensor.size();
    let table = [&[heads, rows, columns], &shape[1..]].concat();
    Ok(tensor.f_reshape(table)?.f_transpose(1, 2)?.f_reshape(shape)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_norm_scales_by_is_one_more_in_a_file() {
        let own = Tensor::from_slice(&[-0.25f32, 0.0, 0.001]);
        let stored = Arrangement::Raised.done(&own).unwrap();
        assert_eq!(Vec::<f32>::try_from(&stored).unwrap(), [0.75, 1.0, 1.001]);
        // Half precision would round 0.001 beside the one to 0.00098.
        let half = Tensor::from_slice(&[1.0f32, 1.001]).to_kind(Kind::Half);
        let back = Arrangement::Raised.undone(&half).unwrap();
        assert_eq!((back.kind(), back.double_value(&[0])), (Kind::Float, 0.0));
        let again = Arrangement::Raised.undone(&stored).unwrap();
        assert!(again.allclose(&own, 0.0, 1e-7, false));
    }

    #[test]
    fn a_head_s_halves_stand_in_turn_in_a_file() {
        let stored = Tensor::from_slice(&[0i64, 2, 1, 3, 10, 12, 11, 13]).reshape([8, 1]);
        let own = Arrangement::Interleaved(2).undone(&stored).unwrap();
        let rows = Vec::<i64>::try_from(own.reshape([-1])).unwrap();
        assert_eq!(rows, [0, 1, 2, 3, 10, 11, 12, 13]);
        assert_eq!(Arrangement::Interleaved(2).done(&own).unwrap(), stored);
    }
}
