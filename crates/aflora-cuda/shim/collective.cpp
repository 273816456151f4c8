// The C face of libtorch's c10d: a store by which ranks find each other, and Gloo's collectives on
// the CPU. It needs libtorch_cpu alone.
//
// Every function gives 0, or 1 with a message for `aflora_collective_error`. Tensors are pointers to
// at::Tensor, which stay the caller's.

#define USE_C10D_GLOO 1

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <string>
#include <vector>

namespace {

thread_local std::string last_error;
thread_local std::vector<uint8_t> last_value;

template <typename F> int guarded(F body) {
    try {
        body();
        return 0;
    } catch (const c10::Error& e) {
        last_error = e.what_without_backtrace();
    } catch (const std::exception& e) {
        last_error = e.what();
    }
    return 1;
}

using Milliseconds = std::chrono::milliseconds;
using Store = c10::intrusive_ptr<c10d::Store>;
using Group = c10::intrusive_ptr<c10d::ProcessGroupGloo>;
using Work = c10::intrusive_ptr<c10d::Work>;

}  // namespace

extern "C" {

const char* aflora_collective_error() { return last_error.c_str(); }

// The store of a world, served by this process or by another at `host`; all keys get `prefix`.
int aflora_store_open(void** out, const char* host, int port, int serves, const char* prefix, long timeout) {
    return guarded([&] {
        c10d::TCPStoreOptions options;
        options.port = static_cast<uint16_t>(port);
        options.isServer = serves != 0;
        options.waitWorkers = false;
        options.timeout = Milliseconds(timeout);
        auto tcp = c10::make_intrusive<c10d::TCPStore>(host, options);
        *out = new Store(c10::make_intrusive<c10d::PrefixStore>(prefix, tcp));
    });
}

int aflora_store_set(void* store, const char* key, const unsigned char* value, size_t length) {
    return guarded([&] {
        (*static_cast<Store*>(store))->set(key, std::vector<uint8_t>(value, value + length));
    });
}

// Waits for a key and gives its value, which lives until the thread's next call.
int aflora_store_get(void* store, const char* key, long timeout, const unsigned char** value, size_t* length) {
    return guarded([&] {
        auto& from = *static_cast<Store*>(store);
        from->wait({key}, Milliseconds(timeout));
        last_value = from->get(key);
        *value = last_value.data();
        *length = last_value.size();
    });
}

void aflora_store_free(void* store) {
    (void)guarded([&] { delete static_cast<Store*>(store); });
}

int aflora_gloo_open(void** out, void* store, int rank, int size, long timeout) {
    return guarded([&] {
        auto options = c10d::ProcessGroupGloo::Options::create_default(Milliseconds(timeout));
        auto& with = *static_cast<Store*>(store);
        *out = new Group(c10::make_intrusive<c10d::ProcessGroupGloo>(with, rank, size, options));
    });
}

int aflora_gloo_all_reduce(void* group, const at::Tensor* t) {
    return guarded([&] {
        std::vector<at::Tensor> tensors{*t};
        (*static_cast<Group*>(group))->allreduce(tensors)->wait();
    });
}

int aflora_gloo_broadcast(void* group, const at::Tensor* t, int root) {
    return guarded([&] {
        std::vector<at::Tensor> tensors{*t};
        c10d::BroadcastOptions options;
        options.rootRank = root;
        (*static_cast<Group*>(group))->broadcast(tensors, options)->wait();
    });
}

// `t` of each rank in its row of `all`, `[ranks, …]`.
int aflora_gloo_all_gather(void* group, const at::Tensor* t, const at::Tensor* all) {
    return guarded([&] {
        std::vector<at::Tensor> given{*t};
        std::vector<std::vector<at::Tensor>> rows{all->unbind(0)};
        (*static_cast<Group*>(group))->allgather(rows, given)->wait();
    });
}

// Begins to gather `t` of each rank, one behind the other in `all`, and gives what is waited for. Both are taken by handles
// with versions of their own: autograd, which keeps parts of `all`, is to find them filled again and not changed.
int aflora_gloo_gather_begin(void** work, void* group, const at::Tensor* t, const at::Tensor* all) {
    return guarded([&] {
        auto& of = *static_cast<Group*>(group);
        std::vector<at::Tensor> given{t->variable_data()};
        std::vector<std::vector<at::Tensor>> rows{all->variable_data().view({of->getSize(), -1}).unbind(0)};
        *work = new Work(of->allgather(rows, given));
    });
}

int aflora_gloo_gather_wait(void* work) {
    return guarded([&] { (*static_cast<Work*>(work))->wait(); });
}

void aflora_gloo_gather_free(void* work) {
    (void)guarded([&] { delete static_cast<Work*>(work); });
}

void aflora_gloo_free(void* group) {
    (void)guarded([&] { delete static_cast<Group*>(group); });
}

}  // extern "C"
