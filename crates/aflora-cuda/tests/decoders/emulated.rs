//! The kernels of decoders' parts, compiled for the CPU (tests/emulation), held to the reference. No GPU is
//! needed.

use super::{angles, assert_close, double, gated, gradients, random};
use super::{rms_norm_in_double, rotated, ACTIVATIONS, ROTATED};
use crate::emulation::{at, wide, Kernels};
use std::ffi::{c_int, c_longlong, c_uint, c_void};
use tch::{Device, Kind, Tensor};

const CPU: Device = Device::Cpu;

fn nothing(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::full(shape, f64::NAN, (kind, CPU))
}

type RmsNorm = unsafe extern "C" fn(*const [*mut c_void; 10], f32, f32, c_int, c_uint);

#[test]
fn the_kernels_of_an_rms_norm() {
    let _turn = crate::seeded(1);
    for (kind, threads, rows, hidden) in [
        (Kind::BFloat16, 256, 3, 4096),
        (Kind::Float, 256, 2, 2056),
        (Kind::Float, 32, 19, 24),
        (Kind::BFloat16, 32, 9, 1000),
    ] {
        let definitions = [wide(kind), format!("H={hidden}"), format!("THREADS={threads}")];
        let kernels = Kernels::<RmsNorm>::new("rms_norm", &definitions);
        let of = || random(&[rows, hidden], kind, CPU);
        for (with_delta, plus, with_sum, order) in
            [(true, 0.0, true, 0), (false, 1.0, true, 1), (true, 1.0, false, 3)]
        {
            let what = format!("{kind:?} {rows} × {hidden}, delta {with_delta}, plus {plus}");
            let (x, delta, weight) = (of(), of(), random(&[hidden], kind, CPU));
            let (dy, dsum) = (of(), of());
            let empty = || nothing(&[rows, hidden], kind);
            let (sum, y, again, dx) = (empty(), empty(), empty(), empty());
            let rstd = nothing(&[rows], Kind::Float);
            let given = with_delta.then_some(&delta);
            let tensors = [
                at(Some(&x)),
                at(given),
                at(Some(&weight)),
                at(Some(&sum)),
                at(Some(&y)),
                at(Some(&again)),
                at(Some(&rstd)),
                at(Some(&dy)),
                at(with_sum.then_some(&dsum)),
                at(Some(&dx)),
            ];
            // SAFETY: the tensors live through the call and have the shapes that the kernels read and write.
            unsafe { (kernels.emulate)(&tensors, plus as f32, 1e-6, rows as c_int, order) };
            let straight = if with_sum { dsum } else { dsum.zeros_like() };
            let ([exact_sum, exact], gradient) =
                rms_norm_in_double(&x, given, (&weight, plus, 1e-6), [&straight, &dy]);
            if with_delta {
                assert_close(&format!("{what}, sum"), &sum, &exact_sum, kind);
            }
            assert_close(&what, &y, &exact, kind);
            assert_eq!(y, again, "{what}, made again");
            assert_close(&format!("{what}, gradient"), &dx, &gradient, kind);
        }
    }
}

type Gated = unsafe extern "C" fn(*const [*mut c_void; 6], c_uint, c_uint, c_uint, c_uint);

#[test]
fn the_kernels_of_a_gate() {
    let _turn = crate::seeded(2);
    for kind in [Kind::Float, Kind::BFloat16] {
        for activation in ACTIVATIONS {
            let definitions = [wide(kind), format!("ACT={}", activation as i32)];
            let kernels = Kernels::<Gated>::new("gated", &definitions);
            for (rows, width, joined) in [(3, 1376, false), (7, 40, true), (1, 8, false)] {
                let what = format!("{kind:?} {rows} × {width}, {activation:?}, joined {joined}");
                // Beyond where the activations are flat, too.
                let both = random(&[rows, 2 * width], kind, CPU) * 6.0;
                let parts: Vec<Tensor> = both.chunk(2, -1).iter().map(Tensor::contiguous).collect();
                let dy = random(&[rows, width], kind, CPU);
                let y = nothing(&[rows, width], kind);
                let d = nothing(&both.size(), kind);
                let stride = if joined { 2 * width } else { width };
                let behind = |t: &Tensor| at(Some(&t.flatten(0, -1).narrow(0, width, 1)));
                let apart = [nothing(&[rows, width], kind), nothing(&[rows, width], kind)];
                let tensors = match joined {
                    true => [
                        at(Some(&both)),
                        behind(&both),
                        at(Some(&y)),
                        at(Some(&dy)),
                        at(Some(&d)),
                        behind(&d),
                    ],
                    false => [
                        at(Some(&parts[0])),
                        at(Some(&parts[1])),
                        at(Some(&y)),
                        at(Some(&dy)),
                        at(Some(&apart[0])),
                        at(Some(&apart[1])),
                    ],
                };
                let (n, stride) = (rows as c_uint, stride as c_uint);
                // SAFETY: the tensors live through the call and have the shapes that the kernels read and write.
                unsafe { (kernels.emulate)(&tensors, n, width as c_uint, stride, 1) };
                let (c, d2) = (double(&parts[0]), double(&parts[1]));
                let reference = gated(&c, &d2, activation);
                let expected = gradients(&reference, &dy.to_kind(Kind::Double), &[&c, &d2]);
                let found = if joined { d } else { Tensor::cat(&apart, -1) };
                assert_close(&what, &y, &reference, kind);
                assert_close(
                    &format!("{what}, gradients"),
                    &found,
                    &Tensor::cat(&expected, -1),
                    kind,
                );
            }
        }
    }
}

/// kernels/rotary.cu has it.
#[repr(C)]
struct Turned {
    from: *mut c_void,
    to: *mut c_void,
    heads: c_uint,
    units: c_uint,
    batch: c_longlong,
    position: c_longlong,
    head: c_longlong,
}

type Rotary = unsafe extern "C" fn(
    *const [Turned; 2],
    *mut c_void,
    *mut c_void,
    c_uint,
    f32,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
);

#[test]
fn the_kernel_of_rotary_positions_and_of_their_gradients() {
    let _turn = crate::seeded(3);
    for (kind, interleaved) in
        [(Kind::Float, false), (Kind::Float, true), (Kind::BFloat16, false), (Kind::BFloat16, true)]
    {
        let definitions = [wide(kind), format!("INTERLEAVED={}", u8::from(interleaved))];
        let kernels = Kernels::<Rotary>::new("rotary", &definitions);
        for (batch, length, heads, shared, size, turning) in ROTATED {
            for (texts, sign) in [(batch, 1.0), (1, -1.0)] {
                let what = format!(
                    "{kind:?} {size}, {turning} of it, interleaved {interleaved}, sign {sign}"
                );
                // As one layer makes them: keys behind queries, token by token.
                let all = random(&[batch, length, heads + shared, size], kind, CPU);
                let [cos, sin] = angles(texts, length, turning / 2, kind, CPU);
                let parts = all.split_with_sizes([heads, shared], 2);
                let to = [heads, shared].map(|n| nothing(&[batch, length, n, size], kind));
                let turned = [0, 1].map(|i| {
                    let (count, stride) = (parts[i].size()[2], parts[i].stride());
                    let units = if interleaved { size / 8 } else { (size - turning / 2) / 8 };
                    Turned {
                        from: at(Some(&parts[i])),
                        to: at(Some(&to[i])),
                        heads: count as c_uint,
                        units: (batch * length * count * units) as c_uint,
                        batch: stride[0],
                        position: stride[1],
                        head: stride[2],
                    }
                });
                let of_text = (if texts == 1 { 0 } else { length * turning / 2 }) as c_uint;
                let (cosines, sines) = (at(Some(&cos)), at(Some(&sin)));
                let (n, half, size) = (length as c_uint, turning as c_uint / 2, size as c_uint);
                // SAFETY: the tensors live through the call and have the shapes that the kernel reads and writes.
                unsafe {
                    (kernels.emulate)(
                        &turned,
                        cosines,
                        sines,
                        of_text,
                        sign as f32,
                        n,
                        half,
                        size,
                        1,
                    )
                };
                let [c, s] = [&cos, &sin].map(|t| t.to_kind(Kind::Double));
                for (from, to) in parts.iter().zip(&to) {
                    let from = from.transpose(1, 2).to_kind(Kind::Double);
                    let expected = match sign > 0.0 {
                        true => rotated(&from, &c, &s, interleaved),
                        // What a gradient becomes on its way back.
                        false => {
                            let x = from.zeros_like().set_requires_grad(true);
                            gradients(&rotated(&x, &c, &s, interleaved), &from, &[&x]).remove(0)
                        }
                    };
                    assert_close(&what, &to.transpose(1, 2), &expected, kind);
                }
            }
        }
    }
}

type CrossEntropy =
    unsafe extern "C" fn(*const [*mut c_void; 8], c_uint, c_int, c_int, f32, c_uint);

#[test]
fn the_kernel_of_a_cross_entropy() {
    let _turn = crate::seeded(7);
    for (order, (kind, even, rest, with_bias, smoothing)) in [
        (Kind::Float, 40, 3, true, 0.0),
        (Kind::BFloat16, 4200, 0, false, 0.1),
        (Kind::BFloat16, 8, 1, true, 0.2),
        (Kind::Float, 4096, 7, false, 0.0),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{kind:?} {even} + {rest}, bias {with_bias}, smoothing {smoothing}");
        let kernels = Kernels::<CrossEntropy>::new("cross_entropy", &[wide(kind)]);
        let words = even + rest;
        // The last two are of no label, and of a label that is no word.
        let labels = Tensor::from_slice(&[0, words - 1, even - 1, words - 1, -100, words]);
        let x = random(&[6, words], kind, CPU) * 8.0;
        let _ = x.get(3).narrow(0, 0, 7).fill_(f64::NEG_INFINITY);
        let parts = [x.narrow(1, 0, even), x.narrow(1, even, rest)].map(|t| t.contiguous());
        let bias = with_bias.then(|| random(&[words], Kind::Float, CPU));
        let losses = nothing(&[6], Kind::Float);
        let [d, d_rest] = [even, rest].map(|n| nothing(&[6, n], kind));
        let by = Tensor::from(2.5f32);
        let tensors = [
            at(Some(&parts[0])),
            at(Some(&parts[1])),
            at(bias.as_ref()),
            at(Some(&labels)),
            at(Some(&losses)),
            at(Some(&d)),
            at(Some(&d_rest)),
            at(Some(&by)),
        ];
        let order = order as c_uint;
        // SAFETY: the tensors live through the call and have the shapes that the kernel reads and writes.
        unsafe {
            let (even, rest) = (even as c_int, rest as c_int);
            (kernels.emulate)(&tensors, 6, even, rest, smoothing as f32, order)
        };
        let none = None::<&Tensor>;
        let exact = double(&x.narrow(0, 0, 5));
        let logits = match &bias {
            Some(bias) => &exact + bias.to_kind(Kind::Double),
            None => exact.shallow_clone(),
        };
        // Where a logit is minus infinity, so is the share that smoothing gives it.
        let known = if smoothing > 0.0 { 3 } else { 4 };
        let expected = logits.cross_entropy_loss(
            &labels.narrow(0, 0, 5),
            none,
            tch::Reduction::None,
            -100,
            smoothing,
        );
        let finite = |t: &Tensor| t.narrow(0, 0, known);
        assert_close(&what, &finite(&losses), &finite(&expected), Kind::Float);
        assert_eq!(losses.double_value(&[4]), 0.0, "{what}: a token without a label");
        assert!(losses.double_value(&[5]).is_nan(), "{what}: a label that is no word");
        let sum = finite(&expected).sum(Kind::Double);
        let gradient = Tensor::run_backward(&[&sum], &[&exact], false, false).remove(0);
        let found = Tensor::cat(&[&d.to_kind(Kind::Float) / 2.5, d_rest.to_kind(Kind::Float)], 1);
        assert_close(&format!("{what}, gradient"), &finite(&found), &finite(&gradient), kind);
        assert_eq!(found.get(4).abs().max().double_value(&[]), 0.0, "{what}: its gradient");
    }
}
