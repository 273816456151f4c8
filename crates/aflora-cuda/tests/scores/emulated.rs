//! The kernels of scores, compiled for the CPU (tests/emulation). No GPU is needed.

use super::{cases, ALL};
use crate::emulation::{at, Kernels};
use std::ffi::{c_int, c_longlong, c_uint, c_void};
use tch::{Device, Kind, Tensor};

type Scores =
    unsafe extern "C" fn(*const [*mut c_void; 6], c_longlong, c_int, f32, f32, bool, c_uint);

#[test]
fn the_kernels_of_scores() {
    let _turn = crate::seeded(11);
    let kernels = Kernels::<Scores>::new("scores", &["BF16=0".into()]);
    for (i, case) in cases(3001).iter().enumerate() {
        for (of, blocks) in ALL.into_iter().zip([1, 3, 20]) {
            let now = Tensor::full([3001], f64::NAN, (Kind::Float, Device::Cpu));
            let (mean, deviation) = (case.mean.copy(), case.deviation.copy());
            let tensors = [
                at(Some(&case.values)),
                at(Some(&case.gradient)),
                at(case.observed.as_ref()),
                at(Some(&now)),
                at(Some(&mean)),
                at(Some(&deviation)),
            ];
            let [mean_share, share] = case.shares.map(|share| share as f32);
            // SAFETY: the tensors live through the call and have the sizes that are said.
            unsafe {
                (kernels.emulate)(
                    &tensors,
                    3001,
                    of as c_int,
                    mean_share,
                    share,
                    case.updated,
                    blocks,
                )
            };
            case.assert(&format!("{of:?}, case {i}"), of, &now, [&mean, &deviation]);
        }
    }
}
