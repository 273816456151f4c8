// Products with a weight in e4m3 on a GPU: kernels/fp8.cu around libtorch's product of two matrices in fp8,
// where the GPU has one; where not, the same numbers in the kind of the other operand.
#pragma once

#include "kernel.h"
#include "quantised.h"

namespace aflora {

struct Fp8 {
    // Whether the tensor cores multiply `x`, or a gradient, by it: both operands are read in 16 bytes.
    static bool multiplies(const Quantised& q, const at::Tensor& x) {
        int device = x.get_device(), major = 0, minor = 0;
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
        return major * 10 + minor >= 89 && x.scalar_type() == at::kBFloat16 && q.rows % 16 == 0 && q.columns % 16 == 0;
    }

    // x Wᵀ + bias of `x`, [n, columns].
    static at::Tensor product(const Quantised& q, const at::Tensor& x, const at::Tensor& bias) {
        auto [codes, scales] = to_codes(x, nullptr);
        return multiplied(codes, q.codes.t(), scales, q.scales.view({1, -1}), bias.defined() ? Maybe(bias.contiguous()) : Maybe());
    }

    // dy W of `dy`, [n, rows]: the sum is over W's rows, whose scales go onto dy before it is rounded.
    static at::Tensor gradient(const Quantised& q, const at::Tensor& dy) {
        auto [codes, scales] = to_codes(dy, floats(q.scales));
        auto across = at::empty({q.columns, q.rows}, q.codes.options());
        auto ones = at::empty({1, q.columns}, scales.options());
        launch(kernels_for(dy)["transpose"], dim3(divided(q.columns, 128), divided(q.rows, 128)), 256, 0, q.codes.const_data_ptr(), across.data_ptr(),
               ones.data_ptr<float>(), int(q.rows), int(q.columns));
        return multiplied(codes, across.t(), scales, ones, Maybe());
    }

    // What `x`, or with the weight's scales `by` a gradient, comes to in codes, in its kind.
    static at::Tensor rounded(const at::Tensor& x, const float* by) {
        auto from = aligned(x), out = at::empty_like(from);
        launch(kernels_for(from)["round_rows"], blocks(from), 256, 0, from.const_data_ptr(), by, out.data_ptr(), int(from.size(0)), int(from.size(1)));
        return out;
    }

private:
    static int threads(int64_t width) { return width <= 1024 ? 32 : 256; }

    static unsigned blocks(const at::Tensor& x) { return divided(x.size(0), 256 / threads(x.size(1))); }

    static Module& kernels_for(const at::Tensor& x) { return module("fp8.cu", kernels::fp8, {bf16(x), "THREADS=" + std::to_string(threads(x.size(1)))}); }

    static std::pair<at::Tensor, at::Tensor> to_codes(const at::Tensor& x, const float* by) {
        auto from = aligned(x);
        auto codes = at::empty(from.sizes(), from.options().dtype(at::kFloat8_e4m3fn));
        auto scales = at::empty({from.size(0), 1}, from.options().dtype(at::kFloat));
        launch(kernels_for(from)["to_codes"], blocks(from), 256, 0, from.const_data_ptr(), by, codes.data_ptr(), scales.data_ptr<float>(),
               int(from.size(0)), int(from.size(1)));
        return {codes, scales};
    }

    static at::Tensor multiplied(const at::Tensor& left, const at::Tensor& right, const at::Tensor& of_left, const at::Tensor& of_right, const Maybe& bias) {
        // The tensor cores' own sums, of fewer bits than fp32, are far more exact than the operands; parts added up
        // in fp32 took a step of LLaMA-7B 5 % longer (docs/quantised.md).
        bool sums_in_cores = true;
        return at::_scaled_mm(left, right, of_left, of_right, bias, Maybe(), at::kBFloat16, sums_in_cores);
    }
};

}  // namespace aflora
