//! What codes stand for, as bitsandbytes has it.

use tch::{Device, Kind, Tensor};

/// NF4's sixteen numbers (Dettmers et al. 2023, appendix E): quantiles of a normal distribution,
/// scaled to -1 … 1, zero among them.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// NF4's numbers, `[16]`, fp32, ascending.
pub(super) fn nf4(device: Device) -> Tensor {
    Tensor::from_slice(&NF4).to_device(device)
}

/// The 256 numbers of a dynamic exponent and fraction (Dettmers 2016, arXiv 1511.04561), `[256]`,
/// fp32, ascending: the fewer digits an exponent's number has, the more bits are left for it.
pub(super) fn dynamic(device: Device) -> Tensor {
    /// The bits but for the sign.
    const BITS: i32 = 7;
    let mut numbers = vec![Tensor::from_slice(&[0f32, 1.0])];
    for exponent in 0..BITS {
        let count = (1i64 << exponent) + 1;
        let edges = Tensor::linspace(0.1, 1.0, count, (Kind::Float, Device::Cpu));
        let middles = (edges.narrow(0, 0, count - 1) + edges.narrow(0, 1, count - 1)) / 2.0;
        let power = 10f64.powi(exponent - (BITS - 1));
        numbers.extend([&middles * power, middles * -power]);
    }
    Tensor::cat(&numbers, 0).sort(0, false).0.to_device(device)
}

/// Between neighbours of `map`, `[n]`, `[n - 1]`: a number belongs to the code whose bounds it lies
/// between.
pub(super) fn bounds(map: &Tensor) -> Tensor {
    let between = map.size()[0] - 1;
    (map.narrow(0, 0, between) + map.narrow(0, 1, between)) / 2.0
}
