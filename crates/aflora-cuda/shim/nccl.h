// Sums over several GPUs by NCCL: the library that libtorch_cuda came with, opened at run time. Only
// what is called is declared here, so that its headers are not needed; names, numbers and layouts
// are those of NCCL 2.
//
// What is asked for goes to the current stream, as every kernel does, so that it can be recorded in
// a graph; but for gatherings, which have a stream of their own.

#pragma once

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <dlfcn.h>

#include <cstring>
#include <memory>
#include <optional>

namespace aflora::nccl {

struct Id {
    char bytes[128];
};

using Comm = void*;

struct Library {
    const char* (*words)(int);
    int (*new_id)(Id*);
    int (*open)(Comm*, int, Id, int);
    int (*all_reduce)(const void*, void*, size_t, int, int, Comm, cudaStream_t);
    int (*broadcast)(const void*, void*, size_t, int, int, Comm, cudaStream_t);
    int (*all_gather)(const void*, void*, size_t, int, Comm, cudaStream_t);
    int (*abort)(Comm);
};

template <typename F> void find(F& function, void* library, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    TORCH_CHECK(function, "NCCL has no ", name);
}

inline const Library& library() {
    static const Library found = [] {
        // libtorch_cuda has opened it already where it was built with it.
        void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
        if (!handle) handle = dlopen("libnccl.so.2", RTLD_NOW);
        TORCH_CHECK(handle, "NCCL is missing: ", dlerror());
        Library made{};
        find(made.words, handle, "ncclGetErrorString");
        find(made.new_id, handle, "ncclGetUniqueId");
        find(made.open, handle, "ncclCommInitRank");
        find(made.all_reduce, handle, "ncclAllReduce");
        find(made.broadcast, handle, "ncclBroadcast");
        find(made.all_gather, handle, "ncclAllGather");
        find(made.abort, handle, "ncclCommAbort");
        return made;
    }();
    return found;
}

inline void check(int returned, const char* what) {
    TORCH_CHECK(returned == 0, what, ": ", library().words(returned));
}

// What all ranks must know to open a group, 128 bytes.
inline void new_id(char* id) {
    Id made{};
    check(library().new_id(&made), "NCCL's id");
    std::memcpy(id, made.bytes, sizeof made.bytes);
}

// NCCL's number of a kind.
inline int kind(at::ScalarType type) {
    switch (type) {
        case at::kByte: return 1;
        case at::kInt: return 2;
        case at::kLong: return 4;
        case at::kHalf: return 6;
        case at::kFloat: return 7;
        case at::kDouble: return 8;
        case at::kBFloat16: return 9;
        default: TORCH_CHECK(false, "NCCL does not take ", type);
    }
}

class Group {
public:
    Group(const char* id, int rank, int size, int device) : device_(static_cast<c10::DeviceIndex>(device)) {
        c10::cuda::CUDAGuard guard(device_);
        Id of{};
        std::memcpy(of.bytes, id, sizeof of.bytes);
        check(library().open(&comm_, size, of, rank), "NCCL");
    }
    Group(const Group&) = delete;
    ~Group() { (void)library().abort(comm_); }

    // The sum over all ranks, in place.
    void all_reduce(const at::Tensor& t) {
        constexpr int sum = 0;
        c10::cuda::CUDAGuard guard(device_);
        auto stream = c10::cuda::getCurrentCUDAStream(device_).stream();
        auto* at = whole(t);
        check(library().all_reduce(at, at, t.numel(), kind(t.scalar_type()), sum, comm_, stream), "all-reduce");
    }

    void broadcast(const at::Tensor& t, int root) {
        c10::cuda::CUDAGuard guard(device_);
        auto stream = c10::cuda::getCurrentCUDAStream(device_).stream();
        auto* at = whole(t);
        check(library().broadcast(at, at, t.numel(), kind(t.scalar_type()), root, comm_, stream), "broadcast");
    }

    // Begins to gather `t` of each rank, one behind the other in `all`, on a stream of its own: behind what the current
    // stream has been given so far, beside what it is given next. Who reads `all` waits for what is given back.
    c10::Event* gather(const at::Tensor& t, const at::Tensor& all) {
        c10::cuda::CUDAGuard guard(device_);
        if (!beside_) beside_ = c10::cuda::getStreamFromPool(true, device_);
        c10::Event before(c10::DeviceType::CUDA);
        before.record(c10::cuda::getCurrentCUDAStream(device_).unwrap());
        before.block(beside_->unwrap());
        check(library().all_gather(whole(t), whole(all), t.numel(), kind(t.scalar_type()), comm_, beside_->stream()), "all-gather");
        auto done = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
        done->record(beside_->unwrap());
        return done.release();
    }

    // Lets the current stream wait for a gathering.
    void await(c10::Event& done) const {
        c10::cuda::CUDAGuard guard(device_);
        done.block(c10::cuda::getCurrentCUDAStream(device_).unwrap());
    }

private:
    void* whole(const at::Tensor& t) const {
        TORCH_CHECK(t.is_contiguous() && t.device().index() == device_, "a whole tensor of GPU ", device_, " is wanted");
        return t.data_ptr();
    }

    c10::DeviceIndex device_;
    Comm comm_ = nullptr;
    std::optional<c10::cuda::CUDAStream> beside_;
};

}  // namespace aflora::nccl
