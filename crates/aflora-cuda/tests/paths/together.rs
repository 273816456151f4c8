//! Layers that read one input on a GPU: together they give what each of them gives by itself.

use super::{assert_close, double, gpu, gradients, leaf, random, GPU};
use aflora_cuda::ops::{self, Frozen, LowRankLayer, LowRankPath};
use aflora_cuda::{Graph, Pool};
use tch::{Kind, Tensor};

/// A layer, of which `tensors` are A, B, d and b; the latter two may be missing.
pub(super) struct Side {
    weight: Tensor,
    bias: Option<Tensor>,
    pub tensors: Vec<Tensor>,
    scale: f64,
    /// Of how many tokens, where it does not read all.
    tokens: Option<i64>,
}

impl Side {
    pub fn new(kind: Kind, [from, to, rank]: [i64; 3], vectors: bool, tokens: Option<i64>) -> Side {
        let of = |shape: &[i64]| random(shape, kind, GPU);
        let matrices = [[rank, from], [to, rank]].map(|shape| of(&shape) * 0.3);
        let more = [rank, to].map(|n| of(&[n]) * 0.5);
        let tensors = matrices.into_iter().chain(more).take(if vectors { 4 } else { 2 });
        Side {
            weight: of(&[to, from]) * 0.1,
            bias: vectors.then(|| of(&[to])),
            tensors: tensors.map(|t| t.to_kind(Kind::Float)).collect(),
            scale: 0.7,
            tokens,
        }
    }

    /// The layer with these tensors.
    pub fn layer<'a>(&'a self, tensors: &'a [Tensor]) -> LowRankLayer<'a> {
        let path = LowRankPath {
            down: &tensors[0],
            up: &tensors[1],
            d: tensors.get(2),
            b: tensors.get(3),
            scale: self.scale,
        };
        let (weight, bias) = (Frozen::Dense(&self.weight), self.bias.as_ref());
        LowRankLayer { weight, bias, path, tokens: self.tokens }
    }

    fn own_rows(&self, x: &Tensor) -> Tensor {
        self.tokens.map_or_else(|| x.shallow_clone(), |tokens| x.narrow(0, 0, tokens))
    }

    pub fn apart(&self, x: &Tensor, tensors: &[Tensor]) -> Tensor {
        let LowRankLayer { weight, bias, path, .. } = self.layer(tensors);
        ops::low_rank(&self.own_rows(x), weight, bias, &path, 0.0).expect("taken")
    }

    /// In double precision.
    pub fn plain(&self, x: &Tensor, tensors: &[Tensor]) -> Tensor {
        let times = |y: Tensor, factor: Option<&Tensor>| match factor {
            Some(factor) => y * factor,
            None => y,
        };
        let x = self.own_rows(x);
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(Kind::Double));
        let h = times(x.linear(&tensors[0], None::<Tensor>), tensors.get(2));
        let path = times(h.linear(&tensors[1], None::<Tensor>), tensors.get(3));
        x.linear(&self.weight.to_kind(Kind::Double), bias.as_ref()) + path * self.scale
    }
}

/// Outputs, and gradients of x, where it has one, and of all that trains, path after path.
fn outputs_and_gradients(
    sides: &[Side; 3],
    x: &Tensor,
    tensors: &[Vec<Tensor>],
    toward: &[Tensor],
    run: impl Fn(&Tensor, &[Vec<Tensor>]) -> [Tensor; 3],
) -> Vec<Tensor> {
    let made = run(x, tensors);
    let losses = made.iter().zip(toward).map(|(y, toward)| (y * toward).sum(Kind::Float));
    let trained = tensors.iter().flatten();
    let leaves: Vec<&Tensor> =
        std::iter::once(x).chain(trained).filter(|t| t.requires_grad()).collect();
    let total = losses.reduce(|sum, loss| sum + loss).unwrap();
    let found = Tensor::run_backward(&[total], &leaves, false, false);
    assert_eq!(
        made.each_ref().map(|y| y.size()[y.dim() - 1]),
        sides.each_ref().map(|s| s.weight.size()[0])
    );
    made.iter().map(Tensor::detach).chain(found).collect()
}

fn together(sides: &[Side; 3], x: &Tensor, tensors: &[Vec<Tensor>]) -> [Tensor; 3] {
    let layers = [0, 1, 2].map(|i| sides[i].layer(&tensors[i]));
    ops::low_rank_together(x, &layers).unwrap_or_else(|| panic!("not taken: {:?}", ops::failure()))
}

#[test]
fn layers_that_read_one_input_give_together_what_they_give_apart() {
    let Some(_turn) = gpu() else { return };
    for (kind, x, outputs, rank, vectors, tokens) in [
        (Kind::Float, vec![37, 64], [96, 96, 96], 4, true, None),
        (Kind::Float, vec![300, 768], [24, 520, 768], 3, true, Some(201)),
        (Kind::BFloat16, vec![32, 128, 768], [768, 768, 768], 4, true, None),
        (Kind::BFloat16, vec![4351, 768], [768, 768, 768], 4, true, Some(4096)),
        (Kind::BFloat16, vec![4351, 768], [768, 320, 768], 8, true, Some(4096)),
        (Kind::BFloat16, vec![2, 67, 256], [256, 64, 64], 2, false, None),
        (Kind::BFloat16, vec![1, 1, 64], [64, 64, 64], 1, false, None),
        (Kind::BFloat16, vec![4351, 768], [768, 320, 768], 16, true, Some(4096)),
        (Kind::BFloat16, vec![2, 67, 256], [256, 64, 64], 32, false, None),
        (Kind::Float, vec![37, 60], [96, 50, 96], 11, true, Some(9)),
    ] {
        let from = *x.last().unwrap();
        let sides = [0, 1, 2].map(|i| {
            let tokens = tokens.filter(|_| i == 2);
            Side::new(kind, [from, outputs[i], rank], vectors, tokens)
        });
        let given = random(&x, kind, GPU);
        let toward = sides.each_ref().map(|side| {
            let mut shape = side.own_rows(&given).size();
            *shape.last_mut().unwrap() = side.weight.size()[0];
            random(&shape, kind, GPU)
        });
        // Which of A, B, d and b train of each path, in bits; and whether x has a gradient.
        for (trains, of_x) in [
            ([15, 15, 15], true),
            ([12, 12, 12], true),
            ([15, 12, 14], true),
            ([13, 14, 1], true),
            ([2, 0, 8], true),
            ([12, 15, 12], false),
        ] {
            let what = format!("{kind:?} {x:?} → {outputs:?}, rank {rank}, {trains:?}, {of_x}");
            let leaves = |of: &dyn Fn(&Tensor) -> Tensor| -> Vec<Vec<Tensor>> {
                (sides.iter().zip(trains))
                    .map(|(side, trains)| {
                        let tensors = side.tensors.iter().enumerate();
                        tensors
                            .map(|(t, own)| of(own).set_requires_grad(trains >> t & 1 == 1))
                            .collect()
                    })
                    .collect()
            };
            let own = leaves(&|t| t.detach().copy());
            if !of_x && own.iter().flatten().all(|t| !t.requires_grad()) {
                continue;
            }
            let x = given.copy().set_requires_grad(of_x);
            let run = |x: &Tensor, tensors: &[Vec<Tensor>]| together(&sides, x, tensors);
            let found = outputs_and_gradients(&sides, &x, &own, &toward, run);
            let apart = |x: &Tensor, tensors: &[Vec<Tensor>]| {
                [0, 1, 2].map(|i| sides[i].apart(x, &tensors[i]))
            };
            let alone = outputs_and_gradients(&sides, &x, &own, &toward, apart);
            let exact = double(&given).set_requires_grad(of_x);
            let doubles = leaves(&|t| t.detach().to_kind(Kind::Double));
            let plain = |x: &Tensor, tensors: &[Vec<Tensor>]| {
                [0, 1, 2].map(|i| sides[i].plain(x, &tensors[i]))
            };
            let toward = toward.each_ref().map(|t| t.to_kind(Kind::Double));
            let expected = outputs_and_gradients(&sides, &exact, &doubles, &toward, plain);
            assert_eq!(found.len(), expected.len(), "{what}");
            for (i, ((f, a), e)) in found.iter().zip(&alone).zip(&expected).enumerate() {
                assert_close(&format!("{what}: {i}"), f, e, kind);
                assert_close(&format!("{what}: {i}, apart"), a, e, kind);
                assert_eq!(f.kind(), a.kind(), "{what}: {i}");
            }
        }
    }
}

#[test]
fn layers_that_do_not_fit_together_are_left_apart() {
    let Some(_turn) = gpu() else { return };
    let kind = Kind::BFloat16;
    let side = |rank, vectors, tokens| Side::new(kind, [64, 32, rank], vectors, tokens);
    let taken = |sides: [Side; 3]| {
        let x = random(&[16, 64], sides[0].weight.kind(), GPU);
        let layers = sides.each_ref().map(|side| side.layer(&side.tensors));
        let made = ops::low_rank_together(&x, &layers).is_some();
        assert!(ops::failure().is_none(), "{:?}", ops::failure());
        made
    };
    assert!(taken([side(4, true, None), side(4, true, Some(3)), side(4, true, Some(16))]));
    assert!(!taken([side(4, true, Some(15)), side(4, true, None), side(4, true, None)]));
    // On the tensor cores three of any rank fit; without them up to twelve components, and libtorch's products of more than
    // eight ranks.
    for (kind, rank, fits) in [
        (Kind::BFloat16, 8, true),
        (Kind::BFloat16, 9, true),
        (Kind::Float, 4, true),
        (Kind::Float, 5, false),
        (Kind::Float, 9, true),
    ] {
        let sides = [0, 1, 2].map(|_| Side::new(kind, [64, 32, rank], true, None));
        assert_eq!(taken(sides), fits, "{kind:?}, rank {rank}");
    }
    assert!(!taken([side(4, true, None), side(4, true, None), side(2, true, None)]));
    assert!(!taken([side(4, true, None), side(4, false, None), side(4, true, None)]));
    // Two paths may be wider than three.
    let pair = [0, 1].map(|_| Side::new(Kind::Float, [64, 32, 6], true, None));
    let layers = pair.each_ref().map(|side| side.layer(&side.tensors));
    let x = random(&[16, 64], Kind::Float, GPU);
    assert!(ops::low_rank_together(&x, &layers).is_some());
}

#[test]
fn layers_that_read_one_input_are_recorded_together() {
    let Some(_turn) = gpu() else { return };
    let kind = Kind::BFloat16;
    let sides = [0, 1, 2].map(|_| Side::new(kind, [128, 96, 4], true, None));
    let (given, toward) =
        (random(&[64, 128], kind, GPU), [(); 3].map(|()| random(&[64, 96], kind, GPU)));
    let work = || {
        let x = leaf(&given);
        let tensors: Vec<Vec<Tensor>> =
            sides.iter().map(|side| side.tensors.iter().map(leaf).collect()).collect();
        outputs_and_gradients(&sides, &x, &tensors, &toward, |x, tensors| {
            together(&sides, x, tensors)
        })
    };
    let expected = work();
    let (graph, found) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    graph.replay().unwrap();
    assert_eq!(found, expected, "recorded and not");
}

#[test]
fn an_output_that_nothing_reads_has_no_say() {
    let Some(_turn) = gpu() else { return };
    let sides = [0, 1, 2].map(|_| Side::new(Kind::Float, [64, 32, 4], true, None));
    let x = leaf(&random(&[24, 64], Kind::Float, GPU));
    let tensors: Vec<Vec<Tensor>> =
        sides.iter().map(|side| side.tensors.iter().map(leaf).collect()).collect();
    let toward = random(&[24, 32], Kind::Float, GPU);
    let found = gradients(&together(&sides, &x, &tensors)[1], &toward, &[&x]).remove(0);
    let expected = gradients(&sides[1].apart(&x, &tensors[1]), &toward, &[&x]).remove(0);
    assert_close("gradient", &found, &expected, Kind::Float);
}
