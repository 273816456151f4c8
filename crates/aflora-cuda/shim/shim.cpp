// The C face of what tch lacks on CUDA. Loaded at run time, after libtorch_cuda.
//
// Every function gives 0, or 1 with a message for `aflora_error`. Tensors go in as pointers to
// at::Tensor, null for none, and come out as new ones, which tch owns from then on.

#include <aflora_kernels.h>

#include "adamw.h"
#include "cross_entropy.h"
#include "disentangled.h"
#include "disentangled_tiled.h"
#include "documents.h"
#include "feed_forward.h"
#include "gated.h"
#include "joint_norm.h"
#include "layer_norm.h"
#include "low_rank.h"
#include "nccl.h"
#include "order.h"
#include "rms_norm.h"
#include "rotary.h"
#include "scores.h"
#include "wide_path.h"

#include <c10/core/AllocatorConfig.h>

#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/autograd/profiler_kineto.h>

using aflora::given;
using aflora::guarded;

extern "C" {

// The tensors and numbers of aflora-cuda's `LowRankLayer`. `weight` or `quantised` is null, and what of a path there is not.
struct aflora_layer {
    const at::Tensor* weight;
    const aflora_quantised* quantised;
    const at::Tensor* bias;
    const at::Tensor* down;
    const at::Tensor* d;
    const at::Tensor* up;
    const at::Tensor* b;
    double scale;
    // Of the first so many tokens; of all if it is 0.
    int64_t tokens;

    int64_t rows() const { return weight ? weight->size(0) : quantised->rows; }
    int64_t columns() const { return weight ? weight->size(1) : quantised->columns; }
};

}  // extern "C"

namespace {

struct Graph {
    at::cuda::CUDAGraph graph{};
    at::cuda::MempoolId_t pool{};
    c10::cuda::CUDAStream before = c10::cuda::getDefaultCUDAStream();
};

// One stream of each GPU for all recordings: the allocator gives memory that was freed on a
// stream to that stream only, and graphs share theirs.
c10::cuda::CUDAStream recording_stream() {
    static std::map<int, c10::cuda::CUDAStream> streams;
    auto device = c10::cuda::current_device();
    return streams.try_emplace(device, c10::cuda::getStreamFromPool(true)).first->second;
}

// What is captured may take memory of the host as well, from a pool of the same handle.
at::HostAllocator* host_allocator() { return at::getHostAllocator(at::kCUDA); }

// Nothing of a capture that failed, at its beginning or its end, must show up in what follows:
// neither its stream, nor CUDA's error, nor an allocator and a generator that believe it goes on.
void forget_capture(const Graph& made) {
    c10::cuda::setCurrentCUDAStream(made.before);
    (void)cudaGetLastError();
    auto device = c10::cuda::current_device();
    (void)guarded([&] { c10::cuda::CUDACachingAllocator::endAllocateToPool(device, made.pool); });
    (void)guarded([&] { host_allocator()->end_allocate_to_pool(made.pool); });
    (void)guarded([&] {
        auto generator = at::cuda::detail::getDefaultCUDAGenerator();
        auto copy = generator.clone();
        at::check_generator<at::CUDAGeneratorImpl>(generator)->graphsafe_set_state(copy.getIntrusivePtr());
    });
}

aflora::FrozenWeight frozen(const aflora_layer& layer) {
    return layer.weight ? aflora::FrozenWeight(*layer.weight) : aflora::FrozenWeight(aflora::Quantised(*layer.quantised));
}

// Whether a fused operation takes the layer and what it reads.
bool takes(const at::Tensor& x, const aflora_layer& layer) {
    auto single = [](const at::Tensor* t) { return !t || t->scalar_type() == at::kFloat; };
    if (!aflora::is_wide(x) || !x.numel() || !single(layer.down) || !single(layer.d) || !single(layer.up) || !single(layer.b)) return false;
    return layer.weight ? aflora::is_frozen(*layer.weight, x.scalar_type()) : aflora::QuantisedOnGpu::takes(*layer.quantised, x.scalar_type());
}

// Whether kernels for ranks of up to eight take it, too.
bool takes_path(const at::Tensor& x, const aflora_layer& layer) {
    return takes(x, layer) && aflora::takes_path(layer.down->size(0), layer.rows(), layer.columns());
}

bool same_vectors(const aflora_layer& one, const aflora_layer& other) { return !one.d == !other.d && !one.b == !other.b; }

// What nodes of several layers are made of: the tensors of `x` and of the paths, and the layers.
std::pair<torch::autograd::variable_list, aflora::PathLayers> node_of(const at::Tensor& x, const aflora_layer* layers, int count) {
    aflora::PathLayers of{{}, layers->d != nullptr, layers->b != nullptr};
    torch::autograd::variable_list tensors{x};
    for (const auto* layer = layers; layer < layers + count; layer++) {
        auto bias = aflora::or_none(given(layer->bias));
        of.all.push_back({frozen(*layer), bias, layer->scale, layer->tokens > 0 ? layer->tokens : x.numel() / x.size(-1)});
        for (const auto* t : {layer->down, layer->up, layer->d, layer->b})
            if (t) tensors.push_back(*t);
    }
    return {tensors, of};
}

torch::autograd::variable_list low_rank(const at::Tensor& x, const aflora_layer* layers, int count) {
    auto [tensors, of] = node_of(x, layers, count);
    return aflora::LowRank::apply(at::TensorList(tensors), of);
}

torch::autograd::variable_list wide_path(const at::Tensor& x, const aflora_layer* layers, int count, double p) {
    auto [tensors, of] = node_of(x, layers, count);
    return aflora::WidePath::apply(at::TensorList(tensors), of, p);
}

// Two tensors of an operation, or none.
void both(at::Tensor** out, const torch::autograd::variable_list& made) {
    auto first = std::make_unique<at::Tensor>(made.at(0));
    out[1] = new at::Tensor(made.at(1));
    out[0] = first.release();
}

}  // namespace

extern "C" {

const char* aflora_error() { return aflora::last_error().c_str(); }

// --- graphs ---

// A pool on the current GPU, as its handle and the GPU's number. It is held as a graph would hold
// it: the allocators, the GPU's and the host's, take no further capture into one that no graph uses and
// whose memory somebody still does.
int aflora_graph_pool(unsigned long long* pool) {
    return guarded([&] {
        // The allocator knows no GPU before the first use of one.
        at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
        auto handle = at::cuda::graph_pool_handle();
        auto device = c10::cuda::current_device();
        c10::cuda::CUDACachingAllocator::createOrIncrefPool(device, handle);
        // The host's counts a user where an allocation begins, and keeps it where that ends.
        host_allocator()->begin_allocate_to_pool(handle, [](c10::Stream) { return false; });
        host_allocator()->end_allocate_to_pool(handle);
        pool[0] = handle.first;
        pool[1] = handle.second;
        pool[2] = static_cast<unsigned long long>(device);
    });
}

void aflora_graph_pool_free(const unsigned long long* pool) {
    (void)guarded([&] {
        auto device = static_cast<c10::DeviceIndex>(pool[2]);
        c10::cuda::CUDACachingAllocator::releasePool(device, {pool[0], pool[1]});
        host_allocator()->release_pool({pool[0], pool[1]});
    });
}

// From here on what this thread launches is recorded, on a stream of its own.
int aflora_graph_begin(void** graph, const unsigned long long* pool) {
    return guarded([&] {
        auto made = std::make_unique<Graph>();
        made->before = c10::cuda::getCurrentCUDAStream();
        c10::cuda::device_synchronize();
        c10::cuda::setCurrentCUDAStream(recording_stream());
        try {
            // Other threads may go on to use CUDA: loading data, say.
            made->pool = {pool[0], pool[1]};
            made->graph.capture_begin(made->pool, cudaStreamCaptureModeThreadLocal);
        } catch (...) {
            forget_capture(*made);
            throw;
        }
        *graph = made.release();
    });
}

// Ends the recording. On failure the graph is still to be freed.
int aflora_graph_end(void* graph) {
    return guarded([&] {
        auto* made = static_cast<Graph*>(graph);
        try {
            made->graph.capture_end();
        } catch (...) {
            forget_capture(*made);
            throw;
        }
        c10::cuda::setCurrentCUDAStream(made->before);
    });
}

int aflora_graph_replay(void* graph) {
    return guarded([&] { static_cast<Graph*>(graph)->graph.replay(); });
}

void aflora_graph_free(void* graph) {
    (void)guarded([&] {
        c10::cuda::device_synchronize();
        delete static_cast<Graph*>(graph);
    });
}

// --- settings and readings ---

// Memory in pages that are mapped where they are needed, as graphs with pools of their own want
// it, unless the user has settings of their own.
void aflora_expandable_memory() {
    (void)guarded([] {
        if (!std::getenv("PYTORCH_ALLOC_CONF") && !std::getenv("PYTORCH_CUDA_ALLOC_CONF"))
            c10::CachingAllocator::setAllocatorSettings("expandable_segments:True");
    });
}

void aflora_release_cache() { (void)guarded([] { c10::cuda::CUDACachingAllocator::emptyCache(); }); }

// The GPU that this thread's work goes to where none is named: streams and graphs are its.
int aflora_set_device(int device) {
    return guarded([&] { c10::cuda::set_device(static_cast<c10::DeviceIndex>(device)); });
}

void aflora_allow_tf32(int on) { (void)guarded([&] { at::globalContext().setAllowTF32CuBLAS(on != 0); }); }

// How many random numbers a thread at most has drawn of a GPU's generator since it was seeded.
int aflora_drawn(int device, unsigned long long* count) {
    return guarded([&] {
        auto generator = at::cuda::detail::getDefaultCUDAGenerator(static_cast<c10::DeviceIndex>(device));
        *count = at::check_generator<at::CUDAGeneratorImpl>(generator)->philox_offset_per_thread();
    });
}

// Bytes of tensors now, of tensors at most, and reserved from the driver at most.
int aflora_memory(int device, unsigned long long* bytes) {
    return guarded([&] {
        auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
        bytes[0] = stats.allocated_bytes[0].current;
        bytes[1] = stats.allocated_bytes[0].peak;
        bytes[2] = stats.reserved_bytes[0].peak;
    });
}

// The most of tensors from now on.
int aflora_reset_peak(int device) {
    return guarded([&] { c10::cuda::CUDACachingAllocator::resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

// A copy of a host tensor on a GPU, through pinned memory: the host does not wait for it.
int aflora_to_gpu(at::Tensor** out, const at::Tensor* t, int device) {
    return guarded([&] {
        auto at = c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
        *out = new at::Tensor(t->pin_memory().to(at, /*non_blocking=*/true));
    });
}

int aflora_profile_begin() {
    return guarded([&] {
        using namespace torch::profiler::impl;
        ProfilerConfig config(ProfilerState::KINETO);
        std::set<ActivityType> activities{ActivityType::CPU, ActivityType::CUDA};
        torch::autograd::profiler::prepareProfiler(config, activities);
        torch::autograd::profiler::enableProfiler(config, activities);
    });
}

int aflora_profile_end(const char* path) {
    return guarded([&] {
        c10::cuda::device_synchronize();
        torch::autograd::profiler::disableProfiler()->save(path);
    });
}

// --- several GPUs ---

int aflora_nccl_id(char* id) {
    return guarded([&] { aflora::nccl::new_id(id); });
}

int aflora_nccl_open(void** group, const char* id, int rank, int size, int device) {
    return guarded([&] { *group = new aflora::nccl::Group(id, rank, size, device); });
}

int aflora_nccl_all_reduce(void* group, const at::Tensor* t) {
    return guarded([&] { static_cast<aflora::nccl::Group*>(group)->all_reduce(*t); });
}

int aflora_nccl_broadcast(void* group, const at::Tensor* t, int root) {
    return guarded([&] { static_cast<aflora::nccl::Group*>(group)->broadcast(*t, root); });
}

int aflora_nccl_gather_begin(void** done, void* group, const at::Tensor* t, const at::Tensor* all) {
    return guarded([&] { *done = static_cast<aflora::nccl::Group*>(group)->gather(*t, *all); });
}

int aflora_nccl_gather_wait(void* group, void* done) {
    return guarded([&] { static_cast<aflora::nccl::Group*>(group)->await(*static_cast<c10::Event*>(done)); });
}

void aflora_nccl_gather_free(void* done) {
    (void)guarded([&] { delete static_cast<c10::Event*>(done); });
}

// Ends what is under way and frees the group; a peer that is gone is not waited for.
void aflora_nccl_abort(void* group) {
    (void)guarded([&] { delete static_cast<aflora::nccl::Group*>(group); });
}

// --- the update ---

int aflora_adamw(const aflora_adamw_update* all, int count, const aflora_adamw_step* by) {
    return guarded([&] { aflora::AdamW(*by).update(all, count); });
}

// The norm alone where `loss` is null, and `total` and `in_a_row` are too; else bad gradients become zero and are counted.
int aflora_judge(at::Tensor** out, const at::Tensor* gradients, const at::Tensor* loss, const at::Tensor* total, const at::Tensor* in_a_row) {
    return guarded([&] {
        if (!aflora::is_flat(*gradients) || (loss && !aflora::is_flat(*loss))) return;
        if (loss && !(aflora::JointNorm::counts(*total) && aflora::JointNorm::counts(*in_a_row))) return;
        auto given = [](const at::Tensor* t) { return t ? *t : at::Tensor(); };
        auto found = aflora::JointNorm::judge(*gradients, given(loss), given(total), given(in_a_row));
        if (loss) aflora::JointNorm::forget(*gradients, found[2]);
        for (size_t i = 0; i < found.size(); i++) out[i] = new at::Tensor(found[i]);
    });
}

// Whether it takes them is written to `takes`.
int aflora_clip(int* takes, const at::Tensor* gradients, const at::Tensor* norm, double most) {
    return guarded([&] {
        *takes = aflora::is_flat(*gradients) && aflora::is_flat(*norm);
        if (*takes) aflora::JointNorm::clip(*gradients, *norm, most);
    });
}

// Each gradient replaces what its place has, or is added to that. Whether it takes them is written to `takes`.
int aflora_collect(int* takes, const at::Tensor* const* places, const at::Tensor* const* gradients, int count, int add) {
    return guarded([&] {
        std::vector<at::Tensor> to, from;
        for (int i = 0; i < count; i++) {
            to.push_back(*places[i]);
            from.push_back(*gradients[i]);
            if (!aflora::is_flat(to[i]) || !aflora::is_flat(from[i]) || to[i].numel() != from[i].numel()) return;
        }
        *takes = 1;
        if (to.empty()) return;
        add ? at::_foreach_add_(to, from) : at::_foreach_copy_(to, from);
    });
}

// --- numbers on their way to the host ---

struct aflora_fetched {
    at::Tensor host;
    c10::Event done;
};

// Copies what the current stream will have made of `t` to pinned memory, for which nobody waits.
int aflora_fetch(void** out, const at::Tensor* t) {
    return guarded([&] {
        auto host = at::empty(t->sizes(), t->options().device(at::kCPU).pinned_memory(true));
        host.copy_(*t, /*non_blocking=*/true);
        auto fetched = std::make_unique<aflora_fetched>(aflora_fetched{host, c10::Event(c10::DeviceType::CUDA)});
        fetched->done.record(c10::cuda::getCurrentCUDAStream(t->get_device()).unwrap());
        *out = fetched.release();
    });
}

int aflora_fetch_wait(at::Tensor** out, void* fetched) {
    return guarded([&] {
        auto* of = static_cast<aflora_fetched*>(fetched);
        of->done.synchronize();
        *out = new at::Tensor(of->host);
    });
}

void aflora_fetch_free(void* fetched) {
    (void)guarded([&] { delete static_cast<aflora_fetched*>(fetched); });
}

// --- freezing; `out` stays null where they do not take what is given ---

int aflora_sensitivity(at::Tensor** out, const at::Tensor* values, const at::Tensor* gradient, int score) {
    return guarded([&] {
        if (aflora::Scores::takes({values, gradient})) *out = new at::Tensor(aflora::Scores::sensitivity(*values, *gradient, score));
    });
}

// Whether it takes them is written to `takes`; `observed` may be null.
int aflora_smooth(int* takes, const at::Tensor* now, const at::Tensor* observed, const at::Tensor* mean, const at::Tensor* deviation, double mean_share,
                  double deviation_share, int updated) {
    return guarded([&] {
        *takes = aflora::Scores::takes({now, observed ? observed : now, mean, deviation});
        if (*takes) aflora::Scores::smooth(*now, observed ? *observed : at::Tensor(), *mean, *deviation, mean_share, deviation_share, updated != 0);
    });
}

// Whether it takes them is written to `takes`.
int aflora_clear(int* takes, const at::Tensor* gradients, const at::Tensor* pieces) {
    return guarded([&] {
        *takes = aflora::are_pieces_of(*pieces, *gradients);
        if (*takes) aflora::JointNorm::clear(*gradients, *pieces);
    });
}

int aflora_means(at::Tensor** out, const at::Tensor* x, const at::Tensor* pieces) {
    return guarded([&] {
        if (aflora::Order::takes(*x, *pieces)) *out = new at::Tensor(aflora::Order::means(*x, *pieces));
    });
}

int aflora_kth_smallest(at::Tensor** out, const at::Tensor* x, const at::Tensor* pieces, int64_t k) {
    return guarded([&] {
        if (aflora::Order::takes(*x, *pieces)) *out = new at::Tensor(aflora::Order::kth_smallest(*x, *pieces, k));
    });
}

// --- fused operations; `out` stays null where they do not take what is given ---

// A path alone; with dropout before it, where `p` is not 0.
int aflora_low_rank(at::Tensor** out, const at::Tensor* x, const aflora_layer* layer, double p) {
    return guarded([&] {
        if (!takes(*x, *layer)) return;
        if (p == 0 && takes_path(*x, *layer)) {
            *out = new at::Tensor(low_rank(*x, layer, 1)[0]);
        } else if (p == 0 || aflora::WidePath::drops(layer->columns())) {
            *out = new at::Tensor(wide_path(*x, layer, 1, p)[0]);
        }
    });
}

// Paths of layers that read one `x`, the first all of it: a tensor of each.
int aflora_low_rank_together(at::Tensor** out, const at::Tensor* x, const aflora_layer* layers, int count) {
    return guarded([&] {
        if (count < 1 || count > int(aflora::MOST_PATHS) || !x->numel()) return;
        int64_t tokens = x->numel() / x->size(-1);
        if (layers->tokens > 0 && layers->tokens != tokens) return;
        for (const auto* layer = layers; layer < layers + count; layer++) {
            if (layer->tokens > tokens || layer->columns() != x->size(-1) || !takes(*x, *layer)) return;
            if (layer->down->size(0) != layers->down->size(0) || !same_vectors(*layer, *layers)) return;
        }
        int64_t rank = layers->down->size(0);
        bool narrow = std::all_of(layers, layers + count, [&](const aflora_layer& layer) { return takes_path(*x, layer); });
        if (narrow && !aflora::LowRank::takes_together(*x, count, rank)) return;
        auto made = narrow ? low_rank(*x, layers, count) : wide_path(*x, layers, count, 0);
        for (int i = 0; i < count; i++) out[i] = new at::Tensor(made[i]);
    });
}

// Two layers, the second of what an activation makes of the first's output.
int aflora_feed_forward(at::Tensor** out, const at::Tensor* x, const aflora_layer* layers, int activation) {
    return guarded([&] {
        const auto &first = layers[0], &second = layers[1];
        if (!takes_path(*x, first) || !takes_path(*x, second) || !same_vectors(first, second)) return;
        if (first.columns() != x->size(-1) || second.columns() != first.rows() || activation < 0 || activation >= aflora::Gated::ACTIVATIONS) return;
        auto [tensors, of] = node_of(*x, layers, 2);
        *out = new at::Tensor(aflora::FeedForward::apply(at::TensorList(tensors), of, static_cast<int64_t>(activation)));
    });
}

int aflora_restore(at::Tensor** out, const aflora_quantised* weight, int bf16) {
    return guarded([&] {
        auto kind = bf16 ? at::kBFloat16 : at::kFloat;
        if (!aflora::QuantisedOnGpu::takes(*weight, kind)) return;
        *out = new at::Tensor(aflora::QuantisedOnGpu::restore(aflora::Quantised(*weight), kind));
    });
}

int aflora_quantised_linear(at::Tensor** out, const at::Tensor* x, const aflora_quantised* weight, const at::Tensor* bias) {
    return guarded([&] {
        if (!x->is_cuda() || !x->numel() || !aflora::QuantisedOnGpu::takes(*weight, x->scalar_type())) return;
        using Linear = aflora::QuantisedLinear<aflora::QuantisedOnGpu>;
        *out = new at::Tensor(Linear::apply(*x, aflora::Quantised(*weight), given(bias)));
    });
}

int aflora_add_layer_norm(at::Tensor** out, const at::Tensor* x, const at::Tensor* residual, const at::Tensor* gamma, const at::Tensor* beta,
                          double eps, double p) {
    return guarded([&] {
        if (!gamma || !beta || !aflora::AddLayerNorm::takes(*x, *residual, *gamma, *beta)) return;
        *out = new at::Tensor(aflora::AddLayerNorm::apply(*x, *residual, *gamma, *beta, eps, p));
    });
}

// Two tensors: x + delta (x itself without one), and its norm.
int aflora_add_rms_norm(at::Tensor** out, const at::Tensor* x, const at::Tensor* delta, const at::Tensor* weight, double plus, double eps) {
    return guarded([&] {
        if (!aflora::RmsNorm::takes(*x, delta, *weight)) return;
        both(out, aflora::RmsNorm::apply(*x, given(delta), *weight, plus, eps));
    });
}

// Two tensors: queries and keys.
int aflora_rotary(at::Tensor** out, const at::Tensor* query, const at::Tensor* key, const at::Tensor* cos, const at::Tensor* sin, int interleaved) {
    return guarded([&] {
        if (!aflora::Rotary::takes(*query, *key, *cos, *sin, interleaved != 0)) return;
        both(out, aflora::Rotary::apply(*query, *key, *cos, *sin, interleaved != 0));
    });
}

// `up` is null where it lies behind the gate.
int aflora_gated(at::Tensor** out, const at::Tensor* gate, const at::Tensor* up, int activation) {
    return guarded([&] {
        if (!aflora::Gated::takes(*gate, up, activation)) return;
        *out = new at::Tensor(aflora::Gated::apply(*gate, given(up), static_cast<int64_t>(activation)));
    });
}

// `rest` and `bias` may be null.
int aflora_cross_entropy(at::Tensor** out, const at::Tensor* logits, const at::Tensor* rest, const at::Tensor* bias, const at::Tensor* labels,
                         double smoothing) {
    return guarded([&] {
        if (!aflora::CrossEntropy::takes(*logits, rest, bias, *labels)) return;
        *out = new at::Tensor(aflora::CrossEntropy::apply(*logits, given(rest), given(bias), *labels, smoothing));
    });
}

int aflora_disentangled(at::Tensor** out, const at::Tensor* query, const at::Tensor* key, const at::Tensor* value, const at::Tensor* pos_key,
                        const at::Tensor* pos_query, const at::Tensor* mask, long long heads, double scale, double p) {
    return guarded([&] {
        if (!aflora::Disentangled::takes(*value, *mask, heads)) return;
        *out = new at::Tensor(
            aflora::Disentangled::apply(*query, *key, *value, given(pos_key), given(pos_query), *mask, static_cast<int64_t>(heads), scale, p));
    });
}

// Whether attention over `length` tokens by heads of `size`, in the kind of `x`, may go by tiles.
int aflora_tiles(int* out, const at::Tensor* x, long long size, long long length) {
    return guarded([&] { *out = aflora::DisentangledTiled::takes(*x, static_cast<int64_t>(size), static_cast<int64_t>(length)); });
}

// `rows` and `edges` are null where there are no positions.
int aflora_disentangled_tiled(at::Tensor** out, const at::Tensor* query, const at::Tensor* key, const at::Tensor* value, const at::Tensor* pos_key,
                              const at::Tensor* pos_query, const at::Tensor* mask, const at::Tensor* rows, const at::Tensor* edges, long long heads,
                              double scale, double p) {
    return guarded([&] {
        if (!aflora::DisentangledTiled::takes(*value, *mask, heads)) return;
        *out = new at::Tensor(aflora::DisentangledTiled::apply(*query, *key, *value, given(pos_key), given(pos_query), *mask, given(rows), given(edges),
                                                               static_cast<int64_t>(heads), scale, p));
    });
}

// `window` is 0 where there is none.
int aflora_document_attention(at::Tensor** out, const at::Tensor* query, const at::Tensor* key, const at::Tensor* value, const at::Tensor* bounds,
                              double scale, double p, long long window) {
    return guarded([&] {
        if (!aflora::takes_documents(*query, *key, *value, *bounds, p)) return;
        *out = new at::Tensor(aflora::document_attention(*query, *key, *value, *bounds, scale, p, static_cast<int64_t>(window)));
    });
}

}  // extern "C"
