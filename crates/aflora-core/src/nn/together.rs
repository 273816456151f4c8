//! Layers that read one input.

use super::Linear;
use crate::kernels::{self, LowRankLayer};
use tch::nn::Module;
use tch::Tensor;

/// What each of `layers` makes of `x`, `[.., in_features]`, as if one after the other did: `[.., out_features]` each.
///
/// Of adapted layers that [can](joined), all paths read x in one pass, and add to its gradient in one.
pub fn together<const N: usize>(layers: [&Linear; N], x: &Tensor) -> [Tensor; N] {
    let all = layers.map(|layer| (layer, None));
    joined(all, x).unwrap_or_else(|| layers.map(|layer| layer.forward(x)))
}

/// As [`together`] by joint kernels, none where there are none for it: on a GPU they take two or three layers with low-rank
/// paths of one rank, of up to twelve components together, without dropout, and weights that no rank shares out.
///
/// A layer beside which there is a number reads so many rows of `x`, `[rows, in_features]`, from the first on, and gives
/// `[number, out_features]`. The first layer reads all.
pub fn joined<const N: usize>(
    layers: [(&Linear, Option<i64>); N],
    x: &Tensor,
) -> Option<[Tensor; N]> {
    if !kernels::fuses(x) || layers.iter().any(|(layer, _)| layer.ws.kind() != x.kind()) {
        return None;
    }
    let parts: Vec<_> = layers.iter().map(|(layer, _)| layer.beside()).collect::<Option<_>>()?;
    if parts.iter().any(|(_, path)| path.drops()) {
        return None;
    }
    let all = std::array::from_fn(|i| {
        let ((weight, path), (layer, tokens)) = (&parts[i], layers[i]);
        LowRankLayer {
            weight: weight.as_kernel(),
            bias: layer.bs.as_ref(),
            path: path.as_kernel(),
            tokens,
        }
    });
    kernels::low_rank_together(x, &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Block, Lora, LoraConfig};
    use crate::nn::{capture, linear, NamedLinear};
    use crate::Injection;
    use tch::{nn::VarStore, Device, Kind};

    #[test]
    fn on_a_cpu_layers_are_computed_one_after_the_other() {
        let vs = VarStore::new(Device::Cpu);
        let ([a, b], handles) =
            capture(|| ["a", "b"].map(|n| linear(vs.root() / n, 8, 16, Default::default())));
        let method = Lora::new(LoraConfig { rank: 2, ..Default::default() }).unwrap();
        let named = handles.into_iter().zip(["a", "b"]);
        let named = named.map(|(handle, n)| NamedLinear::new(n, Block::Ffn, handle)).collect();
        let none: [&str; 0] = [];
        let injection = Injection::new(&vs, named, &method, &none, 1).unwrap();
        for parameter in injection.parameters() {
            let _ = tch::no_grad(|| parameter.leaf.shallow_clone().fill_(0.1));
        }
        let x = Tensor::randn([3, 8], (Kind::Float, Device::Cpu));
        assert!(joined([(&a, None), (&b, None)], &x).is_none());
        assert_eq!(together([&a, &b], &x), [&a, &b].map(|layer| layer.forward(&x)));
        let path = a.beside().expect("an adapted layer").1;
        assert_eq!(path.down.size(), [2, 8]);
        injection.remove();
        assert!(a.beside().is_none(), "a bare layer");
    }
}
