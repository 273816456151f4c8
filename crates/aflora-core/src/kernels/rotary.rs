//! Rotary position embeddings.

use aflora_cuda::ops;
use tch::Tensor;

/// Which elements of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryPairs {
    /// i with i + m, where 2m are turned, as LLaMA does.
    Halves,
    /// 2i with 2i + 1, as GPT-J does.
    Neighbours,
}

/// Queries and keys, each turned by the angles of its positions (Su et al. 2021). Only the first 2m elements
/// of a head are turned where there are angles for no more.
///
/// `query` and `key`: `[batch, heads, length, size]`, each with heads of its own, `cos` and `sin`:
/// `[batch or 1, 1, length, m]`, in their kind; gives both in their shapes.
pub fn rotary(
    query: &Tensor,
    key: &Tensor,
    (cos, sin): (&Tensor, &Tensor),
    pairs: RotaryPairs,
) -> [Tensor; 2] {
    let neighbours = pairs == RotaryPairs::Neighbours;
    ops::rotary(query, key, [cos, sin], neighbours).unwrap_or_else(|| {
        [query, key].map(|x| match pairs {
            RotaryPairs::Halves => by_halves(x, cos, sin),
            RotaryPairs::Neighbours => by_neighbours(x, cos, sin),
        })
    })
}

fn by_halves(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let half = cos.size()[3];
    let (a, b) = (x.narrow(3, 0, half), x.narrow(3, half, half));
    let turned = [&a * cos - &b * sin, b * cos + a * sin];
    match x.size()[3] - 2 * half {
        0 => Tensor::cat(&turned, 3),
        rest => {
            let [a, b] = turned;
            Tensor::cat(&[a, b, x.narrow(3, 2 * half, rest)], 3)
        }
    }
}

fn by_neighbours(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let turning = 2 * cos.size()[3];
    let (a, b) = (x.slice(3, 0, turning, 2), x.slice(3, 1, turning, 2));
    let turned = Tensor::stack(&[&a * cos - &b * sin, b * cos + a * sin], -1).flatten(3, 4);
    match x.size()[3] - turning {
        0 => turned,
        rest => Tensor::cat(&[turned, x.narrow(3, turning, rest)], 3),
    }
}
