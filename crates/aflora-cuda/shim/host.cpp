// The C face of what libtorch lacks on a CPU. Linked with the crate; needs no CUDA.
//
// As in shim.cpp, functions give 0, or 1 with a message for `aflora_host_error`, and `out` stays null
// where an operation does not take what it is given.

#include "before_backward.h"
#include "blocks.h"
#include "int8.h"
#include "quantised.h"
#include "share_out.h"

#include "../kernels/e4m3.cuh"

#include <c10/core/CPUAllocator.h>

#include <array>
#include <atomic>

namespace aflora {
namespace {

// Numbers that one thread restores at least.
constexpr int64_t GRAIN = 1 << 14;

// The scale of each block.
class Scales {
public:
    explicit Scales(const Quantised& q) : offset_(q.offset), block_(q.nested_block) {
        if (q.nested_map.defined()) {
            codes_ = q.scales.const_data_ptr<uint8_t>();
            map_ = q.nested_map.const_data_ptr<float>();
            scales_ = q.nested_scales.const_data_ptr<float>();
        } else {
            scales_ = q.scales.const_data_ptr<float>();
        }
    }

    float operator[](int64_t i) const { return codes_ ? map_[codes_[i]] * scales_[i / block_] + offset_ : scales_[i]; }

private:
    const uint8_t* codes_ = nullptr;
    const float* map_ = nullptr;
    const float* scales_ = nullptr;
    float offset_;
    int64_t block_;
};

template <typename T> void restore_map(const Quantised& q, T* out) {
    // The two numbers that a byte stands for, the upper half first.
    float pairs[256][2];
    const float* map = q.map.const_data_ptr<float>();
    for (int i = 0; i < 256; i++) {
        pairs[i][0] = map[i >> 4];
        pairs[i][1] = map[i & 15];
    }
    const uint8_t* codes = q.codes.const_data_ptr<uint8_t>();
    int64_t all = q.rows * q.columns, block = q.block;
    Scales scales(q);
    share_out(q.scales, GRAIN / block, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; b++) {
            int64_t first = b * block, count = std::min(block, all - first);
            const uint8_t* from = codes + first / 2;
            T* to = out + first;
            float scale = scales[b];
            for (int64_t i = 0; i < count / 2; i++) {
                to[2 * i] = static_cast<T>(pairs[from[i]][0] * scale);
                to[2 * i + 1] = static_cast<T>(pairs[from[i]][1] * scale);
            }
            if (count % 2) to[count - 1] = static_cast<T>(pairs[from[count / 2]][0] * scale);
        }
    });
}

template <typename T> void restore_rows(const Quantised& q, T* out) {
    const int8_t* codes = q.codes.const_data_ptr<int8_t>();
    const float* scales = q.scales.const_data_ptr<float>();
    int64_t columns = q.columns;
    share_out(q.scales, GRAIN / std::max<int64_t>(columns, 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            for (int64_t i = row * columns; i < (row + 1) * columns; i++) out[i] = static_cast<T>(float(codes[i]) * scales[row] * Int8::UNIT);
        }
    });
}

// The numbers of all codes.
const float* e4m3_numbers() {
    static const auto numbers = [] {
        std::array<float, 256> all;
        for (int i = 0; i < 256; i++) all[i] = e4m3::number(e4m3::Byte(i));
        return all;
    }();
    return numbers.data();
}

template <typename T> void restore_e4m3(const Quantised& q, T* out) {
    const float* numbers = e4m3_numbers();
    auto* codes = static_cast<const uint8_t*>(q.codes.const_data_ptr());
    const float* scales = q.scales.const_data_ptr<float>();
    int64_t columns = q.columns;
    share_out(q.scales, GRAIN / std::max<int64_t>(columns, 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            for (int64_t i = row * columns; i < (row + 1) * columns; i++) out[i] = static_cast<T>(numbers[codes[i]] * scales[row]);
        }
    });
}

// Each row of x ⊙ by rounded to e4m3, and divided by `by` again: as kernels/fp8.cu has it.
template <typename T> void round_rows(const T* x, const float* by, T* out, int64_t rows, int64_t columns) {
    const float* numbers = e4m3_numbers();
    // A place for each row, which nobody reads.
    auto places = at::empty({rows}, at::kByte);
    share_out(places, GRAIN / std::max<int64_t>(columns, 1), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) {
            const T* from = x + row * columns;
            T* to = out + row * columns;
            auto at = [&](int64_t c) { return by ? float(from[c]) * by[c] : float(from[c]); };
            float largest = 0;
            for (int64_t c = 0; c < columns; c++) largest = e4m3::larger(std::abs(at(c)), largest);
            float scale = e4m3::scale(largest), inverse = 1 / scale;
            for (int64_t c = 0; c < columns; c++) {
                float number = numbers[e4m3::code(at(c) * inverse)] * scale;
                to[c] = static_cast<T>(by ? number / by[c] : number);
            }
        }
    });
}

template <typename T> void restore_format(const Quantised& q, T* out) {
    const uint8_t* codes = q.codes.const_data_ptr<uint8_t>();
    int64_t block = blocks::numbers(int(q.format)), all = q.rows * q.columns / block;
    // A place for each block, which nobody reads: blocks are no elements of a tensor.
    auto places = at::empty({all}, q.codes.options());
    bool known = with_format(q.format, [&](auto constant) {
        share_out(places, GRAIN / block, [&](int64_t begin, int64_t end) { restore_blocks<decltype(constant)::value>(codes, begin, end, out); });
    });
    TORCH_CHECK(known, "blocks of no known format: ", q.format);
}

struct Host {
    static at::Tensor restore(const Quantised& q, at::ScalarType kind);
    static at::Tensor rounded(const at::Tensor& x, const float* by);
    static at::Tensor product(const Quantised& q, const at::Tensor& x, const at::Tensor& bias) {
        if (q.dynamic) return Int8::product(x, q.codes, q.scales, bias);
        auto restored = restore(q, x.scalar_type());
        auto rows = q.rounds() ? rounded(x, nullptr) : x;
        return bias.defined() ? at::addmm(bias, rows, restored.t()) : at::mm(rows, restored.t());
    }
    static at::Tensor gradient(const Quantised& q, const at::Tensor& dy) {
        if (q.dynamic) return Int8::gradient(dy, q.codes, q.scales);
        auto rows = q.rounds() ? rounded(dy, q.scales.const_data_ptr<float>()) : dy;
        return at::mm(rows, restore(q, dy.scalar_type()));
    }
};

at::Tensor Host::rounded(const at::Tensor& x, const float* by) {
    auto from = x.contiguous(), out = at::empty_like(from);
    if (!out.numel()) return out;
    if (x.scalar_type() == at::kFloat) {
        round_rows(from.const_data_ptr<float>(), by, out.mutable_data_ptr<float>(), x.size(0), x.size(1));
    } else {
        round_rows(from.const_data_ptr<at::BFloat16>(), by, out.mutable_data_ptr<at::BFloat16>(), x.size(0), x.size(1));
    }
    return out;
}

at::Tensor Host::restore(const Quantised& q, at::ScalarType kind) {
    auto out = at::empty({q.rows, q.columns}, q.codes.options().dtype(kind));
    if (!out.numel()) return out;
    auto into = [&](auto* place) {
        if (q.format) return restore_format(q, place);
        if (q.map.defined()) return restore_map(q, place);
        q.rounds() ? restore_e4m3(q, place) : restore_rows(q, place);
    };
    if (kind == at::kFloat) {
        into(out.mutable_data_ptr<float>());
    } else {
        into(out.mutable_data_ptr<at::BFloat16>());
    }
    return out;
}

// libtorch's own allocator, with a count of what lives and of the most that did: the size of each block stands
// in front of it. Blocks are their own contexts, as oneDNN wants them.
class CountingAllocator final : public c10::Allocator {
public:
    static CountingAllocator& get() {
        // Never freed: blocks may outlive everything else.
        static auto* allocator = new CountingAllocator();
        return *allocator;
    }

    c10::DataPtr allocate(size_t n) override {
        auto* block = static_cast<char*>(own_->raw_allocate(n + FRONT));
        *reinterpret_cast<size_t*>(block) = n;
        size_t now = lives += n, before = most;
        while (before < now && !most.compare_exchange_weak(before, now)) {}
        return {block + FRONT, block + FRONT, &release, c10::Device(c10::DeviceType::CPU)};
    }

    c10::DeleterFnPtr raw_deleter() const override { return &release; }

    void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }

    std::atomic<size_t> lives{0}, most{0};

private:
    // What blocks are aligned to.
    static constexpr size_t FRONT = 64;
    c10::Allocator* own_ = c10::GetCPUAllocator();

    static void release(void* at) {
        if (!at) return;
        auto& self = get();
        auto* block = static_cast<char*>(at) - FRONT;
        self.lives -= *reinterpret_cast<size_t*>(block);
        self.own_->raw_deallocate(block);
    }
};

bool takes(const aflora_quantised& q, at::ScalarType kind) { return q.codes->is_cpu() && (kind == at::kFloat || kind == at::kBFloat16); }

}  // namespace
}  // namespace aflora

extern "C" {

// From now on; before the first tensor is made, for blocks go back to where they are from.
int aflora_host_count() {
    return aflora::guarded([] {
        auto& counting = aflora::CountingAllocator::get();
        c10::SetCPUAllocator(&counting, 1);
    });
}

// Bytes of tensors now, and at the most.
void aflora_host_memory(unsigned long long* bytes) {
    auto& counting = aflora::CountingAllocator::get();
    bytes[0] = counting.lives;
    bytes[1] = counting.most;
}

// The most from now on.
void aflora_host_reset_peak() {
    auto& counting = aflora::CountingAllocator::get();
    counting.most = counting.lives.load();
}

const char* aflora_host_error() { return aflora::last_error().c_str(); }

int aflora_host_restore(at::Tensor** out, const aflora_quantised* weight, int bf16) {
    return aflora::guarded([&] {
        auto kind = bf16 ? at::kBFloat16 : at::kFloat;
        if (!aflora::takes(*weight, kind)) return;
        *out = new at::Tensor(aflora::Host::restore(aflora::Quantised(*weight), kind));
    });
}

int aflora_host_quantised_linear(at::Tensor** out, const at::Tensor* x, const aflora_quantised* weight, const at::Tensor* bias) {
    return aflora::guarded([&] {
        if (!x->is_cpu() || !aflora::takes(*weight, x->scalar_type())) return;
        using Linear = aflora::QuantisedLinear<aflora::Host>;
        *out = new at::Tensor(Linear::apply(*x, aflora::Quantised(*weight), aflora::given(bias)));
    });
}

// `data` is freed with the graph, or at once where it fails.
int aflora_host_before_backward(at::Tensor** out, const at::Tensor* x, aflora_call call, aflora_free free, void* data) {
    std::shared_ptr<void> held(data, free);
    return aflora::guarded([&] { *out = new at::Tensor(aflora::before_backward(*x, call, held)); });
}

}  // extern "C"
