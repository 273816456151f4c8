// Products of whole numbers of 8 bits on a CPU, which multiplies them two to four times as fast as others. The weight is in them
// already; what it is multiplied by is rounded here, row by row, to 127ths of the row's largest magnitude.
#pragma once

#include "share_out.h"

#include <ATen/ops/_int_mm.h>
#include <c10/util/bit_cast.h>

#include <limits>
#include <vector>

// These loops are compiled for several processors, of which the one at hand is chosen as the program starts.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define AFLORA_WIDE __attribute__((optimize("O3"), target_clones("avx512f", "avx2", "default")))
#else
#define AFLORA_WIDE
#endif

namespace aflora {
namespace int8 {

// Adds what is so large that the sum's last bits are a whole number's.
constexpr float ROUNDS = 12582912.f;

// A row in whole numbers, and what one of them stands for: NaN if a number of the row is none.
AFLORA_WIDE static float codes_of(const float* x, int64_t n, int8_t* codes) {
    constexpr int32_t MAGNITUDE = 0x7fffffff, INFINITY_BITS = 0x7f800000;
    int32_t largest = 0;
    for (int64_t i = 0; i < n; i++) largest = std::max(largest, c10::bit_cast<int32_t>(x[i]) & MAGNITUDE);
    bool finite = largest < INFINITY_BITS;
    // Of rows that are all but zero the inverse would be infinite.
    float most = c10::bit_cast<float>(largest), inverse = finite && most > 1e-36f ? 127 / most : 0;
    for (int64_t i = 0; i < n; i++) {
        float number = finite ? x[i] : 0;
        codes[i] = static_cast<int8_t>(c10::bit_cast<int32_t>(number * inverse + ROUNDS));
    }
    if (!finite) return std::numeric_limits<float>::quiet_NaN();
    return inverse == 0 ? 0 : most / 127;
}

AFLORA_WIDE static void widen(const uint16_t* x, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i++) out[i] = c10::bit_cast<float>(int32_t(uint32_t(x[i]) << 16));
}

AFLORA_WIDE static void narrow(const float* x, int64_t n, uint16_t* out) {
    for (int64_t i = 0; i < n; i++) {
        // To the nearest, of two the even one; NaN stays one.
        uint32_t bits = uint32_t(c10::bit_cast<int32_t>(x[i]));
        uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        out[i] = uint16_t((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : nearest);
    }
}

AFLORA_WIDE static void times(const float* x, const float* by, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i++) out[i] = x[i] * by[i];
}

// sums · scale, or sums · scale ⊙ by, and plus.
AFLORA_WIDE static void numbers_of(const int32_t* sums, float scale, const float* by, const float* plus, int64_t n, float* out) {
    for (int64_t i = 0; i < n; i++) out[i] = float(sums[i]) * scale;
    if (by) times(out, by, n, out);
    if (plus)
        for (int64_t i = 0; i < n; i++) out[i] += plus[i];
}

}  // namespace int8

struct Int8 {
    // 1 / 127 as bitsandbytes has it.
    static constexpr float UNIT = 0.007874015718698502f;

    // x Wᵀ + bias, of x [n, columns] and W's codes [rows, columns], in the kind of x.
    static at::Tensor product(const at::Tensor& x, const at::Tensor& codes, const at::Tensor& scales, const at::Tensor& bias) {
        auto by = scales * UNIT;
        auto plus = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
        return multiplied(x, nullptr, codes.t(), by.const_data_ptr<float>(), plus.defined() ? plus.const_data_ptr<float>() : nullptr);
    }

    // dy W, of dy [n, rows]: the sum is over W's rows, so that their scales go onto dy's columns.
    static at::Tensor gradient(const at::Tensor& dy, const at::Tensor& codes, const at::Tensor& scales) {
        auto by = scales * UNIT;
        return multiplied(dy, by.const_data_ptr<float>(), codes, nullptr, nullptr);
    }

private:
    // Numbers that one thread rounds at least.
    static constexpr int64_t GRAIN = 1 << 14;

    static at::Tensor multiplied(const at::Tensor& x, const float* before, const at::Tensor& codes, const float* behind, const float* plus) {
        auto from = x.contiguous();
        int64_t rows = from.size(0), inner = from.size(1), columns = codes.size(1);
        bool wide = from.scalar_type() == at::kFloat;
        auto out = at::empty({rows, columns}, from.options());
        if (!out.numel()) return out;
        auto rounded = at::empty({rows, inner}, from.options().dtype(at::kChar));
        auto steps = at::empty({rows}, from.options().dtype(at::kFloat));
        auto* step = steps.mutable_data_ptr<float>();
        auto* to = rounded.mutable_data_ptr<int8_t>();
        share_out(steps, GRAIN / std::max<int64_t>(inner, 1), [&](int64_t begin, int64_t end) {
            std::vector<float> row(inner);
            for (int64_t i = begin; i < end; i++) {
                const float* numbers = wide ? from.const_data_ptr<float>() + i * inner : row.data();
                if (!wide) int8::widen(reinterpret_cast<const uint16_t*>(from.const_data_ptr<at::BFloat16>()) + i * inner, inner, row.data());
                if (before) {
                    int8::times(numbers, before, inner, row.data());
                    numbers = row.data();
                }
                step[i] = int8::codes_of(numbers, inner, to + i * inner);
            }
        });
        auto sums = at::_int_mm(rounded, codes);
        const auto* sum = sums.const_data_ptr<int32_t>();
        share_out(steps, GRAIN / std::max<int64_t>(columns, 1), [&](int64_t begin, int64_t end) {
            std::vector<float> row(wide ? 0 : columns);
            for (int64_t i = begin; i < end; i++) {
                float* numbers = wide ? out.mutable_data_ptr<float>() + i * columns : row.data();
                int8::numbers_of(sum + i * columns, step[i], behind, plus, columns, numbers);
                if (!wide) int8::narrow(row.data(), columns, reinterpret_cast<uint16_t*>(out.mutable_data_ptr<at::BFloat16>()) + i * columns);
            }
        });
        return out;
    }
};

}  // namespace aflora
