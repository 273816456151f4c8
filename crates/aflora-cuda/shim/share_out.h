// Work on a CPU, shared out to libtorch's own threads.
#pragma once

#include <ATen/ATen.h>
#include <ATen/TensorIterator.h>

#include <algorithm>

namespace aflora {

// Calls `work(begin, end)` on parts of the places of `over`, which lie one after the other, on libtorch's
// own threads: its iterator shares them out, and is let do nothing else.
template <typename F> void share_out(const at::Tensor& over, int64_t grain, F work) {
    auto places = over.view({-1});
    auto* base = static_cast<char*>(places.data_ptr());
    // Without inputs there is no kind that the output could be checked against.
    at::TensorIteratorConfig config;
    config.set_check_mem_overlap(false).check_all_same_dtype(false).resize_outputs(false);
    auto iterator = config.add_output(places).build();
    int64_t size = places.element_size();
    iterator.for_each(
        [&](char** data, const int64_t*, int64_t n) {
            int64_t begin = (data[0] - base) / size;
            work(begin, begin + n);
        },
        std::max<int64_t>(grain, 1));
}

}  // namespace aflora
