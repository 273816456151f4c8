//! From numbers to codes, with bitsandbytes' arithmetic.

use super::format::{ceil, WeightFormat, NESTED_BLOCK, NF4_BLOCK};
use super::maps;
use super::quantised::{Coding, QuantisedWeight, Scales};
use crate::Result;
use tch::{Kind, Tensor};

/// What a scale is at least, to be divided by.
const LEAST: f64 = 1e-38;

/// How many bits an fp32 has below its exponent.
const FRACTION: i64 = 23;

/// The largest number of e4m3 is 1.75 · 2⁸: the exponent, and what carries a fraction above .75 into it.
const E4M3_EXPONENT: i64 = 8;
const E4M3_CARRY: i64 = 0x1f_ffff;

/// The largest code of int8.
const INT8_MOST: f64 = 127.0;

impl QuantisedWeight {
    /// `weight`, `[out_features, in_features]` of any kind of floating point, in `format`, on its
    /// device. Numbers that are none (NaN, infinite) spoil those that share their scale.
    ///
    /// # Errors
    /// libtorch refuses: the device has not the memory.
    pub fn quantise(weight: &Tensor, format: WeightFormat) -> Result<Self> {
        tch::no_grad(|| match format {
            WeightFormat::Nf4 => nf4(weight, false),
            WeightFormat::Nf4Nested => nf4(weight, true),
            WeightFormat::Int8 => int8(weight, false),
            WeightFormat::Int8Dynamic => int8(weight, true),
            WeightFormat::Fp8 => fp8(weight),
        })
    }
}

fn nf4(weight: &Tensor, nested: bool) -> Result<QuantisedWeight> {
    let size = weight.size();
    let map = maps::nf4(weight.device());
    let (codes, scales) = by_blocks(weight, &map, NF4_BLOCK)?;
    // Two codes a byte; the last may be alone.
    let pairs = codes.f_view([-1, 2])?;
    let bytes = pairs.f_select(1, 0)?.f_mul_scalar(16)?.f_add(&pairs.f_select(1, 1)?)?;
    let bytes = bytes.f_narrow(0, 0, ceil(size[0] * size[1], 2))?.f_to_kind(Kind::Uint8)?;
    let scales = match nested {
        false => Scales::Plain(scales),
        true => {
            let offset = scales.f_mean(Kind::Float)?;
            let map = maps::dynamic(weight.device());
            let count = scales.size()[0];
            let (codes, of_codes) = by_blocks(&scales.f_sub(&offset)?, &map, NESTED_BLOCK)?;
            Scales::Nested {
                codes: codes.f_narrow(0, 0, count)?.f_to_kind(Kind::Uint8)?,
                map,
                scales: of_codes,
                offset: offset.f_double_value(&[])?,
                block: NESTED_BLOCK,
            }
        }
    };
    let coding = Coding::Map { map, block: NF4_BLOCK, scales };
    QuantisedWeight::new(bytes.contiguous(), coding, [size[0], size[1]])
}

/// Of each number, divided by the largest magnitude of its block, the code that `map` has nearest,
/// and the blocks' magnitudes. There are codes for whole blocks, of zeros at the end.
fn by_blocks(numbers: &Tensor, map: &Tensor, block: i64) -> Result<(Tensor, Tensor)> {
    let flat = numbers.detach().f_to_kind(Kind::Float)?.f_reshape([-1])?;
    let missing = (block - flat.size()[0] % block) % block;
    let whole = match missing {
        0 => flat,
        missing => flat.f_constant_pad_nd([0, missing])?,
    };
    let blocks = whole.f_view([-1, block])?;
    let scales = blocks.f_abs()?.f_amax([1i64].as_slice(), true)?;
    let factor = scales.f_clamp_min(LEAST)?.f_reciprocal()?;
    let scaled = blocks.f_mul(&factor)?.f_clamp(-1.0, 1.0)?;
    let codes = scaled.f_view([-1])?.f_bucketize(&maps::bounds(map), true, false)?;
    Ok((codes, scales.f_view([-1])?))
}

fn int8(weight: &Tensor, dynamic: bool) -> Result<QuantisedWeight> {
    let size = weight.size();
    let numbers = weight.detach().f_to_kind(Kind::Float)?;
    let scales = numbers.f_abs()?.f_amax([1i64].as_slice(), true)?;
    // A row of zeros is one of codes of zero.
    let factor = scales.f_clamp_min(f64::from(f32::MIN_POSITIVE) * INT8_MOST)?;
    let factor = factor.f_reciprocal()?.f_mul_scalar(INT8_MOST)?;
    let codes = numbers.f_mul(&factor)?.f_round()?.f_to_kind(Kind::Int8)?;
    let coding = Coding::Rows { scales: scales.f_view([-1])?, dynamic };
    QuantisedWeight::new(codes.contiguous(), coding, [size[0], size[1]])
}

fn fp8(weight: &Tensor) -> Result<QuantisedWeight> {
    let size = weight.size();
    let numbers = weight.detach().f_to_kind(Kind::Float)?;
    let scales = powers(&numbers.f_abs()?.f_amax([1i64].as_slice(), true)?)?;
    let codes = numbers.f_div(&scales)?.f_to_kind(Kind::Float8e4m3fn)?;
    let coding = Coding::E4m3 { scales: scales.f_view([-1])? };
    QuantisedWeight::new(codes.f_contiguous()?, coding, [size[0], size[1]])
}

/// The least powers of two by which rows of the magnitudes `largest`, fp32, are divided to lie within e4m3's
/// numbers: `e4m3::scale` of kernels/e4m3.cuh.
fn powers(largest: &Tensor) -> Result<Tensor> {
    let exponents = largest.f_view_dtype(Kind::Int)?.f_add_scalar(E4M3_CARRY)?;
    let exponents = exponents.f_bitwise_right_shift_tensor_scalar(FRACTION)?;
    let exponents = exponents.f_sub_scalar(E4M3_EXPONENT)?.f_clamp_min(1)?;
    let powers = exponents.f_bitwise_left_shift_tensor_scalar(FRACTION)?;
    let powers = powers.f_view_dtype(Kind::Float)?;
    Ok(powers.f_masked_fill(&largest.f_isfinite()?.f_logical_not()?, f64::NAN)?)
}
