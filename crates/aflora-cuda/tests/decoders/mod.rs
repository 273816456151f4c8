//! The parts of decoders' blocks, held to libtorch's own operations in double precision: their kernels on a
//! CPU, and the operations on a GPU.

mod documents;
mod emulated;

use super::{assert_close, double, gpu, gradients, leaf, GPU};
use aflora_cuda::ops::{self, GateActivation};
use aflora_cuda::{Graph, Pool};
use tch::{Device, Kind, Tensor};

fn random(shape: &[i64], kind: Kind, device: Device) -> Tensor {
    Tensor::randn(shape, (Kind::Float, device)).to_kind(kind)
}

/// x + delta and its norm times weight + plus.
fn rms_norm(
    x: &Tensor,
    delta: Option<&Tensor>,
    weight: &Tensor,
    plus: f64,
    eps: f64,
) -> [Tensor; 2] {
    let sum = delta.map_or_else(|| x.shallow_clone(), |delta| x + delta);
    let mean = sum.square().mean_dim(&[-1i64][..], true, sum.kind());
    let normed = &sum * (mean + eps).rsqrt() * (weight + plus);
    [sum, normed]
}

/// [`rms_norm`] and what its gradients add up to, where those of the sum and the norm are `toward`.
fn rms_norm_in_double(
    x: &Tensor,
    delta: Option<&Tensor>,
    (weight, plus, eps): (&Tensor, f64, f64),
    toward: [&Tensor; 2],
) -> ([Tensor; 2], Tensor) {
    // In bf16 the norm is of the sum as it was rounded.
    let sum = delta.map_or_else(|| x.shallow_clone(), |delta| x + delta);
    let sum = double(&sum);
    let outputs = rms_norm(&sum, None, &weight.to_kind(Kind::Double), plus, eps);
    let of = weigh(&outputs, toward);
    let gradient = Tensor::run_backward(&[of], &[&sum], false, false).remove(0);
    (outputs, gradient)
}

fn weigh(outputs: &[Tensor; 2], toward: [&Tensor; 2]) -> Tensor {
    let kind = outputs[0].kind();
    let sums = [0, 1].map(|i| (&outputs[i] * toward[i].to_kind(kind)).sum(kind));
    &sums[0] + &sums[1]
}

/// act(x) as libtorch has it.
pub(super) fn activated(x: &Tensor, activation: GateActivation) -> Tensor {
    match activation {
        GateActivation::Silu => x.silu(),
        GateActivation::Gelu => x.gelu("none"),
        GateActivation::GeluTanh => x.gelu("tanh"),
    }
}

/// act(gate) ⊙ up.
fn gated(gate: &Tensor, up: &Tensor, activation: GateActivation) -> Tensor {
    activated(gate, activation) * up
}

pub(super) const ACTIVATIONS: [GateActivation; 3] =
    [GateActivation::Silu, GateActivation::Gelu, GateActivation::GeluTanh];

/// The rotation as a product of complex numbers: `x` `[batch, heads, length, size]`, angles
/// `[batch or 1, 1, length, half]`.
fn rotated(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool) -> Tensor {
    let (turning, size) = (2 * cos.size()[3], x.size()[3]);
    let part = x.narrow(3, 0, turning);
    let shape = if interleaved { [-1, 2] } else { [2, -1] };
    let of_pair = if interleaved { 4 } else { 3 };
    let pairs = part.unflatten(3, shape);
    let (real, imaginary) = (pairs.select(of_pair, 0), pairs.select(of_pair, 1));
    let turned = [&real * cos - &imaginary * sin, &real * sin + &imaginary * cos];
    let turned = Tensor::stack(&turned, of_pair).flatten(3, 4);
    Tensor::cat(&[turned, x.narrow(3, turning, size - turning)], 3)
}

/// Cosines and sines of random angles, `[batch, 1, length, half]`.
fn angles(batch: i64, length: i64, half: i64, kind: Kind, device: Device) -> [Tensor; 2] {
    let angles = random(&[batch, 1, length, half], Kind::Float, device) * 3.0;
    [angles.cos(), angles.sin()].map(|t| t.to_kind(kind))
}

#[test]
fn an_rms_norm_of_a_residual_sum_and_its_gradients() {
    let Some(_turn) = gpu() else { return };
    for (kind, rows, hidden, with_delta, plus) in [
        (Kind::Float, 5, 768, true, 0.0),
        (Kind::BFloat16, 67, 4096, true, 0.0),
        (Kind::BFloat16, 33, 4096, false, 1.0),
        (Kind::BFloat16, 130, 128, false, 0.0),
        (Kind::Float, 9, 8192, true, 1.0),
        (Kind::Float, 3, 24, true, 1.0),
    ] {
        let what = format!("{kind:?} {rows} × {hidden}, delta {with_delta}, plus {plus}");
        let [x, delta, along, across] = [(); 4].map(|()| random(&[rows, hidden], kind, GPU));
        let weight = random(&[hidden], kind, GPU);
        let (a, b) = (leaf(&x), leaf(&delta));
        let outputs =
            ops::add_rms_norm(&a, with_delta.then_some(&b), &weight, plus, 1e-6).expect("taken");
        let of = weigh(&outputs, [&along, &across]);
        let leaves = if with_delta { vec![&a, &b] } else { vec![&a] };
        let found = Tensor::run_backward(&[of], &leaves, false, false);
        let given = with_delta.then_some(&delta);
        let (expected, gradient) =
            rms_norm_in_double(&x, given, (&weight, plus, 1e-6), [&along, &across]);
        for (f, e) in outputs.iter().zip(&expected) {
            assert_close(&what, f, e, kind);
        }
        for f in &found {
            assert_close(&format!("{what}, gradient"), f, &gradient, kind);
        }
    }
}

#[test]
fn an_rms_norm_of_which_one_output_is_used_alone() {
    let Some(_turn) = gpu() else { return };
    let (x, weight) = (random(&[6, 64], Kind::Float, GPU), random(&[64], Kind::Float, GPU));
    for used in [0, 1] {
        let a = leaf(&x);
        let outputs = ops::add_rms_norm(&a, None, &weight, 0.0, 1e-6).expect("taken");
        let toward = random(&[6, 64], Kind::Float, GPU);
        let found = gradients(&outputs[used], &toward, &[&a]);
        let c = double(&x);
        let expected = rms_norm(&c, None, &weight.to_kind(Kind::Double), 0.0, 1e-6);
        let expected = gradients(&expected[used], &toward.to_kind(Kind::Double), &[&c]);
        assert_close(&format!("output {used}"), &found[0], &expected[0], Kind::Float);
    }
}

#[test]
fn a_gate_and_its_gradients() {
    let Some(_turn) = gpu() else { return };
    for (kind, rows, wide) in
        [(Kind::Float, 5, 40), (Kind::BFloat16, 67, 1376), (Kind::BFloat16, 3, 11008)]
    {
        for activation in ACTIVATIONS {
            let what = format!("{kind:?} {rows} × {wide}, {activation:?}");
            let both = random(&[rows, 2 * wide], kind, GPU) * 2.0;
            let toward = random(&[rows, wide], kind, GPU);
            let parts = both.chunk(2, -1);
            let (gate, up) = (leaf(&parts[0]), leaf(&parts[1]));
            let y = ops::gated(&gate, Some(&up), activation).expect("taken");
            let found = gradients(&y, &toward, &[&gate, &up]);
            let joined = leaf(&both);
            let z = ops::gated(&joined, None, activation).expect("taken");
            let of_joined = gradients(&z, &toward, &[&joined]);
            assert_eq!(y, z, "{what}, joined");
            assert_eq!(of_joined[0], Tensor::cat(&found, -1), "{what}, joined");
            let (c, d) = (double(&parts[0]), double(&parts[1]));
            let reference = gated(&c, &d, activation);
            let expected = gradients(&reference, &toward.to_kind(Kind::Double), &[&c, &d]);
            assert_close(&what, &y, &reference, kind);
            for (f, e) in found.iter().zip(&expected) {
                assert_close(&format!("{what}, gradient"), f, e, kind);
            }
        }
    }
}

/// Batch, length, heads of queries, of keys, their size, elements that turn.
const ROTATED: [(i64, i64, i64, i64, i64, i64); 4] =
    [(2, 17, 4, 4, 128, 128), (3, 5, 6, 2, 64, 64), (2, 9, 3, 3, 64, 16), (1, 33, 2, 1, 80, 32)];

#[test]
fn queries_and_keys_are_turned_and_so_are_their_gradients() {
    let Some(_turn) = gpu() else { return };
    for kind in [Kind::Float, Kind::BFloat16] {
        for (batch, length, heads, shared, size, turning) in ROTATED {
            for (interleaved, texts) in [(false, batch), (true, 1)] {
                let what = format!("{kind:?} {size}, {turning} of it, interleaved {interleaved}");
                let by_token = |heads| random(&[batch, length, heads, size], kind, GPU);
                let [cos, sin] = angles(texts, length, turning / 2, kind, GPU);
                let (a, b) = (leaf(&by_token(heads)), leaf(&by_token(shared)));
                let [q, k] = [&a, &b].map(|t| t.transpose(1, 2));
                let made = ops::rotary(&q, &k, [&cos, &sin], interleaved).expect("taken");
                let [c, s] = [&cos, &sin].map(|t| t.to_kind(Kind::Double));
                for (leaf, made) in [(&a, &made[0]), (&b, &made[1])] {
                    let toward = random(&made.size(), kind, GPU);
                    let found = Tensor::run_backward(
                        &[(made * &toward).sum(Kind::Float)],
                        &[leaf],
                        true,
                        false,
                    );
                    let exact = double(leaf);
                    let z = rotated(&exact.transpose(1, 2), &c, &s, interleaved);
                    let expected = gradients(&z, &toward.to_kind(Kind::Double), &[&exact]);
                    assert_close(&what, made, &z, kind);
                    assert_close(&format!("{what}, gradient"), &found[0], &expected[0], kind);
                }
            }
        }
    }
}

#[test]
fn queries_and_keys_that_lie_between_others_are_turned() {
    let Some(_turn) = gpu() else { return };
    let all = random(&[2, 7, 3 * 64 + 64], Kind::BFloat16, GPU).view([2, 7, 4, 64]);
    let parts = all.split_with_sizes([2, 1, 1], 2);
    let [cos, sin] = angles(1, 7, 32, Kind::BFloat16, GPU);
    let [q, k] = [0, 1].map(|i| parts[i].transpose(1, 2));
    let found = ops::rotary(&q, &k, [&cos, &sin], false).expect("taken");
    let [q, k] = [q.contiguous(), k.contiguous()];
    assert_eq!(found, ops::rotary(&q, &k, [&cos, &sin], false).expect("taken"));
}

#[test]
fn odd_widths_are_left_to_others() {
    let Some(_turn) = gpu() else { return };
    let of = |shape: &[i64]| random(shape, Kind::BFloat16, GPU);
    assert!(ops::add_rms_norm(&of(&[4, 20]), None, &of(&[20]), 0.0, 1e-6).is_none());
    assert!(ops::gated(&of(&[4, 12]), Some(&of(&[4, 12])), GateActivation::Silu).is_none());
    assert!(ops::gated(&of(&[4, 24]), None, GateActivation::Silu).is_none());
    let heads = of(&[1, 2, 3, 24]);
    let [cos, sin] = angles(1, 3, 12, Kind::BFloat16, GPU);
    assert!(ops::rotary(&heads, &heads, [&cos, &sin], false).is_none());
    assert!(ops::failure().is_none());
}

#[test]
fn parts_of_a_decoder_are_recorded_with_their_gradients() {
    let Some(_turn) = gpu() else { return };
    let kind = Kind::BFloat16;
    let x = random(&[2, 8, 256], kind, GPU);
    let weight = random(&[256], kind, GPU);
    let [cos, sin] = angles(1, 8, 32, kind, GPU);
    let toward = random(&[2, 8, 256], kind, GPU);
    let work = || {
        let x = leaf(&x);
        let [sum, normed] = ops::add_rms_norm(&x, Some(&x), &weight, 0.0, 1e-6).expect("taken");
        let heads = normed.view([2, 8, 4, 64]).transpose(1, 2);
        let [q, k] = ops::rotary(&heads, &heads, [&cos, &sin], false).expect("taken");
        let [q, k] = [q, k].map(|t| t.transpose(1, 2).reshape([2, 8, 256]));
        let y = ops::gated(&q, Some(&k), GateActivation::Silu).expect("taken") + sum;
        let found = gradients(&y, &toward, &[&x]).remove(0);
        (y.detach(), found)
    };
    let once = work();
    let (graph, recorded) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    graph.replay().unwrap();
    assert_eq!(recorded, once);
}

#[test]
fn a_cross_entropy_and_its_gradients() {
    let Some(_turn) = gpu() else { return };
    for (kind, tokens, even, rest, with_bias, smoothing) in [
        (Kind::BFloat16, 333, 50256, 1, false, 0.0),
        (Kind::BFloat16, 7, 50264, 1, true, 0.1),
        (Kind::Float, 64, 4000, 0, false, 0.1),
        (Kind::BFloat16, 1, 8, 7, true, 0.0),
    ] {
        let what = format!("{kind:?} {tokens} × {even} + {rest}, {with_bias}, {smoothing}");
        let words = even + rest;
        let given = random(&[tokens, words], kind, GPU) * 4.0;
        let labels = Tensor::randint(words, [tokens], (Kind::Int64, GPU));
        if tokens > 1 {
            let _ = labels.get(1).fill_(-100);
        }
        let bias = with_bias.then(|| random(&[words], Kind::Float, GPU));
        let parts = [given.narrow(1, 0, even), given.narrow(1, even, rest)].map(|t| leaf(&t));
        let last = (rest > 0).then_some(&parts[1]);
        let made = ops::cross_entropy(&parts[0], last, bias.as_ref(), &labels, smoothing);
        let made = made.unwrap_or_else(|| panic!("{what}: {:?}", ops::failure()));
        let leaves: Vec<&Tensor> = std::iter::once(&parts[0]).chain(last).collect();
        let found = Tensor::run_backward(&[&made * 0.5], &leaves, true, false);
        let exact = double(&given);
        let logits = match &bias {
            Some(bias) => &exact + bias.to_kind(Kind::Double),
            None => exact.shallow_clone(),
        };
        let (none, sum) = (None::<&Tensor>, tch::Reduction::Sum);
        let expected = logits.cross_entropy_loss(&labels, none, sum, -100, smoothing);
        assert_close(&what, &made, &expected, Kind::Float);
        let gradient = Tensor::run_backward(&[&expected * 0.5], &[&exact], false, false).remove(0);
        assert_close(&format!("{what}, gradient"), &Tensor::cat(&found, 1), &gradient, kind);
        let again = Tensor::f_run_backward(&[&made], &leaves, false, false);
        assert!(again.is_err(), "{what}: a second backward pass would scale it twice");
    }
    // Rows of an odd length, and labels of another kind, are left to libtorch.
    let x = random(&[4, 50257], Kind::BFloat16, GPU);
    let labels = Tensor::zeros([4], (Kind::Int64, GPU));
    assert!(ops::cross_entropy(&x, None, None, &labels, 0.0).is_none());
    let even = x.narrow(1, 0, 64).contiguous();
    assert!(ops::cross_entropy(&even, None, None, &labels.to_kind(Kind::Int), 0.0).is_none());
    assert!(ops::cross_entropy(&even, None, None, &labels, 0.0).is_some());
}

/// As threads of libtorch's do that make gradients.
#[test]
fn a_thread_may_begin_with_a_kernel_of_ours() {
    let Some(_turn) = gpu() else { return };
    let x = random(&[4, 64], Kind::BFloat16, GPU);
    let labels = Tensor::zeros([4], (Kind::Int64, GPU));
    // What memory it takes lies ready then.
    let expected = ops::cross_entropy(&x, None, None, &labels, 0.0).expect("taken");
    let of_thread = std::thread::scope(|scope| {
        let (x, labels) = (x.shallow_clone(), labels.shallow_clone());
        let work = move || ops::cross_entropy(&x, None, None, &labels, 0.0).expect("taken");
        scope.spawn(work).join().unwrap()
    });
    assert_eq!(of_thread, expected);
}
