// What both libraries' C functions share: failures as numbers with words, tensors that may be missing.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>

namespace aflora {

// A tensor that may be missing: libtorch's functions with gradients take no undefined one.
using Maybe = std::optional<at::Tensor>;

inline at::Tensor or_none(const Maybe& t) { return t.value_or(at::Tensor()); }

inline Maybe given(const at::Tensor* t) { return t ? Maybe(*t) : Maybe(); }

inline std::string& last_error() {
    thread_local std::string words;
    return words;
}

// 0, or 1 with words for the next to ask.
template <typename F> int guarded(F body) {
    try {
        body();
        return 0;
    } catch (const c10::Error& e) {
        last_error() = e.what_without_backtrace();
    } catch (const std::exception& e) {
        last_error() = e.what();
    }
    return 1;
}

}  // namespace aflora
