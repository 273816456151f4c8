//! Low-rank paths of more than eight ranks, or with dropout: what stands around libtorch's products on a CPU,
//! and the operation on a GPU, held to libtorch's own operations in double precision. Those of fewer ranks, of
//! layers that read one input, are in files of their own.

mod emulated;
mod feed_forward;
mod together;

use super::{assert_close, assert_within, double, gpu, gradients, leaf, GPU};
use crate::emulation::{at, wide, Kernels};
use aflora_cuda::ops::{self, Frozen, GateActivation, LowRankPath};
use aflora_cuda::{Graph, Pool};
use std::ffi::{c_uint, c_void};
use tch::{Device, Kind, Tensor};

fn random(shape: &[i64], kind: Kind, device: Device) -> Tensor {
    Tensor::randn(shape, (Kind::Float, device)).to_kind(kind)
}

/// x, what drops it, and what is computed beside it.
struct Given {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    /// A, B, d, b; the latter two may be missing.
    adapter: Vec<Tensor>,
    scale: f64,
}

impl Given {
    fn new(kind: Kind, [rows, from, to, rank]: [i64; 4], vectors: bool) -> Given {
        let of = |shape: &[i64]| random(shape, kind, GPU);
        let matrices = [(rank, from), (to, rank)].map(|(m, n)| of(&[m, n]) * 0.1);
        let more = [rank, to].map(|n| of(&[n]) * 0.5);
        let adapter = matrices.into_iter().chain(more).take(if vectors { 4 } else { 2 });
        Given {
            x: of(&[rows, from]),
            weight: of(&[to, from]) * 0.1,
            bias: of(&[to]),
            adapter: adapter.map(|t| t.to_kind(Kind::Float)).collect(),
            scale: 0.7,
        }
    }

    fn fused(&self, x: &Tensor, adapter: &[Tensor], dropout: f64) -> Tensor {
        let path = LowRankPath {
            down: &adapter[0],
            up: &adapter[1],
            d: adapter.get(2),
            b: adapter.get(3),
            scale: self.scale,
        };
        ops::low_rank(x, Frozen::Dense(&self.weight), Some(&self.bias), &path, dropout)
            .unwrap_or_else(|| panic!("not taken: {:?}", ops::failure()))
    }

    /// In double precision; the path reads `x` times `kept`.
    fn plain(&self, x: &Tensor, adapter: &[Tensor], kept: &Tensor) -> Tensor {
        let [weight, bias] = [&self.weight, &self.bias].map(|t| t.to_kind(Kind::Double));
        let times = |y: Tensor, factor: Option<&Tensor>| match factor {
            Some(factor) => y * factor,
            None => y,
        };
        let h = times((x * kept).linear(&adapter[0], None::<Tensor>), adapter.get(2));
        let path = times(h.linear(&adapter[1], None::<Tensor>), adapter.get(3));
        x.linear(&weight, Some(&bias)) + path * self.scale
    }

    /// Which elements of x the path reads with this seed, times what they are read with: an A of ones in
    /// place of that of one element each tells it.
    fn kept(&self, seed: i64, dropout: f64) -> Tensor {
        let (rows, from) = (self.x.size()[0], self.x.size()[1]);
        let float = (Kind::Float, GPU);
        let alone = Given {
            x: Tensor::ones([rows, from], (self.x.kind(), GPU)),
            weight: Tensor::zeros([from, from], (self.x.kind(), GPU)),
            bias: Tensor::zeros([from], (self.x.kind(), GPU)),
            adapter: vec![Tensor::eye(from, float), Tensor::eye(from, float)],
            scale: 1.0,
        };
        tch::manual_seed(seed);
        alone.fused(&alone.x, &alone.adapter, dropout).to_kind(Kind::Double)
    }
}

#[test]
fn a_path_of_many_ranks_and_its_gradients() {
    let Some(_turn) = gpu() else { return };
    for (kind, shape, vectors, dropout) in [
        (Kind::Float, [37, 64, 96, 16], true, 0.0),
        (Kind::BFloat16, [67, 256, 128, 32], false, 0.0),
        (Kind::BFloat16, [67, 256, 128, 64], true, 0.0),
        (Kind::Float, [5, 37, 53, 12], true, 0.0),
        (Kind::Float, [40, 64, 24, 4], false, 0.25),
        (Kind::BFloat16, [33, 128, 256, 32], false, 0.1),
        (Kind::BFloat16, [33, 128, 256, 16], true, 0.3),
    ] {
        let what = format!("{kind:?} {shape:?}, vectors {vectors}, dropout {dropout}");
        let given = Given::new(kind, shape, vectors);
        let kept = match dropout > 0.0 {
            true => given.kept(7, dropout),
            false => given.x.ones_like().to_kind(Kind::Double),
        };
        let share = kept.ne(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((share - (1.0 - dropout)).abs() < 0.05, "{what}: {share} stay");
        let toward = random(&[shape[0], shape[2]], kind, GPU);
        let x = leaf(&given.x);
        let adapter: Vec<Tensor> = given.adapter.iter().map(leaf).collect();
        tch::manual_seed(7);
        let y = given.fused(&x, &adapter, dropout);
        let leaves: Vec<&Tensor> = std::iter::once(&x).chain(&adapter).collect();
        let found = gradients(&y, &toward, &leaves);
        let exact = double(&given.x);
        let doubles: Vec<Tensor> = given.adapter.iter().map(double).collect();
        let z = given.plain(&exact, &doubles, &kept);
        let leaves: Vec<&Tensor> = std::iter::once(&exact).chain(&doubles).collect();
        let expected = gradients(&z, &toward.to_kind(Kind::Double), &leaves);
        assert_close(&what, &y, &z, kind);
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{what}, gradient {i}"), f, e, kind);
        }
    }
}

#[test]
fn what_is_frozen_of_a_path_has_no_gradient() {
    let Some(_turn) = gpu() else { return };
    let given = Given::new(Kind::BFloat16, [9, 64, 48, 16], true);
    let all: Vec<Tensor> = given.adapter.iter().map(leaf).collect();
    let x = leaf(&given.x);
    let toward = random(&[9, 48], Kind::BFloat16, GPU);
    let whole: Vec<&Tensor> = std::iter::once(&x).chain(&all).collect();
    let expected = gradients(&given.fused(&x, &all, 0.0), &toward, &whole);
    for trains in 0..16 {
        let some: Vec<Tensor> = (given.adapter.iter().enumerate())
            .map(|(i, t)| t.copy().set_requires_grad(trains >> i & 1 == 1))
            .collect();
        let x = leaf(&given.x);
        let leaves: Vec<&Tensor> =
            std::iter::once(&x).chain(some.iter().filter(|t| t.requires_grad())).collect();
        let found = gradients(&given.fused(&x, &some, 0.0), &toward, &leaves);
        let kept = (0..4).filter(|i| trains >> i & 1 == 1).map(|i| &expected[i + 1]);
        for (f, e) in found.iter().zip(std::iter::once(&expected[0]).chain(kept)) {
            assert_eq!(f, e, "{trains:b}");
        }
    }
}

/// What stands before the paths makes their input again, to the bit, whatever its readers are.
#[test]
fn inputs_of_paths_that_are_made_again_give_the_same_gradients() {
    let Some(_turn) = gpu() else { return };
    let kind = Kind::BFloat16;
    for rank in [4, 32] {
        let paths: Vec<Given> =
            (0..3).map(|_| Given::new(kind, [48, 128, 128, rank], false)).collect();
        let [x, toward] = [(); 2].map(|()| random(&[48, 128], kind, GPU));
        let weight = random(&[128], kind, GPU);
        let run = |again: bool| {
            let x = leaf(&x);
            let adapters: Vec<Vec<Tensor>> =
                paths.iter().map(|path| path.adapter.iter().map(leaf).collect()).collect();
            // Behind a view nothing is known of what made it.
            let hidden = |t: Tensor| if again { t } else { t.view_as(&t) };
            let [sum, normed] = ops::add_rms_norm(&x, None, &weight, 0.0, 1e-6).expect("taken");
            let normed = hidden(normed);
            let gate = paths[0].fused(&normed, &adapters[0], 0.0);
            let up = paths[1].fused(&normed, &adapters[1], 0.0);
            let wide = hidden(ops::gated(&gate, Some(&up), GateActivation::Silu).expect("taken"));
            let y = paths[2].fused(&wide, &adapters[2], 0.0) + sum;
            let leaves: Vec<&Tensor> =
                std::iter::once(&x).chain(adapters.iter().flatten()).collect();
            let total = (y * &toward).sum(Kind::Float);
            let twice =
                [true, false].map(|keep| Tensor::run_backward(&[&total], &leaves, keep, false));
            assert_eq!(twice[0], twice[1], "a second backward pass");
            twice.into_iter().next().unwrap()
        };
        assert_eq!(run(true), run(false), "rank {rank}");
    }
}

#[test]
fn a_path_keeps_no_copy_of_an_input_that_is_made_again() {
    let Some(_turn) = gpu() else { return };
    let kind = Kind::BFloat16;
    let given = Given::new(kind, [4096, 1024, 64, 16], false);
    let weight = random(&[1024], kind, GPU);
    let x = leaf(&given.x);
    let adapter: Vec<Tensor> = given.adapter.iter().map(leaf).collect();
    let bytes = || aflora_cuda::memory(0).expect("a GPU").allocated;
    let run = |hide: bool| {
        let before = bytes();
        let [_, normed] = ops::add_rms_norm(&x, None, &weight, 0.0, 1e-6).expect("taken");
        let normed = if hide { normed.view_as(&normed) } else { normed };
        let y = given.fused(&normed, &adapter, 0.0);
        drop(normed);
        let after = bytes();
        drop(y);
        after - before
    };
    run(false);
    let of_input = 4096 * 1024 * 2;
    assert!(run(true) - run(false) >= of_input);
}

#[test]
fn a_path_with_dropout_is_recorded_and_draws_anew_by_the_seed() {
    let Some(_turn) = gpu() else { return };
    let given = Given::new(Kind::BFloat16, [64, 128, 96, 32], false);
    let toward = random(&[64, 96], Kind::BFloat16, GPU);
    let work = || {
        let x = leaf(&given.x);
        let adapter: Vec<Tensor> = given.adapter.iter().map(leaf).collect();
        let y = given.fused(&x, &adapter, 0.2);
        let leaves: Vec<&Tensor> = std::iter::once(&x).chain(&adapter).collect();
        (y.detach(), gradients(&y, &toward, &leaves))
    };
    let _ = work();
    let (graph, (y, found)) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
    let replay = |seed| {
        tch::manual_seed(seed);
        graph.replay().unwrap();
        (y.copy(), found.iter().map(Tensor::copy).collect::<Vec<_>>())
    };
    let (first, other, again) = (replay(7), replay(8), replay(7));
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
    tch::manual_seed(7);
    assert_eq!(first, work(), "recorded and not");
}

type WidePath = unsafe extern "C" fn(
    *const [*mut c_void; 10],
    f32,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    f32,
    c_uint,
);

#[test]
fn the_kernels_around_a_path_of_many_ranks() {
    let _turn = crate::seeded(4);
    let cpu = Device::Cpu;
    for (kind, [rows, from, to, rank], vectors) in [
        (Kind::Float, [7, 24, 37, 11], true),
        (Kind::BFloat16, [5, 40, 96, 16], true),
        (Kind::BFloat16, [33, 64, 24, 32], false),
    ] {
        let what = format!("{kind:?} {from} → {to}, rank {rank}, vectors {vectors}");
        let kernels = Kernels::<WidePath>::new("wide_path", &[wide(kind)]);
        let float = |shape: &[i64]| random(shape, Kind::Float, cpu);
        let (a, up, d, b) =
            (float(&[rank, from]), float(&[to, rank]), float(&[rank]), float(&[to]));
        let du = float(&[to, rank]);
        let nothing = |like: &Tensor| Tensor::full(like.size(), f64::NAN, (kind, cpu));
        let (wide_a, wide_up, unfolded) = (nothing(&a), nothing(&up), du.copy());
        let x = random(&[rows, from], kind, cpu);
        let (dropped, sum) = (nothing(&x), random(&[rows, from], kind, cpu));
        let added = sum.copy();
        let tensors = [
            at(Some(&a)),
            at(Some(&up)),
            at(vectors.then_some(&d)),
            at(vectors.then_some(&b)),
            at(Some(&wide_a)),
            at(Some(&wide_up)),
            at(Some(&unfolded)),
            at(Some(&x)),
            at(Some(&dropped)),
            at(Some(&added)),
        ];
        let scale = 0.7;
        let (of_a, of_up) = ((rank * from) as c_uint, (to * rank) as c_uint);
        let (threshold, groups) = (16384, (rows * from / 8) as c_uint);
        // SAFETY: the tensors live through the call and have the shapes that the kernels read and write.
        unsafe {
            let (rank, keep) = (rank as c_uint, 4.0 / 3.0);
            (kernels.emulate)(&tensors, scale, of_a, of_up, rank, groups, threshold, keep, 1)
        };
        let factors = match vectors {
            true => double(&b).unsqueeze(1) * double(&d) * f64::from(scale),
            false => Tensor::full([to, rank], f64::from(scale), (Kind::Double, cpu)),
        };
        assert_close(&what, &wide_a, &a, kind);
        assert_close(&what, &wide_up, &(double(&up) * &factors), kind);
        assert_close(&what, &unfolded, &(double(&du) * &factors), Kind::Float);
        // A quarter of the elements are dropped, and the gradient knows which.
        let kept = dropped.ne(0.0).to_kind(Kind::Double) * (4.0 / 3.0);
        let share = kept.mean(Kind::Double).double_value(&[]);
        assert!((share - 1.0).abs() < 0.2, "{what}: {share}");
        assert_close(&what, &dropped, &(double(&x) * &kept), kind);
        assert_close(&what, &added, &(double(&sum) + double(&x) * &kept), kind);
    }
}
