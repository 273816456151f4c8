//! The kernels of paths of up to eight ranks on a CPU, held to libtorch's own operations in double precision.

use super::{assert_close, assert_within, double, gradients, random};
use crate::decoders::{activated, ACTIVATIONS};
use crate::emulation::{at, wide, Kernels};
use std::ffi::{c_int, c_uint, c_void};
use tch::{Device, Kind, Tensor};

const CPU: Device = Device::Cpu;

/// kernels/path.cuh has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct KernelPath {
    y: *mut c_void,
    /// A, B, d, b.
    tensors: [*mut c_void; 4],
    part_up: *mut c_void,
    /// Theirs.
    gradients: [*mut c_void; 4],
    s: f32,
    m: c_int,
    rows: c_int,
}

type LowRank = unsafe extern "C" fn(
    *const [*mut c_void; 7],
    *const [KernelPath; 3],
    *const [KernelPath; 3],
    c_int,
    c_int,
    c_int,
    c_uint,
);

fn nothing(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::full(shape, f64::NAN, (kind, CPU))
}

/// What one path is computed of, and where its parts go.
struct Path {
    /// A, B, d, b; the latter two may be missing.
    tensors: Vec<Tensor>,
    /// Which of them train.
    trains: Vec<bool>,
    s: f32,
    y: Tensor,
    dy: Tensor,
    part_up: Tensor,
    gradients: Vec<Tensor>,
}

impl Path {
    /// Given to the kernels, with what `y` is: the output or its gradient.
    fn given(&self, y: &Tensor) -> KernelPath {
        let place = |i: usize, of: &[Tensor]| at(of.get(i));
        let wanted = |i: usize| self.trains.get(i).is_some_and(|t| *t).then(|| &self.gradients[i]);
        KernelPath {
            y: at(Some(y)),
            tensors: [0, 1, 2, 3].map(|i| place(i, &self.tensors)),
            part_up: at(Some(&self.part_up)),
            gradients: [0, 1, 2, 3].map(|i| at(wanted(i))),
            s: self.s,
            m: y.size()[1] as c_int,
            rows: y.size()[0] as c_int,
        }
    }

    /// s b ⊙ B (d ⊙ (A x)) of `x`, in double precision.
    fn plain(&self, x: &Tensor, tensors: &[Tensor]) -> Tensor {
        let mut h = x.matmul(&tensors[0].tr());
        if let Some(d) = tensors.get(2) {
            h *= d;
        }
        let mut y = h.matmul(&tensors[1].tr()) * f64::from(self.s);
        if let Some(b) = tensors.get(3) {
            y *= b;
        }
        y
    }
}

#[test]
fn the_kernels_of_paths_that_read_one_input() {
    let _turn = crate::seeded(5);
    let all = [true; 4];
    // Kind, rank, tokens, columns of x, rows and columns of each path's output, vectors, what trains of each.
    type Case<'a> = (Kind, i64, i64, i64, &'a [[i64; 2]], bool, &'a [[bool; 4]]);
    let cases: [Case; 9] = [
        (Kind::Float, 4, 37, 72, &[[37, 296]], true, &[all]),
        (Kind::BFloat16, 8, 21, 40, &[[21, 24]], false, &[[true, false, false, false]]),
        (
            Kind::Float,
            4,
            45,
            136,
            &[[45, 64], [45, 264], [30, 24]],
            true,
            &[all, [false, true, true, false], [true, false, true, true]],
        ),
        (Kind::BFloat16, 4, 19, 72, &[[19, 16]; 3], true, &[[false, false, true, true]; 3]),
        (Kind::Float, 6, 26, 80, &[[26, 136], [9, 40]], false, &[[true, true, false, false]; 2]),
        (Kind::Float, 3, 33, 64, &[[33, 40]; 3], true, &[[false; 4], all, [false; 4]]),
        // The tensor cores' alone.
        (Kind::BFloat16, 8, 165, 136, &[[165, 136], [165, 40], [70, 296]], true, &[all; 3]),
        (
            Kind::BFloat16,
            5,
            45,
            840,
            &[[45, 64], [30, 24]],
            true,
            &[[false, true, true, false], [true, false, true, true]],
        ),
        (Kind::BFloat16, 7, 1, 72, &[[1, 8]], true, &[all]),
    ];
    let both = cases.into_iter().flat_map(|case| {
        let by_tiles = (case.0 == Kind::BFloat16).then_some((case, true));
        let without = (case.1 * case.4.len() as i64 <= 12).then_some((case, false));
        without.into_iter().chain(by_tiles)
    });
    for (order, ((kind, rank, n, k, outputs, vectors, trains), tiled)) in both.enumerate() {
        let what = format!(
            "{kind:?} {n} × {k}, rank {rank}, {outputs:?}, vectors {vectors}, tiled {tiled}"
        );
        let count = outputs.len() as i64;
        let definitions = [
            wide(kind),
            format!("R={rank}"),
            format!("PATHS={count}"),
            format!("TILED={}", u8::from(tiled)),
        ];
        let kernels = Kernels::<LowRank>::new("low_rank", &definitions);
        // By tiles 2^-18 of each of a path's numbers is left behind, which a sum that cancels shows.
        let allowed = if tiled { 1e-4 } else { 2e-5 };
        // By tiles, blocks of more tokens than a tile has, too.
        let slab = if n > 150 { 144 } else { 16 };
        let (slabs, sums) = ((n + slab - 1) / slab, (n + 256 / rank - 1) / (256 / rank));
        let float = |shape: &[i64]| random(shape, Kind::Float, CPU) * 0.5;
        let paths = outputs.iter().zip(trains).enumerate().map(|(i, (&[rows, m], trains))| {
            let shapes: [&[i64]; 4] = [&[rank, k], &[m, rank], &[rank], &[m]];
            let shapes = &shapes[..if vectors { 4 } else { 2 }];
            let sums_up = if trains[1] { rank } else { 1 };
            Path {
                tensors: shapes.iter().map(|shape| float(shape)).collect(),
                trains: trains.to_vec(),
                s: 0.7 + i as f32,
                y: random(&[rows, m], kind, CPU),
                dy: random(&[rows, m], kind, CPU),
                part_up: nothing(&[slabs, sums_up, m], Kind::Float),
                gradients: shapes.iter().map(|shape| nothing(shape, Kind::Float)).collect(),
            }
        });
        let paths: Vec<Path> = paths.collect();
        let (x, dx) = (random(&[n, k], kind, CPU), random(&[n, k], kind, CPU));
        let (given_dx, given_y) = (dx.copy(), paths.iter().map(|p| p.y.copy()));
        let given_y: Vec<Tensor> = given_y.collect();
        let widest = outputs.iter().map(|[_, m]| *m).max().unwrap();
        let of = |shape: &[i64]| nothing(shape, Kind::Float);
        let any_a = trains.iter().any(|trains| trains[0]);
        let sums_down = of(&[slabs, count * rank, k]);
        // Wide enough for blocks of 128 columns and of 256.
        let part_g = of(&[count, (widest + 127) / 128, n, rank]);
        let (h, g) = (of(&[count, n, rank]), of(&[count, n, rank]));
        let part_d = of(&[count, sums, rank]);
        let tensors = [
            at(Some(&x)),
            at(Some(&dx)),
            at(Some(&h)),
            at(Some(&part_g)),
            at(Some(&g)),
            at(Some(&part_d)),
            at(any_a.then_some(&sums_down)),
        ];
        let last = paths.len() - 1;
        let given = |back: bool| {
            [0, 1, 2].map(|i: usize| {
                let path = &paths[i.min(last)];
                path.given(if back { &path.dy } else { &path.y })
            })
        };
        let (n, k, slab) = (n as c_int, k as c_int, slab as c_int);
        // SAFETY: the tensors live through the call and have the shapes that the kernels read and write.
        unsafe {
            (kernels.emulate)(&tensors, &given(false), &given(true), n, k, slab, order as c_uint)
        };
        let exact_x = double(&x);
        let mut gradient = given_dx.to_kind(Kind::Double);
        for (i, (path, before)) in paths.iter().zip(&given_y).enumerate() {
            let what = format!("{what}, path {i}");
            let leaves: Vec<Tensor> = path.tensors.iter().map(double).collect();
            let own = exact_x.narrow(0, 0, path.y.size()[0]);
            let added = path.plain(&own, &leaves);
            assert_close(&what, &path.y, &(before.to_kind(Kind::Double) + &added), kind);
            let wanted: Vec<&Tensor> = std::iter::once(&exact_x).chain(&leaves).collect();
            let expected = gradients(&added, &path.dy.to_kind(Kind::Double), &wanted);
            gradient += &expected[0];
            for (t, (found, expected)) in path.gradients.iter().zip(&expected[1..]).enumerate() {
                match path.trains[t] {
                    true => {
                        assert_within(&format!("{what}, gradient {t}"), found, expected, allowed)
                    }
                    false => {
                        assert!(found.isnan().all().int64_value(&[]) != 0, "{what}: {t} is frozen")
                    }
                }
            }
        }
        assert_close(&format!("{what}, gradient of x"), &dx, &gradient, kind);
    }
}

type FeedForward =
    unsafe extern "C" fn(*const [*mut c_void; 5], *const [KernelPath; 3], c_int, c_int, c_uint);

#[test]
fn the_kernels_of_an_activation_between_two_paths() {
    let _turn = crate::seeded(6);
    for (order, (kind, rank, activation, behind_trains, tiled)) in [
        (Kind::Float, 4, ACTIVATIONS[0], true, false),
        (Kind::BFloat16, 4, ACTIVATIONS[1], true, false),
        (Kind::Float, 8, ACTIVATIONS[2], true, false),
        (Kind::Float, 5, ACTIVATIONS[1], false, false),
        (Kind::BFloat16, 4, ACTIVATIONS[1], true, true),
        (Kind::BFloat16, 8, ACTIVATIONS[0], false, true),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{kind:?}, rank {rank}, {activation:?}, {behind_trains}, tiled {tiled}");
        let definitions = [
            wide(kind),
            format!("R={rank}"),
            "PATHS=1".into(),
            format!("ACT={}", activation as i32),
            format!("TILED={}", u8::from(tiled)),
        ];
        let kernels = Kernels::<FeedForward>::new("feed_forward", &definitions);
        let (n, m, slab) = (29, 280, 16);
        let slabs = (n + slab - 1) / slab;
        let float = |shape: &[i64]| random(shape, Kind::Float, CPU) * 0.5;
        // Beyond where the activations are flat, too.
        let (y, a, dz) =
            (random(&[n, m], kind, CPU) * 3.0, nothing(&[n, m], kind), random(&[n, m], kind, CPU));
        let (before, of_a) = (y.copy(), dz.copy());
        let (h, g) = (float(&[n, rank]), float(&[n, rank]));
        let (up, d, b) = (float(&[m, rank]), float(&[rank]), float(&[m]));
        let (down, d_behind) = (float(&[rank, m]), float(&[rank]));
        let part_down = nothing(&[slabs, rank, m], Kind::Float);
        // Only whether it is there counts.
        let da = float(&[1]);
        let none = std::ptr::null_mut();
        let first = KernelPath {
            y: at(Some(&y)),
            tensors: [none, at(Some(&up)), at(Some(&d)), at(Some(&b))],
            part_up: none,
            gradients: [none; 4],
            s: 0.7,
            m: m as c_int,
            rows: n as c_int,
        };
        let behind = KernelPath {
            tensors: [at(Some(&down)), none, at(Some(&d_behind)), none],
            gradients: [at(behind_trains.then_some(&da)), none, none, none],
            ..first
        };
        let tensors = [
            at(Some(&a)),
            at(Some(&h)),
            at(Some(&g)),
            at(Some(&dz)),
            at(behind_trains.then_some(&part_down)),
        ];
        let (n, slab) = (n as c_int, slab as c_int);
        // SAFETY: the tensors live through the call and have the shapes that the kernels read and write.
        unsafe { (kernels.emulate)(&tensors, &[first, behind, behind], n, slab, order as c_uint) };
        let wide = |t: &Tensor| t.to_kind(Kind::Double);
        let path = (wide(&h) * wide(&d)).matmul(&wide(&up).tr()) * wide(&b) * f64::from(first.s);
        assert_close(&what, &y, &(wide(&before) + path), kind);
        // Of the output as it was rounded.
        let exact = double(&y);
        let expected = activated(&exact, activation);
        assert_close(&format!("{what}, activated"), &a, &expected, kind);
        let through = wide(&of_a) + (wide(&g) * wide(&d_behind)).matmul(&wide(&down));
        let gradient = gradients(&expected, &through, &[&exact]).remove(0);
        assert_close(&format!("{what}, gradient"), &dz, &gradient, kind);
        if behind_trains {
            let found = part_down.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
            assert_close(
                &format!("{what}, gradient behind"),
                &found,
                &wide(&g).tr().matmul(&expected),
                kind,
            );
        }
    }
}
