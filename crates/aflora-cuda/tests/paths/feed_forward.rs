//! Two layers with paths and an activation between them on a GPU: in joint kernels they give what each gives by itself.

use super::together::Side;
use super::{assert_close, double, gpu, leaf, random, GPU};
use crate::decoders::{activated, ACTIVATIONS};
use aflora_cuda::ops::{self, GateActivation};
use aflora_cuda::{Graph, Pool};
use tch::{Kind, Tensor};

/// The output, and gradients of all that has one: x and tensors of both paths.
fn output_and_gradients(
    x: &Tensor,
    tensors: &[Vec<Tensor>; 2],
    toward: &Tensor,
    run: impl Fn(&Tensor, &[Vec<Tensor>; 2]) -> Tensor,
) -> Vec<Tensor> {
    let z = run(x, tensors);
    let all = std::iter::once(x).chain(tensors.iter().flatten());
    let leaves: Vec<&Tensor> = all.filter(|t| t.requires_grad()).collect();
    let found = Tensor::run_backward(&[(&z * toward).sum(Kind::Float)], &leaves, false, false);
    std::iter::once(z.detach()).chain(found).collect()
}

fn jointly(
    sides: &[Side; 2],
    x: &Tensor,
    tensors: &[Vec<Tensor>; 2],
    activation: GateActivation,
) -> Tensor {
    let [up, down] = [0, 1].map(|i| sides[i].layer(&tensors[i]));
    ops::feed_forward(x, [&up, &down], activation)
        .unwrap_or_else(|| panic!("not taken: {:?}", ops::failure()))
}

#[test]
fn a_feed_forward_block_gives_in_one_what_its_layers_give_apart() {
    let Some(_turn) = gpu() else { return };
    for (kind, shape, wide, ranks, vectors, activation) in [
        (Kind::Float, vec![37, 64], 96, [4, 4], true, ACTIVATIONS[1]),
        (Kind::Float, vec![5, 13, 72], 264, [3, 8], true, ACTIVATIONS[2]),
        (Kind::BFloat16, vec![32, 128, 768], 3072, [4, 4], true, ACTIVATIONS[1]),
        (Kind::BFloat16, vec![67, 256], 1024, [8, 8], false, ACTIVATIONS[0]),
        (Kind::BFloat16, vec![1, 64], 128, [4, 8], true, ACTIVATIONS[2]),
        // In fp32, since the gradient of a single component may all but cancel, and bf16's roundings do not.
        (Kind::Float, vec![1, 64], 128, [1, 2], true, ACTIVATIONS[2]),
    ] {
        let hidden = *shape.last().unwrap();
        let sides = [
            Side::new(kind, [hidden, wide, ranks[0]], vectors, None),
            Side::new(kind, [wide, hidden, ranks[1]], vectors, None),
        ];
        let (given, toward) = (random(&shape, kind, GPU), random(&shape, kind, GPU));
        // Which of A, B, d and b train of each path, in bits; and whether x has a gradient.
        for (trains, of_x) in [
            ([15, 15], true),
            ([12, 12], true),
            ([13, 14], true),
            ([14, 13], true),
            ([15, 15], false),
            ([0, 13], false),
            ([0, 12], false),
            ([2, 0], true),
        ] {
            if !vectors && (trains[0] & 3 == 0 && trains[1] & 3 == 0) && !of_x {
                continue;
            }
            let what = format!(
                "{kind:?} {shape:?}, {wide}, {ranks:?}, {activation:?}, {trains:?}, {of_x}"
            );
            let leaves = |of: &dyn Fn(&Tensor) -> Tensor| {
                [0, 1].map(|i: usize| -> Vec<Tensor> {
                    let tensors = sides[i].tensors.iter().enumerate();
                    let trains = trains[i];
                    tensors
                        .map(|(t, own)| of(own).set_requires_grad(trains >> t & 1 == 1))
                        .collect()
                })
            };
            let own = leaves(&|t| t.detach().copy());
            let x = given.copy().set_requires_grad(of_x);
            let joint = |x: &Tensor, t: &[Vec<Tensor>; 2]| jointly(&sides, x, t, activation);
            let found = output_and_gradients(&x, &own, &toward, joint);
            let apart = |x: &Tensor, t: &[Vec<Tensor>; 2]| {
                sides[1].apart(&activated(&sides[0].apart(x, &t[0]), activation), &t[1])
            };
            let alone = output_and_gradients(&x, &own, &toward, apart);
            let exact = double(&given).set_requires_grad(of_x);
            let doubles = leaves(&|t| t.detach().to_kind(Kind::Double));
            let plain = |x: &Tensor, t: &[Vec<Tensor>; 2]| {
                sides[1].plain(&activated(&sides[0].plain(x, &t[0]), activation), &t[1])
            };
            let toward = toward.to_kind(Kind::Double);
            let expected = output_and_gradients(&exact, &doubles, &toward, plain);
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
fn a_feed_forward_block_keeps_its_wide_states_once_and_is_recorded() {
    let Some(_turn) = gpu() else { return };
    let kind = Kind::BFloat16;
    let (tokens, hidden, wide) = (4096, 256, 1024);
    let sides = [[hidden, wide], [wide, hidden]]
        .map(|[from, to]| Side::new(kind, [from, to, 4], true, None));
    let [given, toward] = [(); 2].map(|()| random(&[tokens, hidden], kind, GPU));
    let x = leaf(&given);
    let tensors = [0, 1].map(|i: usize| sides[i].tensors.iter().map(leaf).collect::<Vec<_>>());
    let bytes = || aflora_cuda::memory(0).expect("a GPU").allocated;
    let before = bytes();
    let z = jointly(&sides, &x, &tensors, GateActivation::Gelu);
    let held = bytes() - before;
    drop(z);
    // What there is beside `up x` is the output and sums of some numbers a token.
    let (of_wide, of_output) = (tokens * wide * 2, tokens * hidden * 2);
    assert!(held >= of_wide as u64 && held < (of_wide + of_wide / 4 + of_output) as u64, "{held}");

    let work = || {
        let x = leaf(&given);
        let tensors = [0, 1].map(|i: usize| sides[i].tensors.iter().map(leaf).collect::<Vec<_>>());
        output_and_gradients(&x, &tensors, &toward, |x, t| {
            jointly(&sides, x, t, GateActivation::Gelu)
        })
    };
    let expected = work();
    let (graph, found) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    graph.replay().unwrap();
    assert_eq!(found, expected, "recorded and not");
}
