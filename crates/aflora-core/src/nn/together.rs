//! Layers that are computed together: that read one input, or of which one reads what an activation makes of the other.

use super::Linear;
use crate::adapter::SidePath;
use crate::kernels::{self, GateActivation, LowRankLayer};
use crate::weight::FrozenWeight;
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
/// paths of one rank, without dropout, and weights that no rank shares out; in fp32 not those of up to eight ranks that have
/// more than twelve components together.
///
/// A layer beside which there is a number reads so many rows of `x`, `[rows, in_features]`, from the first on, and gives
/// `[number, out_features]`. The first layer reads all.
pub fn joined<const N: usize>(
    layers: [(&Linear, Option<i64>); N],
    x: &Tensor,
) -> Option<[Tensor; N]> {
    let parts = Parts::of(layers.map(|(layer, _)| layer), x)?;
    let all = std::array::from_fn(|i| parts.layer(i, layers[i].1));
    kernels::low_rank_together(x, &all)
}

/// down(act(up x)) by joint kernels, none where there are none for it: on a GPU they take layers with low-rank paths of up
/// to eight ranks, without dropout.
///
/// `x`: `[.., in_features]`; gives `[.., out_features]` of `down`.
pub fn feed_forward(
    up: &Linear,
    activation: GateActivation,
    down: &Linear,
    x: &Tensor,
) -> Option<Tensor> {
    let parts = Parts::of([up, down], x)?;
    let [up, down] = [0, 1].map(|i| parts.layer(i, None));
    kernels::feed_forward(x, [&up, &down], activation)
}

/// What is computed of adapted layers.
struct Parts<'a, const N: usize> {
    layers: [&'a Linear; N],
    parts: Vec<(FrozenWeight, SidePath)>,
}

impl<'a, const N: usize> Parts<'a, N> {
    /// None where one of them is no path beside a weight that lies here, or its input is not all of `x`.
    fn of(layers: [&'a Linear; N], x: &Tensor) -> Option<Self> {
        if !kernels::fuses(x) || layers.iter().any(|layer| layer.ws.kind() != x.kind()) {
            return None;
        }
        let parts: Vec<_> = layers.iter().map(|layer| layer.beside()).collect::<Option<_>>()?;
        let drops = parts.iter().any(|(_, path)| path.drops());
        (!drops).then_some(Parts { layers, parts })
    }

    fn layer(&self, i: usize, tokens: Option<i64>) -> LowRankLayer<'_> {
        let (weight, path) = &self.parts[i];
        let (weight, path) = (weight.as_kernel(), path.as_kernel());
        LowRankLayer { weight, bias: self.layers[i].bs.as_ref(), path, tokens }
    }
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
