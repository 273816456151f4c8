//! Initial values, drawn on the CPU so that every device starts from the same numbers.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood 2014), seeded by the run's seed and the
//! tensor's name: a tensor's values depend on nothing else, not on what was drawn before, not
//! on threads, not on the version of libtorch.

use crate::nn::shapes_suffice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// What `draw` gives, of `shape`; where shapes suffice, a tensor that has nothing else.
fn values(shape: &[i64], draw: impl FnOnce() -> Tensor) -> Tensor {
    match shapes_suffice() {
        true => Tensor::zeros([1], (Kind::Float, Device::Cpu)).expand(shape, false),
        false => draw(),
    }
}

/// Kaiming-uniform with `a = 0`: U(-√(6 / fan_in), √(6 / fan_in)), fan_in the last dimension.
pub(super) fn kaiming_uniform(shape: [i64; 2], seed: u64, name: &str, device: Device) -> Tensor {
    let bound = (6.0 / shape[1] as f64).sqrt();
    let random = SplitMix64::new(seed, name);
    values(&shape, || fill(&shape, random, 1, |random| (2.0 * random.unit() - 1.0) * bound))
        .to_device(device)
}

/// Normal values with mean 0, of a `shape` such as `[rows, columns]`, fp32 on the CPU: for the new
/// weights of a task head.
pub fn normal(shape: &[i64], std: f64, seed: u64, name: &str) -> Tensor {
    // Box and Muller; 1 - u lies in (0, 1], where the logarithm is finite.
    let draw = |random: &mut SplitMix64| {
        let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
        std * radius * (std::f64::consts::TAU * random.unit()).cos()
    };
    values(shape, || fill(shape, SplitMix64::new(seed, name), 2, draw))
}

/// Ones with probability `share`, else zeros, of `shape`, fp32 on the CPU.
pub(super) fn bernoulli(shape: &[i64], share: f64, seed: u64, name: &str) -> Tensor {
    let draw = |random: &mut SplitMix64| f64::from(u8::from(random.unit() < share));
    values(shape, || fill(shape, SplitMix64::new(seed, name), 1, draw))
}

/// LoRA's own start of A, kaiming-uniform with a = √5: U(±1 / √in_features).
pub(super) fn lora_uniform(shape: [i64; 2], seed: u64, site: &str, device: Device) -> Tensor {
    let name = format!("{site}.lora_A");
    values(&shape, || kaiming_uniform(shape, seed, &name, device) / 6f64.sqrt()).to_device(device)
}

/// A tensor of `shape`, fp32, whose elements are all `value`.
pub(super) fn constant<const N: usize>(shape: [i64; N], value: f64, device: Device) -> Tensor {
    values(&shape, || Tensor::full(shape, value, (Kind::Float, device))).to_device(device)
}

/// U(±bound) for each shape in turn, as `torch.Generator("cpu").manual_seed(seed)` and
/// `Tensor.uniform_` draw it: Mersenne Twister, 24 bits a number.
pub(super) fn torch_uniform<const N: usize>(
    seed: u64,
    shapes: [([i64; 2], f64); N],
) -> [Tensor; N] {
    // PyTorch keeps the lower 32 bits.
    let mut random = rand_mt::Mt19937GenRand32::new(seed as u32);
    let mut draw = |shape: [i64; 2], bound: f64| {
        let (from, to) = (-bound as f32, bound as f32);
        let n = (shape[0] * shape[1]) as usize;
        let values: Vec<f32> = (0..n)
            .map(|_| {
                let unit = (random.next_u32() & 0xff_ffff) as f32 / (1u32 << 24) as f32;
                // Rounded once, as compilers make it of PyTorch's product and sum.
                unit.mul_add(to - from, from)
            })
            .collect();
        Tensor::from_slice(&values).view(shape)
    };
    shapes.map(|(shape, bound)| values(&shape, || draw(shape, bound)))
}

/// Values that take `draws` random numbers each, on all cores: any value's numbers can be had
/// without those before.
fn fill(
    shape: &[i64],
    random: SplitMix64,
    draws: u64,
    value: impl Fn(&mut SplitMix64) -> f64 + Sync,
) -> Tensor {
    const SHARE: usize = 1 << 16;
    let mut values = vec![0f32; shape.iter().product::<i64>() as usize];
    let next_part = AtomicUsize::new(0);
    let parts: Vec<_> = values.chunks_mut(SHARE).map(Mutex::new).collect();
    let work = || loop {
        let part = next_part.fetch_add(1, Ordering::Relaxed);
        let Some(values) = parts.get(part) else { break };
        let mut random = random.after((part * SHARE) as u64 * draws);
        // No part is anybody else's, and a panic here ends the program's work anyway.
        for slot in values.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            *slot = value(&mut random) as f32;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(parts.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    drop(parts);
    Tensor::from_slice(&values).view(shape)
}

struct SplitMix64(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix64 {
    /// FNV-1a over the seed and the name starts the sequence.
    fn new(seed: u64, name: &str) -> Self {
        let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
        let hash = |h: u64, byte: u8| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        SplitMix64(bytes.fold(0xcbf2_9ce4_8422_2325, hash))
    }

    /// The generator after so many numbers.
    fn after(&self, numbers: u64) -> Self {
        SplitMix64(self.0.wrapping_add(numbers.wrapping_mul(STEP)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The published sequence for the seed 1234567.
        let mut random = SplitMix64(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn values_drawn_on_many_cores_are_those_of_one() {
        let mut random = SplitMix64::new(3, "w");
        let found = Vec::<f32>::try_from(normal(&[200_000], 1.0, 3, "w")).unwrap();
        for (i, found) in found.into_iter().enumerate() {
            let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
            let value = radius * (std::f64::consts::TAU * random.unit()).cos();
            assert_eq!(found, value as f32, "{i}");
        }
    }

    #[test]
    fn normal_values_have_the_moments_of_a_normal_distribution() {
        let x = normal(&[200, 500], 0.02, 1, "w") / 0.02;
        let moment = |n: i32| x.pow_tensor_scalar(n as f64).mean(Kind::Double).double_value(&[]);
        assert!(moment(1).abs() < 0.02 && (moment(2) - 1.0).abs() < 0.02);
        assert!(moment(3).abs() < 0.05 && (moment(4) - 3.0).abs() < 0.1);
    }
}
