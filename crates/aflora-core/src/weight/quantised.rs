//! A weight in codes.

use super::format::{ceil, WeightFormat};
use super::maps;
use crate::{error, Error, Result};
use aflora_cuda::blocks::{restore as restore_blocks, BlockFormat};
use aflora_cuda::ops::{self, Nested, Quantised};
use tch::{Device, Kind, Tensor};

/// 1 / 127 as bitsandbytes has it.
const INT8_UNIT: f64 = 7.874_015_718_698_502e-3;

/// A weight `[rows, columns]` whose numbers are codes that share scales; in row-major order,
/// detached, all of it on one device.
#[derive(Debug)]
pub struct QuantisedWeight {
    codes: Tensor,
    coding: Coding,
    shape: [i64; 2],
}

/// What codes stand for.
#[derive(Debug)]
pub enum Coding {
    /// `map[code] · scale`, for codes of four bits, two a byte, the upper half first.
    Map {
        /// `[16]`, fp32.
        map: Tensor,
        /// Numbers that share a scale: an even count.
        block: i64,
        /// Of each block.
        scales: Scales,
    },
    /// `code · scale / 127`, for codes of eight bits.
    Rows {
        /// Of each row, `[rows]`, fp32.
        scales: Tensor,
        /// Whether what is multiplied by them is rounded to whole numbers itself, on a CPU.
        dynamic: bool,
    },
    /// `code · scale`, for codes that are floating point numbers of eight bits, e4m3. What is multiplied by
    /// them is rounded to such numbers itself.
    E4m3 {
        /// Of each row, `[rows]`, fp32: powers of two.
        scales: Tensor,
    },
    /// Blocks of GGUF's, which hold their scales; rows are whole blocks.
    Blocks(BlockFormat),
}

/// The scales of blocks.
#[derive(Debug)]
pub enum Scales {
    /// As they are, `[blocks]`, fp32.
    Plain(Tensor),
    /// Codes themselves: `map[code] · scale + offset`.
    Nested {
        /// `[blocks]`, u8.
        codes: Tensor,
        /// `[256]`, fp32.
        map: Tensor,
        /// Of each block of codes, fp32.
        scales: Tensor,
        /// Added to each.
        offset: f64,
        /// Codes that share a scale.
        block: i64,
    },
}

impl QuantisedWeight {
    /// Of codes and what they stand for: with [`Coding::Map`] `[⌈rows · columns / 2⌉]` of u8, with
    /// [`Coding::Rows`] `[rows, columns]` of i8, with [`Coding::E4m3`] of e4m3, with [`Coding::Blocks`] the bytes of the blocks, of u8.
    ///
    /// # Errors
    /// A tensor is of another kind or size than [`Coding`] says, or of another device than the codes.
    pub fn new(codes: Tensor, coding: Coding, shape: [i64; 2]) -> Result<Self> {
        let device = codes.device();
        // Kernels read by these numbers, and look at no others.
        let check = |what: &'static str, tensor: &Tensor, kind: Kind, count: i64| {
            let fits = tensor.kind() == kind && tensor.numel() as i64 == count;
            match fits && tensor.is_contiguous() && tensor.device() == device {
                true => Ok(()),
                false => Err(Error::Shape {
                    site: "a quantised weight".into(),
                    what,
                    found: tensor.size(),
                    expected: vec![count],
                }),
            }
        };
        let numbers = shape[0] * shape[1];
        match &coding {
            Coding::Rows { scales, .. } => {
                check("its codes", &codes, Kind::Int8, numbers)?;
                check("its scales", scales, Kind::Float, shape[0])?;
            }
            Coding::E4m3 { scales } => {
                check("its codes", &codes, Kind::Float8e4m3fn, numbers)?;
                check("its scales", scales, Kind::Float, shape[0])?;
            }
            Coding::Blocks(format) => {
                let block = format.numbers() as i64;
                let whole = shape[1] % block == 0;
                error::check("columns", shape[1], whole, "a multiple of its blocks' numbers")?;
                check("its blocks", &codes, Kind::Uint8, numbers / block * format.bytes() as i64)?;
            }
            Coding::Map { map, block, scales } => {
                let even = *block > 0 && block % 2 == 0;
                error::check("block", block, even, "an even number above zero")?;
                let blocks = ceil(numbers, *block);
                check("its codes", &codes, Kind::Uint8, ceil(numbers, 2))?;
                check("its map", map, Kind::Float, 16)?;
                match scales {
                    Scales::Plain(scales) => check("its scales", scales, Kind::Float, blocks)?,
                    Scales::Nested { codes, map, scales, block, .. } => {
                        error::check("nested block", block, *block > 0, "a number above zero")?;
                        check("its scales", codes, Kind::Uint8, blocks)?;
                        check("its scales' map", map, Kind::Float, 256)?;
                        check("its scales' scales", scales, Kind::Float, ceil(blocks, *block))?;
                    }
                }
            }
        }
        Ok(QuantisedWeight { codes, coding, shape })
    }

    /// The codes.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// What they stand for.
    pub fn coding(&self) -> &Coding {
        &self.coding
    }

    /// Rows and columns: out_features and in_features.
    pub fn shape(&self) -> [i64; 2] {
        self.shape
    }

    /// The format that it is in, if it is one that [`quantise`](Self::quantise) makes.
    pub fn format(&self) -> Option<WeightFormat> {
        match &self.coding {
            Coding::Rows { dynamic: false, .. } => Some(WeightFormat::Int8),
            Coding::Rows { dynamic: true, .. } => Some(WeightFormat::Int8Dynamic),
            Coding::E4m3 { .. } => Some(WeightFormat::Fp8),
            Coding::Blocks(_) => None,
            Coding::Map { map, scales, .. } => {
                let nested = matches!(scales, Scales::Nested { .. });
                let format = if nested { WeightFormat::Nf4Nested } else { WeightFormat::Nf4 };
                map.equal(&maps::nf4(map.device())).then_some(format)
            }
        }
    }

    /// Where it lies.
    pub fn device(&self) -> Device {
        self.codes.device()
    }

    /// Bytes that it takes, but for the maps.
    pub fn bytes(&self) -> i64 {
        let tensors = match &self.coding {
            Coding::Rows { scales, .. } | Coding::E4m3 { scales } => vec![scales],
            Coding::Blocks(_) => Vec::new(),
            Coding::Map { scales: Scales::Plain(scales), .. } => vec![scales],
            Coding::Map { scales: Scales::Nested { codes, scales, .. }, .. } => vec![codes, scales],
        };
        let bytes = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as i64;
        tensors.into_iter().chain([&self.codes]).map(bytes).sum()
    }

    /// Its numbers in `kind`, `[rows, columns]`: computed in fp32 and rounded once, to the bit as
    /// bitsandbytes restores them, blocks as the `gguf` package does.
    pub fn restore(&self, kind: Kind) -> Tensor {
        tch::no_grad(|| ops::restore(&self.parts(), kind).unwrap_or_else(|| self.composed(kind)))
    }

    /// `x Wᵀ + bias` in the kind of `x`, `[.., columns]` to `[.., rows]`; `bias`: `[rows]`. The weight is
    /// restored for it and for the gradient of `x`; where no kernel takes it, libtorch keeps it in
    /// between.
    ///
    /// With [`Coding::E4m3`] `x` is rounded, row by row: to e4m3's numbers times the least power of two that
    /// brings the row there. For the gradient of `x` the gradient of the product is, after each of its columns
    /// was multiplied by the scale of the weight's row. (Where no kernel takes it, a GPU and widths that do not
    /// divide by eight, neither is.) With dynamic [`Coding::Rows`] the same is rounded to 127ths of each row's largest
    /// magnitude, on a CPU, and multiplied in whole numbers; a row with a NaN or an infinity gives NaN.
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        ops::quantised_linear(x, &self.parts(), bias)
            .unwrap_or_else(|| x.linear(&self.restore(x.kind()), bias))
    }

    /// The weight as kernels take it.
    pub(super) fn parts(&self) -> Quantised<'_> {
        let (codes, shape) = (&self.codes, self.shape);
        let bare = Quantised {
            codes,
            blocks: None,
            map: None,
            scales: None,
            nested: None,
            block: shape[1],
            shape,
            dynamic: false,
        };
        match &self.coding {
            Coding::Rows { scales, dynamic } => {
                Quantised { scales: Some(scales), dynamic: *dynamic, ..bare }
            }
            Coding::E4m3 { scales } => Quantised { scales: Some(scales), ..bare },
            Coding::Blocks(format) => {
                Quantised { blocks: Some(*format), block: format.numbers() as i64, ..bare }
            }
            Coding::Map { map, block, scales } => {
                let (scales, nested) = match scales {
                    Scales::Plain(scales) => (scales, None),
                    Scales::Nested { codes, map, scales, offset, block } => {
                        (codes, Some(Nested { map, scales, offset: *offset, block: *block }))
                    }
                };
                Quantised { map: Some(map), scales: Some(scales), nested, block: *block, ..bare }
            }
        }
    }

    /// [`restore`](Self::restore) in libtorch's operations.
    pub(super) fn composed(&self, kind: Kind) -> Tensor {
        let [rows, columns] = self.shape;
        let numbers = match &self.coding {
            Coding::Rows { scales, .. } => {
                self.codes.to_kind(Kind::Float) * scales.unsqueeze(1) * INT8_UNIT
            }
            Coding::E4m3 { scales } => self.codes.to_kind(Kind::Float) * scales.unsqueeze(1),
            Coding::Blocks(format) => {
                let codes = self.codes.to_device(Device::Cpu);
                let mut bytes = vec![0u8; codes.numel()];
                codes.copy_data(&mut bytes, codes.numel());
                let mut numbers = vec![0f32; (rows * columns) as usize];
                restore_blocks(*format, &bytes, &mut numbers);
                Tensor::from_slice(&numbers).to_device(self.codes.device())
            }
            Coding::Map { map, block, scales } => {
                let halves =
                    [self.codes.bitwise_right_shift_tensor_scalar(4), self.codes.bitwise_and(15)];
                let codes = Tensor::stack(&halves, 1).view([-1]).to_kind(Kind::Int);
                let scales = scales.composed().repeat_interleave_self_int(*block, 0, None);
                let scales = scales.narrow(0, 0, rows * columns);
                map.index_select(0, &codes.narrow(0, 0, rows * columns)) * scales
            }
        };
        numbers.to_kind(kind).view([rows, columns])
    }

    /// The same weight for products as `format` has them: codes of eight bits that somebody stored are dynamic with
    /// [`WeightFormat::Int8Dynamic`] alone.
    pub fn multiplied_as(mut self, format: WeightFormat) -> Self {
        if let Coding::Rows { dynamic, .. } = &mut self.coding {
            *dynamic = format == WeightFormat::Int8Dynamic;
        }
        self
    }

    /// A further handle to the same weight.
    pub fn shallow_clone(&self) -> Self {
        self.map_tensors(Tensor::shallow_clone)
    }

    /// The same weight on `device`.
    pub fn to_device(&self, device: Device) -> Self {
        self.map_tensors(|tensor| tensor.to_device(device))
    }

    pub(super) fn map_tensors(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        let coding = match &self.coding {
            Coding::Map { map, block, scales } => {
                Coding::Map { map: of(map), block: *block, scales: scales.map_tensors(&of) }
            }
            Coding::Rows { scales, dynamic } => {
                Coding::Rows { scales: of(scales), dynamic: *dynamic }
            }
            Coding::E4m3 { scales } => Coding::E4m3 { scales: of(scales) },
            Coding::Blocks(format) => Coding::Blocks(*format),
        };
        QuantisedWeight { codes: of(&self.codes), coding, shape: self.shape }
    }
}

impl Scales {
    fn composed(&self) -> Tensor {
        match self {
            Scales::Plain(scales) => scales.shallow_clone(),
            Scales::Nested { codes, map, scales, offset, block } => {
                let count = codes.size()[0];
                let scales = scales.repeat_interleave_self_int(*block, 0, None).narrow(0, 0, count);
                map.index_select(0, &codes.to_kind(Kind::Int)) * scales + *offset
            }
        }
    }

    fn map_tensors(&self, of: impl Fn(&Tensor) -> Tensor) -> Self {
        match self {
            Scales::Plain(scales) => Scales::Plain(of(scales)),
            Scales::Nested { codes, map, scales, offset, block } => Scales::Nested {
                codes: of(codes),
                map: of(map),
                scales: of(scales),
                offset: *offset,
                block: *block,
            },
        }
    }
}
