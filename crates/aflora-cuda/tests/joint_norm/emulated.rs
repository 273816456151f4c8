//! The kernels of a joint norm, compiled for the CPU (tests/emulation). No GPU is needed.

use super::{assert_cleared, assert_judged, CASES, COUNTED, PIECES};
use crate::emulation::{at, Kernels};
use aflora_cuda::ops::Judged;
use std::ffi::{c_longlong, c_uint, c_void};
use tch::{Device, Kind, Tensor};

type JointNorm =
    unsafe extern "C" fn(*const [*mut c_void; 8], c_longlong, c_uint, f32, c_uint, c_uint);

#[test]
fn the_kernels_of_a_joint_norm() {
    let _turn = crate::seeded(9);
    let kernels = Kernels::<JointNorm>::new("joint_norm", &["BF16=0".into()]);
    let ends: Vec<i64> = PIECES.iter().flat_map(|piece| [piece.start, piece.end]).collect();
    let pieces = Tensor::from_slice(&ends);
    for (order, case) in CASES.into_iter().enumerate() {
        let (gradients, loss) = case.draw(Device::Cpu);
        let number = |kind| Tensor::ones([0i64; 0], (kind, Device::Cpu));
        for shares in [1, 7, 300] {
            let (found, sums) =
                (gradients.copy(), Tensor::full([shares], f64::NAN, (Kind::Float, Device::Cpu)));
            let counts = Tensor::from_slice(&COUNTED);
            let judged = Judged {
                norm: number(Kind::Float),
                finite_norm: number(Kind::Float),
                bad: number(Kind::Bool),
            };
            let tensors = [
                at(Some(&found)),
                at(Some(&sums)),
                at(Some(&loss)),
                at(Some(&judged.norm)),
                at(Some(&judged.finite_norm)),
                at(Some(&judged.bad)),
                at(Some(&counts)),
                at(Some(&pieces)),
            ];
            let run = |pieces: usize| {
                let (n, shares) = (found.numel() as c_longlong, shares as c_uint);
                let (most, order) = (case.most as f32, order as c_uint);
                // SAFETY: the tensors live through the call and have the sizes that are said.
                unsafe { (kernels.emulate)(&tensors, n, shares, most, pieces as c_uint, order) }
            };
            run(0);
            let counts = [0, 1].map(|i| counts.int64_value(&[i]));
            assert_judged(&case, &gradients, &judged, &found, counts);
            if case.count > 512 && !case.is_bad() {
                let before = found.copy();
                run(PIECES.len());
                assert_cleared(&before, &found);
            }
        }
    }
}
