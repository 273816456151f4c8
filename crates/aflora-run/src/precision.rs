//! What numbers the frozen weights are held in.

use crate::config::Precision;
use crate::usage;
use aflora_core::weight::WeightFormat;
use aflora_cuda as cuda;
use aflora_models::Backbone;
use anyhow::Result;
use tch::{Device, Kind};

/// Rows of a batch times elements of a linear layer, from which bf16 is quicker on a CPU that
/// multiplies it. Below, a product is too small for its own arithmetic to count, while oneDNN
/// keeps a kernel for each shape in memory (docs/performance.md has the measurements).
const PAYS: f64 = (1 << 21) as f64;

/// How frozen weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The numbers that are computed with, in which all is held that is not quantised.
    pub kind: Kind,
    /// What the linear layers of the blocks are quantised to.
    pub format: Option<WeightFormat>,
}

impl From<Kind> for Base {
    fn from(kind: Kind) -> Self {
        Base { kind, format: None }
    }
}

/// How the frozen weights are held for a precision of a configuration. With `tf32`, a GPU's fp32
/// products take the tensor cores from now on.
///
/// `auto` is bf16 on a GPU, and so is what weights in few bits are restored to. On a CPU it is bf16 where the processor multiplies it and where it
/// pays, which is for `work` to tell: [`rows_times_weights`] of the run.
///
/// # Errors
/// Those of `work`, or the device does not compute in that precision.
pub fn choose(
    precision: Precision,
    device: Device,
    work: impl FnOnce() -> Result<f64>,
) -> Result<Base> {
    if precision == Precision::Int8Dynamic && device != Device::Cpu {
        usage!(
            "precision int8_dynamic multiplies whole numbers on a CPU: on a GPU, precision=int8 holds the same weights, \
             and precision=fp8 multiplies in 8 bits"
        );
    }
    let kind = match precision {
        Precision::Fp32 | Precision::Tf32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        _ if device != Device::Cpu => Kind::BFloat16,
        _ if multiplies_bf16() && work()? >= PAYS => Kind::BFloat16,
        _ => Kind::Float,
    };
    cuda::allow_tf32(precision == Precision::Tf32);
    Ok(Base { kind, format: precision.format() })
}

/// How large a model's products are: `rows` of a batch times the elements of a linear layer, on
/// average over the layers. Shapes suffice.
pub fn rows_times_weights(model: &dyn Backbone, rows: usize) -> f64 {
    let linears = model.linears();
    let elements: i64 = linears.iter().map(|l| l.site.in_features * l.site.out_features).sum();
    rows as f64 * elements as f64 / linears.len().max(1) as f64
}

/// Whether this processor multiplies bf16 itself (AVX512-BF16, AMX): elsewhere bf16 is slower
/// than fp32.
pub fn multiplies_bf16() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| matches!(flag, "avx512_bf16" | "amx_bf16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_cpu_bf16_is_for_products_that_are_large_enough() {
        let auto = |work| choose(Precision::Auto, Device::Cpu, || Ok(work)).unwrap().kind;
        assert_eq!(auto(PAYS / 2.0), Kind::Float);
        assert_eq!(auto(PAYS) == Kind::BFloat16, multiplies_bf16());
        let never = || unreachable!("the size of products decides nothing here");
        assert_eq!(choose(Precision::Bf16, Device::Cpu, never).unwrap().kind, Kind::BFloat16);
        let nf4 = choose(Precision::Nf4, Device::Cuda(0), never).unwrap();
        assert_eq!(nf4, Base { kind: Kind::BFloat16, format: Some(WeightFormat::Nf4) });
        assert_eq!(choose(Precision::Auto, Device::Cuda(0), never).unwrap().kind, Kind::BFloat16);
        let refused = choose(Precision::Int8Dynamic, Device::Cuda(0), never).unwrap_err();
        assert!(crate::is_usage(&refused) && refused.to_string().contains("precision=fp8"));
    }
}
