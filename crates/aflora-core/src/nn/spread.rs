//! Layers whose weights are spread over ranks.

use super::named::NamedLinear;
use crate::adapter::Block as Part;
use crate::sharded::{ShardedBase, Share};
use aflora_cuda::World;
use std::sync::Arc;

/// Spreads the weights of `layers`, made by [`spread_linear`](super::spread_linear), over the ranks of
/// `world`: they are given to the layers one after the other ([`put`](super::LinearHandle::put)), on all
/// ranks the same. Layers whose names lead into one block, and that are of the same part of it, are
/// gathered together.
pub fn spread(world: World, layers: &[NamedLinear]) -> Arc<ShardedBase> {
    let mut pieces = Vec::<((&str, Part), usize)>::new();
    let mut places = Vec::new();
    for layer in layers {
        let name = layer.site.name.strip_suffix(layer.site.module.as_str()).unwrap_or_default();
        let key = (name, layer.site.block);
        let known = pieces.iter().position(|(known, _)| *known == key);
        let piece = known.unwrap_or_else(|| {
            pieces.push((key, 0));
            pieces.len() - 1
        });
        let count = &mut pieces[piece].1;
        places.push((piece, *count));
        *count += 1;
    }
    let pieces: Vec<(Part, usize)> =
        pieces.into_iter().map(|((_, part), count)| (part, count)).collect();
    let base = Arc::new(ShardedBase::new(world, &pieces));
    for (layer, place) in layers.iter().zip(places) {
        layer.layer.spread(Share { base: base.clone(), place });
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{normal, Lora, LoraConfig};
    use crate::nn::{self, Module};
    use crate::sharded::ShardedBytes;
    use crate::weight::WeightFormat;
    use crate::{Checkpoints, Error, Injection};
    use tch::{Device, Kind, Tensor};

    const WIDE: i64 = 24;

    const ONE: [Part; 2] = [Part::Ffn; 2];
    const TWO: [Part; 2] = [Part::Attention, Part::Ffn];

    /// Blocks of two layers, of which one lies transposed, with an adapter on each.
    struct Model {
        layers: Vec<[nn::Linear; 2]>,
        injection: Injection,
        base: Option<Arc<ShardedBase>>,
    }

    impl Model {
        /// Of a world of one its rank holds all and gathers nothing, by the same ways. `parts` are those of
        /// the layers of a block.
        fn new(
            blocks: usize,
            is_spread: bool,
            format: Option<WeightFormat>,
            parts: [Part; 2],
        ) -> Model {
            let vs = nn::VarStore::new(Device::Cpu);
            let mut named = Vec::new();
            let layers = (0..blocks).map(|i| {
                let mut layer = |name: &str, part: Part, transposed: bool| {
                    let path = vs.root() / "blocks" / i / name;
                    let layer = match (is_spread, format) {
                        (true, format) => {
                            nn::spread_linear(&path, (WIDE, WIDE), true, transposed, format)
                        }
                        (false, Some(format)) => {
                            nn::quantised_linear(&path, (WIDE, WIDE), true, transposed, format)
                        }
                        (false, None) if transposed => nn::conv1d_linear(&path, WIDE, WIDE),
                        (false, None) => nn::linear(&path, WIDE, WIDE, Default::default()),
                    };
                    let name = format!("blocks.{i}.{name}");
                    named.push(nn::NamedLinear::new(name, part, layer.slot()));
                    layer
                };
                [layer("up", parts[0], false), layer("down", parts[1], true)]
            });
            let layers: Vec<[nn::Linear; 2]> = layers.collect();
            let base = is_spread.then(|| spread(World::alone(), &named));
            for layer in &named {
                let weight = normal(&[WIDE, WIDE], 0.3, 5, &layer.site.name);
                match layer.layer.lies_elsewhere() {
                    true => layer.layer.put(&weight).unwrap(),
                    false => layer.layer.replace(&weight).unwrap(),
                }
                let bias = layer.layer.bs.as_ref().unwrap();
                tch::no_grad(|| bias.shallow_clone().copy_(&normal(&[WIDE], 0.1, 6, "bias")));
            }
            let method = Lora::new(LoraConfig { rank: 2, ..Default::default() }).unwrap();
            let injection = Injection::new::<&str>(&vs, named, &method, &[], 3).unwrap();
            for parameter in injection.parameters() {
                let values = normal(&parameter.leaf.size(), 0.2, 4, &parameter.name);
                tch::no_grad(|| parameter.leaf.shallow_clone().copy_(&values));
            }
            Model { layers, injection, base }
        }

        /// What it makes of some rows, and the gradients of all that trains.
        fn pass(self: &std::rc::Rc<Self>, checkpointing: bool) -> Vec<Tensor> {
            let x = normal(&[5, WIDE], 1.0, 7, "x");
            let mut checkpoints = match checkpointing {
                true => Checkpoints::new(false),
                false => Checkpoints::default(),
            };
            let mut y = x;
            for i in 0..self.layers.len() {
                let model = self.clone();
                let block = move |x: &Tensor| {
                    let [up, down] = &model.layers[i];
                    x + down.forward(&up.forward(x).gelu("none"))
                };
                y = if checkpointing { checkpoints.run(&y, block) } else { block(&y) };
            }
            let parameters = self.injection.parameters();
            let leaves: Vec<&Tensor> = parameters.iter().map(|p| &p.leaf).collect();
            let loss = y.square().mean(Kind::Float);
            let mut found = checkpoints.gradients(&loss, &leaves).unwrap();
            found.push(y.detach());
            found
        }
    }

    #[test]
    fn a_spread_base_computes_to_the_bit_what_a_whole_one_does() {
        use WeightFormat::{Fp8, Int8, Int8Dynamic, Nf4, Nf4Nested};
        let quantised = [Nf4, Nf4Nested, Int8, Int8Dynamic, Fp8].map(Some);
        let formats = std::iter::once(None).chain(quantised);
        for (blocks, parts) in [(1, ONE), (2, TWO), (3, ONE), (6, TWO)] {
            for format in formats.clone() {
                let [whole, spread] = [false, true]
                    .map(|spread| std::rc::Rc::new(Model::new(blocks, spread, format, parts)));
                for checkpointing in [false, true] {
                    // Again and again, from wherever the rooms were left.
                    for _ in 0..2 {
                        let (a, b) = (whole.pass(checkpointing), spread.pass(checkpointing));
                        assert!(a
                            .iter()
                            .all(|t| t.defined() && t.abs().max().double_value(&[]) > 0.0));
                        assert_eq!(a, b, "{blocks} blocks in {format:?}");
                        let none = tch::no_grad(|| spread.layers[0][0].forward(&a[a.len() - 1]));
                        assert!(!none.requires_grad());
                    }
                }
                let base = spread.base.as_ref().unwrap();
                base.go_apart().unwrap();
                let last = |found: Vec<Tensor>| found.last().unwrap().shallow_clone();
                assert_eq!(last(whole.pass(false)), last(spread.pass(false)), "apart");
                base.come_together().unwrap();
                assert_eq!(whole.pass(false), spread.pass(false), "together again");
                let [a, b] = [&whole, &spread].map(|model| model.injection.merged_weights());
                assert_eq!(a.len(), 4 * blocks);
                for (name, weight) in b {
                    assert_eq!(a.get(&name), Some(&weight), "{name}");
                }
            }
        }
    }

    #[test]
    fn few_pieces_are_whole_beside_the_parts_and_the_model_has_places_alone() {
        let layer = 4 * WIDE * WIDE;
        // Two whole blocks where all their layers are of one part; else two of the first part and one of the other.
        let model = Model::new(5, true, None, ONE);
        let bytes = model.base.as_ref().unwrap().bytes().unwrap();
        assert_eq!(bytes, ShardedBytes { own: 10 * layer, rooms: 4 * layer, whole: 10 * layer });
        let model = Model::new(5, true, None, TWO);
        let bytes = model.base.as_ref().unwrap().bytes().unwrap();
        assert_eq!(bytes, ShardedBytes { own: 10 * layer, rooms: 3 * layer, whole: 10 * layer });
        for layer in model.layers.iter().flatten() {
            assert!(layer.ws.stride().iter().all(|&step| step == 0), "a place takes no memory");
        }
    }

    #[test]
    fn what_needs_whole_weights_is_refused() {
        let model = Model::new(2, true, None, TWO);
        let handle = model.layers[0][0].slot();
        let weight = normal(&[WIDE, WIDE], 1.0, 1, "other");
        assert!(matches!(handle.replace(&weight), Err(Error::Sharded(_))));
        assert!(matches!(handle.put(&weight), Err(Error::LoadedTwice)));
        let vs = nn::VarStore::new(Device::Cpu);
        let layer =
            nn::spread_linear(&(vs.root() / "blocks" / 0 / "up"), (4, 4), false, false, None);
        let named = vec![nn::NamedLinear::new("blocks.0.up", Part::Ffn, layer.slot())];
        let base = spread(World::alone(), &named);
        assert!(matches!(base.bytes(), Err(Error::NotLoaded)));
        named[0].layer.put(&Tensor::ones([4, 4], (Kind::Float, Device::Cpu))).unwrap();
        for init in [crate::adapter::Init::Pissa, crate::adapter::Init::Olora] {
            let method = Lora::new(LoraConfig { rank: 2, init, ..Default::default() }).unwrap();
            let refused = Injection::new::<&str>(&vs, named.clone(), &method, &[], 3);
            assert!(matches!(refused, Err(Error::ShardedStart("lora"))));
        }
        let method = crate::adapter::MethodConfig::defaults("full").unwrap().build().unwrap();
        let injection = Injection::new::<&str>(&vs, Vec::new(), method.as_ref(), &[], 3).unwrap();
        let refused = injection.with_elsewhere(&named);
        assert!(matches!(refused, Err(Error::Sharded(name)) if name == "blocks.0.up.weight"));
    }
}
