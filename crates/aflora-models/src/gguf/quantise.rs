//! A tensor's numbers as a file holds them, to the bit as the `gguf` package makes them.

use super::precision::Precision;
use aflora_core::weight::{restore_blocks, BlockFormat};
use half::{bf16, f16};
use tch::{Device, Kind, TchError, Tensor};

/// The bytes of a tensor in a format.
///
/// # Errors
/// libtorch refuses.
pub(super) fn quantise(tensor: &Tensor, format: Precision) -> Result<Vec<u8>, TchError> {
    let host = tensor.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut numbers = vec![0f32; host.numel()];
    host.f_copy_data(&mut numbers, host.numel())?;
    Ok(match format {
        Precision::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Precision::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Precision::Bf16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Precision::Q8_0 => numbers.chunks_exact(32).flat_map(q8_0).collect(),
    })
}

/// A tensor's numbers as a file in `precision` gives them back.
///
/// # Errors
/// libtorch refuses.
pub(super) fn rounded(tensor: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
    let to = |tensor: &Tensor, kind| tensor.f_to_dtype(kind, false, false);
    match precision.of(&tensor.size()) {
        Precision::F32 => to(tensor, Kind::Float),
        Precision::F16 => to(&to(tensor, Kind::Half)?, Kind::Float),
        Precision::Bf16 => to(&to(tensor, Kind::BFloat16)?, Kind::Float),
        Precision::Q8_0 => {
            let blocks = quantise(tensor, Precision::Q8_0)?;
            let mut numbers = vec![0f32; tensor.numel()];
            restore_blocks(BlockFormat::Q8_0, &blocks, &mut numbers);
            Tensor::f_from_slice(&numbers)?.f_view_as(tensor)?.f_to_device(tensor.device())
        }
    }
}

/// The scale, by which the largest number is 127 or -127, then each number in scales, rounded.
fn q8_0(numbers: &[f32]) -> Vec<u8> {
    let scale = numbers.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let scaled = numbers.iter().map(|x| (x * inverse).round() as i8 as u8);
    f16::from_f32(scale).to_le_bytes().into_iter().chain(scaled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_quantised_as_the_gguf_package_does_to_the_bit() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gguf/quantised.json");
        let golden: serde_json::Value =
            serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
        let list = |key: &str| -> Vec<u32> { serde_json::from_value(golden[key].clone()).unwrap() };
        let numbers: Vec<f32> = list("numbers").into_iter().map(f32::from_bits).collect();
        let numbers = Tensor::from_slice(&numbers).reshape([-1, 32]);
        for (name, format) in
            [("F16", Precision::F16), ("BF16", Precision::Bf16), ("Q8_0", Precision::Q8_0)]
        {
            let expected: Vec<u8> = list(name).into_iter().map(|byte| byte as u8).collect();
            assert_eq!(quantise(&numbers, format).unwrap(), expected, "{name}");
        }
    }
}
