//! The kernels of products in fp8, compiled for the CPU (tests/emulation), held to libtorch's own conversion.
//! No GPU is needed.

use crate::emulation::{at, wide, Kernels};
use std::ffi::{c_int, c_uint, c_void};
use tch::{Device, Kind, Tensor};

const CPU: Device = Device::Cpu;

type Fp8 = unsafe extern "C" fn(*const [*mut c_void; 7], c_int, c_int, c_uint);

/// A number for each row or column, powers of two from 2⁻ⁿ to 2ⁿ.
fn powers(shape: &[i64], n: i64) -> Tensor {
    Tensor::randint_low(-n, n + 1, shape, (Kind::Float, CPU)).exp2()
}

#[test]
fn rows_are_rounded_to_codes_and_codes_transposed() {
    let _turn = crate::seeded(3);
    for (kind, threads, rows, width) in [
        (Kind::BFloat16, 32, 20, 264),
        (Kind::Float, 32, 8, 8),
        (Kind::BFloat16, 256, 4, 2056),
        (Kind::Float, 256, 132, 136),
    ] {
        let kernels = Kernels::<Fp8>::new("fp8", &[wide(kind), format!("THREADS={threads}")]);
        for (with_factors, order) in [(false, 0), (true, 1), (true, 3)] {
            let what = format!("{kind:?} {rows} × {width}, factors {with_factors}");
            let normal = Tensor::randn([rows, width], (Kind::Float, CPU));
            let x = (normal * powers(&[rows, 1], 20)).to_kind(kind);
            // One of zeros, one of what is no number.
            let _ = x.get(1).zero_();
            let _ = x.get(2).get(5).fill_(f64::INFINITY);
            let by = powers(&[width], 3);
            let given = with_factors.then_some(&by);
            let empty = |size: &[i64], kind| Tensor::zeros(size, (kind, CPU));
            let codes = empty(&[rows, width], Kind::Uint8);
            let transposed = empty(&[width, rows], Kind::Uint8);
            let (scales, ones) = (empty(&[rows, 1], Kind::Float), empty(&[width], Kind::Float));
            let rounded = empty(&[rows, width], kind);
            let tensors =
                [Some(&x), given, Some(&codes), Some(&scales), Some(&rounded), Some(&transposed)];
            let [x_at, by_at, codes_at, scales_at, rounded_at, transposed_at] = tensors.map(at);
            let tensors =
                [x_at, by_at, codes_at, scales_at, rounded_at, transposed_at, at(Some(&ones))];
            // SAFETY: the tensors live through the call and have the shapes that the kernels read and write.
            unsafe { (kernels.emulate)(&tensors, rows as c_int, width as c_int, order) };

            assert!(transposed.equal(&codes.tr()), "{what}");
            assert!(ones.equal(&ones.ones_like()), "{what}");
            let factors = if with_factors { by } else { by.ones_like() };
            let product = x.to_kind(Kind::Float) * &factors;
            let found = codes.view_dtype(Kind::Float8e4m3fn).to_kind(Kind::Float);
            for row in (0..rows).filter(|row| *row != 2) {
                let scale = scales.double_value(&[row, 0]);
                let largest = product.get(row).abs().max().double_value(&[]);
                assert_eq!(scale.log2().fract(), 0.0, "{what}: {scale} is no power of two");
                let fits = largest <= 448.0 * scale && (largest > 224.0 * scale || row == 1);
                assert!(fits, "{what}: {largest} by {scale}");
                let expected = (product.get(row) / scale).to_kind(Kind::Float8e4m3fn);
                let expected = expected.to_kind(Kind::Float);
                assert!(found.get(row).equal(&expected), "{what}, row {row}");
                let whole = (expected * scale / &factors).to_kind(kind);
                assert!(rounded.get(row).equal(&whole), "{what}, row {row}");
            }
            assert!(scales.double_value(&[2, 0]).is_nan(), "{what}");
            assert!(rounded.get(2).isnan().all().int64_value(&[]) == 1, "{what}");
        }
    }
}
