//! Initial values, drawn on the CPU so that every device starts from the same numbers.

use tch::{Device, Kind, Tensor};

/// Kaiming-uniform with `a = 0`: U(-√(6 / fan_in), √(6 / fan_in)), fan_in the last dimension.
///
/// The generator is seeded from `seed` and `name`, so a tensor's values depend on nothing else.
/// This reseeds libtorch's CPU generator.
pub(super) fn kaiming_uniform(shape: [i64; 2], seed: u64, name: &str, device: Device) -> Tensor {
    let bound = (6.0 / shape[1] as f64).sqrt();
    tch::manual_seed(mix(seed, name) as i64);
    let mut t = Tensor::empty(shape, (Kind::Float, Device::Cpu));
    let _ = t.uniform_(-bound, bound);
    t.to_device(device)
}

/// Normal with mean 0, seeded like [`kaiming_uniform`]; fp32, on the CPU.
pub fn normal(shape: &[i64], std: f64, seed: u64, name: &str) -> Tensor {
    tch::manual_seed(mix(seed, name) as i64);
    Tensor::randn(shape, (Kind::Float, Device::Cpu)) * std
}

/// A constant vector.
pub(super) fn constant(len: i64, value: f64, device: Device) -> Tensor {
    Tensor::full([len], value, (Kind::Float, device))
}

/// FNV-1a over the seed and the name: stable across platforms and releases, which
/// `std::hash` does not promise.
fn mix(seed: u64, name: &str) -> u64 {
    seed.to_le_bytes()
        .iter()
        .chain(name.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
