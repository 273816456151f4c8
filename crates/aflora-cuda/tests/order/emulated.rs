//! The kernels of means and the k-th smallest number, compiled for the CPU (tests/emulation). No GPU is needed.

use super::cases;
use crate::emulation::{at, Kernels};
use std::ffi::{c_int, c_uint, c_void};
use tch::{Device, Kind, Tensor};

type Order = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    c_int,
    c_uint,
    *mut c_void,
    c_uint,
    *mut c_void,
    *mut c_void,
    c_uint,
);

#[test]
fn the_kernels_of_means_and_the_kth_smallest() {
    let _turn = crate::seeded(10);
    let kernels = Kernels::<Order>::new("order", &["BF16=0".into()]);
    for (order, case) in cases(5000).into_iter().enumerate() {
        let ends: Vec<i64> = case.stretches.iter().flat_map(|s| [s.start, s.end]).collect();
        let ends = Tensor::from_slice(&ends);
        for (blocks, k) in [1, 2, 5].into_iter().cycle().zip(case.places()) {
            let counts = Tensor::zeros([3, 2048], (Kind::Int, Device::Cpu));
            let kth = Tensor::full([1], f64::NAN, (Kind::Float, Device::Cpu));
            let number = case.stretches.len();
            let means = Tensor::full([number as i64], f64::NAN, (Kind::Float, Device::Cpu));
            // SAFETY: the tensors live through the call and have the sizes that are said.
            unsafe {
                (kernels.emulate)(
                    at(Some(&case.flat)),
                    at(Some(&ends)),
                    number as c_int,
                    blocks,
                    at(Some(&counts)),
                    k as c_uint,
                    at(Some(&kth)),
                    at(Some(&means)),
                    order as c_uint,
                );
            }
            case.assert_kth(k, kth.double_value(&[0]));
            case.assert_means(&means);
        }
    }
}
