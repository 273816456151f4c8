//! The product with a frozen weight, by the fastest kernel that libtorch has for it.
//!
//! On a CPU, libtorch multiplies fp32 matrices by MKL, which on AMD's processors makes no use of
//! AVX-512: an EPYC with two cores reaches 230 GFLOP/s. Its convolutions are oneDNN's, which do,
//! and reach 500. A product is the convolution of one image whose pixels are the rows.

use crate::weight::FrozenWeight;
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// libtorch takes oneDNN for a convolution only of more inputs than this.
const LEAST: usize = 20_480;

/// `x Wᵀ + bias`, for `x` of `[tokens, in_features]` and a `weight` of
/// `[out_features, in_features]`: `[tokens, out_features]`.
pub(crate) fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    match convolves(x, weight) {
        true => by_convolution(x, weight, bias),
        false => x.linear(weight, bias),
    }
}

/// [`product`] with a frozen weight, however it lies.
pub(crate) fn frozen_product(x: &Tensor, weight: &FrozenWeight, bias: Option<&Tensor>) -> Tensor {
    match weight {
        FrozenWeight::Dense(weight) => product(x, weight, bias),
        FrozenWeight::Quantised(_) => weight.linear(x, bias),
    }
}

/// [`frozen_product`] plus `h upᵀ`, for `h` of `[tokens, rank]` and `up` of `[out_features, rank]`.
pub(crate) fn product_and(
    x: &Tensor,
    weight: &FrozenWeight,
    bias: Option<&Tensor>,
    h: &Tensor,
    up: &Tensor,
) -> Tensor {
    let mut y = frozen_product(x, weight, bias);
    if matches!(weight, FrozenWeight::Dense(weight) if convolves(x, weight)) {
        // `y` is a view of the image, whose gradient libtorch would copy for a change in place.
        return y.addmm(h, &up.tr());
    }
    // In place saves a pass over the largest tensor of the layer. It is sound: the product's
    // backward does not read its own output.
    let _ = y.addmm_(h, &up.tr());
    y
}

fn convolves(x: &Tensor, weight: &Tensor) -> bool {
    x.device() == Device::Cpu
        && x.kind() == Kind::Float
        && weight.kind() == Kind::Float
        && x.numel() > LEAST
        && tch::get_num_threads() > 1
        && onednn_is_faster()
}

fn by_convolution(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let size = x.size();
    let image = x.contiguous().view([1, size[0], 1, size[1]]).permute([0, 3, 1, 2]);
    let kernel = weight.unsqueeze(2).unsqueeze(3);
    let y = image.conv2d(&kernel, bias, [1, 1], [0, 0], [1, 1], 1);
    y.permute([0, 2, 3, 1]).reshape([size[0], weight.size()[0]])
}

fn onednn_is_faster() -> bool {
    static FASTER: OnceLock<bool> = OnceLock::new();
    *FASTER.get_or_init(|| {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = |key| info.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line("vendor_id").ends_with("AuthenticAMD")
            && line("flags").split_whitespace().any(|flag| flag == "avx512f")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_is_the_product_and_has_its_gradients() {
        let random = |shape: &[i64], name| crate::adapter::normal(shape, 1.0, 1, name);
        for (n, k, m) in [(300, 96, 64), (1, 8, 24), (2051, 16, 8)] {
            let x = random(&[n, k], "x").set_requires_grad(true);
            let (weight, bias) = (random(&[m, k], "weight"), random(&[m], "bias"));
            let toward = random(&[n, m], "toward");
            let run = |y: Tensor| {
                let loss = (&y * &toward).sum(Kind::Float);
                let gradient = Tensor::run_backward(&[loss], &[&x], false, false).remove(0);
                (y, gradient)
            };
            for bias in [None, Some(&bias)] {
                let (y, gradient) = run(by_convolution(&x, &weight, bias));
                let (expected, expected_gradient) = run(x.linear(&weight, bias));
                assert!(y.allclose(&expected, 1e-5, 1e-4, false));
                assert!(gradient.allclose(&expected_gradient, 1e-5, 1e-4, false));
            }
            let transposed = random(&[k, m], "weight").tr();
            let (y, _) = run(by_convolution(&x, &transposed, None));
            assert!(y.allclose(&x.linear(&transposed, None::<Tensor>), 1e-5, 1e-4, false));
        }
    }
}
