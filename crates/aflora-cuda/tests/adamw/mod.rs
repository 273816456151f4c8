//! The kernel of AdamW, compiled for the CPU (tests/emulation): held to its equations in double precision. No GPU is
//! needed; on one, aflora-core's tests hold it to the CPU's update.

use crate::assert_close;
use crate::emulation::{at, Kernels};
use std::ffi::{c_longlong, c_uint, c_void};
use tch::{Device, Kind, Tensor};

type Emulate = unsafe extern "C" fn(
    *const [*mut c_void; 4],
    *mut c_void,
    c_longlong,
    c_uint,
    *const f32,
    *const f32,
    *const [f32; 5],
);

/// Numbers of a buffer.
const N: i64 = 1000;

/// Where the two pieces of a buffer are; the second of every other one does not move.
fn pieces(buffer: i64) -> [[i64; 2]; 2] {
    [[buffer, 301 + buffer], [700 - 10 * buffer, 1000 - buffer]]
}

#[test]
fn the_kernel_of_an_update_of_several_groups() {
    let _turn = crate::seeded(12);
    let kernels = Kernels::<Emulate>::new("adamw", &["BF16=0".into()]);
    for count in [1, 3, 8] {
        let random = || Tensor::randn([count, N], (Kind::Float, Device::Cpu));
        let before = [random(), random(), random(), random().abs()];
        let after = before.each_ref().map(Tensor::copy);
        let rates: Vec<f64> = (0..count).map(|i| 1e-2 * (i + 1) as f64).collect();
        let (t, [beta1, beta2], eps, decay) = (3, [0.9, 0.999], 1e-8, 0.1);
        let (correction1, correction2) = (1.0 - f64::powi(beta1, t), 1.0 - f64::powi(beta2, t));
        let kept: Vec<f32> = rates.iter().map(|lr| (1.0 - lr * decay) as f32).collect();
        let step: Vec<f32> = rates.iter().map(|lr| (lr / correction1) as f32).collect();
        let root = 1.0 / correction2.sqrt();
        let numbers = [1.0 - beta1, beta2, 1.0 - beta2, root, eps].map(|number| number as f32);
        let ends: Vec<i64> = (0..count).flat_map(pieces).flatten().collect();
        let pieces_of_all = Tensor::from_slice(&ends);
        let buffers = after.each_ref().map(|buffer| at(Some(buffer)));
        let (kept, step) = (kept.as_ptr(), step.as_ptr());
        // SAFETY: the tensors live through the call and have the sizes that are said.
        unsafe {
            let (ends, count) = (at(Some(&pieces_of_all)), count as c_uint);
            (kernels.emulate)(&buffers, ends, N, count, kept, step, &numbers);
        }
        let [p, g, m, v] = before.each_ref().map(|t| t.to_kind(Kind::Double));
        let moves = Tensor::zeros([count, N], (Kind::Bool, Device::Cpu));
        for buffer in 0..count {
            for [begin, end] in &pieces(buffer)[..2 - buffer as usize % 2] {
                let _ = moves.get(buffer).narrow(0, *begin, end - begin).fill_(1);
            }
        }
        let first = &m + (&g - &m) * (1.0 - beta1);
        let second = &v * beta2 + g.square() * (1.0 - beta2);
        let lr = Tensor::from_slice(&rates).view([-1, 1]);
        let moved = (&first / correction1) / ((&second / correction2).sqrt() + eps);
        let values: Tensor = &p - (&lr * decay) * &p - lr * moved;
        let expected = [
            values.where_self(&moves, &p),
            g,
            first.where_self(&moves, &m),
            second.where_self(&moves, &v),
        ];
        for (i, (found, expected)) in after.iter().zip(&expected).enumerate() {
            assert_close(&format!("{count} groups, buffer {i}"), found, expected, Kind::Float);
        }
    }
}
