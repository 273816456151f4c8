// Kernels of our own: compiled at run time for the GPU at hand by NVRTC, which libtorch brings
// along, and launched on libtorch's current stream.
#pragma once

#include "guard.h"
#include "kernel_cache.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <dlfcn.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace aflora {

// Where a random stream stands; the kernels' struct of the same name.
struct Random {
    const int64_t* seed_at = nullptr;
    const int64_t* offset_at = nullptr;
    uint64_t seed = 0;
    uint64_t offset = 0;
};

// Takes the next stretch of libtorch's generator, for a kernel that draws four words a place.
inline Random next_random() {
    auto generator = at::cuda::detail::getDefaultCUDAGenerator();
    auto* cuda = at::check_generator<at::CUDAGeneratorImpl>(generator);
    std::lock_guard<std::mutex> lock(cuda->mutex_);
    at::PhiloxCudaState state = cuda->philox_cuda_state(4);
    Random random;
    if (state.captured_) {
        random.seed_at = state.seed_.ptr;
        random.offset_at = state.offset_.ptr;
        random.offset = state.offset_intragraph_;
    } else {
        random.seed = state.seed_.val;
        random.offset = state.offset_.val;
    }
    return random;
}

// Probability p as the threshold for 16 random bits, and the factor of what stays: the inverse
// of the share that the threshold really keeps.
struct Dropout {
    uint32_t threshold;
    float keep;
    explicit Dropout(double p)
        : threshold(static_cast<uint32_t>(std::min(p * 65536.0 + 0.5, 65535.0))), keep(static_cast<float>(65536.0 / (65536.0 - threshold))) {}
};

// The functions of NVRTC and of the driver that we call, found at run time.
struct Driver {
    int (*version)(int*, int*);
    int (*create)(void**, const char*, const char*, int, const char* const*, const char* const*);
    int (*compile)(void*, int, const char* const*);
    int (*log_size)(void*, size_t*);
    int (*log)(void*, char*);
    int (*cubin_size)(void*, size_t*);
    int (*cubin)(void*, char*);
    int (*destroy)(void**);
    decltype(&cuModuleLoadData) load;
    decltype(&cuModuleGetFunction) function;
    decltype(&cuLaunchKernel) launch;
    decltype(&cuLaunchKernelEx) launch_with;
    decltype(&cuFuncGetAttribute) attribute;
    decltype(&cuFuncSetAttribute) set_attribute;
    decltype(&cuGetErrorString) error_string;

    static const Driver& get() {
        static Driver driver;
        return driver;
    }

    void check(CUresult result, const char* what) const {
        if (result == CUDA_SUCCESS) return;
        const char* words = nullptr;
        error_string(result, &words);
        TORCH_CHECK(false, what, ": ", words ? words : "unknown error of the driver");
    }

private:
    template <typename F> static void find(void* library, const char* name, F& function) {
        function = reinterpret_cast<F>(dlsym(library, name));
        TORCH_CHECK(function, "`", name, "` is missing: ", dlerror());
    }

    Driver() {
        // libtorch's own door to NVRTC lies beside libtorch_cuda and knows where NVRTC is.
        Dl_info cuda;
        TORCH_CHECK(dladdr(reinterpret_cast<void*>(&at::cuda::detail::getDefaultCUDAGenerator), &cuda), "libtorch_cuda has no file");
        std::string folder(cuda.dli_fname);
        folder.resize(folder.rfind('/') + 1);
        void* nvrtc = dlopen((folder + "libcaffe2_nvrtc.so").c_str(), RTLD_NOW);
        TORCH_CHECK(nvrtc, "NVRTC cannot be loaded: ", dlerror());
        find(nvrtc, "nvrtcVersion", version);
        find(nvrtc, "nvrtcCreateProgram", create);
        find(nvrtc, "nvrtcCompileProgram", compile);
        find(nvrtc, "nvrtcGetProgramLogSize", log_size);
        find(nvrtc, "nvrtcGetProgramLog", log);
        find(nvrtc, "nvrtcGetCUBINSize", cubin_size);
        find(nvrtc, "nvrtcGetCUBIN", cubin);
        find(nvrtc, "nvrtcDestroyProgram", destroy);
        find(RTLD_DEFAULT, "cuModuleLoadData", load);
        find(RTLD_DEFAULT, "cuModuleGetFunction", function);
        find(RTLD_DEFAULT, "cuLaunchKernel", launch);
        find(RTLD_DEFAULT, "cuLaunchKernelEx", launch_with);
        find(RTLD_DEFAULT, "cuFuncGetAttribute", attribute);
        find(RTLD_DEFAULT, "cuFuncSetAttribute", set_attribute);
        find(RTLD_DEFAULT, "cuGetErrorString", error_string);
    }
};

// One source with one set of definitions, compiled.
class Module {
public:
    // Bytes of a block's shared memory that are left alone.
    static constexpr int SPARED = 4096;

    Module(const char* name, const std::string& source, const std::vector<std::string>& definitions) {
        const auto& driver = Driver::get();
        int device = 0, major = 0, minor = 0;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
        std::vector<std::string> options = {"--gpu-architecture=sm_" + std::to_string(major * 10 + minor), "--std=c++17", "-default-device"};
        for (const auto& definition : definitions) options.push_back("-D" + definition);
        int version[2] = {0, 0};
        driver.version(&version[0], &version[1]);
        // Of NVRTC's version libtorch's says more: which of its releases it brought.
        std::string made_of = std::string("libtorch " TORCH_VERSION ", NVRTC ") + std::to_string(version[0]) + "." + std::to_string(version[1]);
        for (const auto& option : options) made_of += " " + option;
        made_of += "\n" + source;
        const auto& cache = KernelCache::of_user();
        if (auto binary = cache.find(made_of))
            if (driver.load(&module_, binary->data()) == CUDA_SUCCESS) return;
        std::string binary = compiled(name, source, options);
        driver.check(driver.load(&module_, binary.data()), "loading a kernel");
        cache.keep(made_of, binary);
    }

    CUfunction operator[](const char* name) {
        auto found = functions_.find(name);
        if (found != functions_.end()) return found->second;
        const auto& driver = Driver::get();
        CUfunction function;
        driver.check(driver.function(&function, module_, name), name);
        // The most that a block of this GPU may have beside what the kernel declares; 48 KiB without asking.
        int device = 0, most = 0, declared = 0;
        cudaGetDevice(&device);
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
        driver.check(driver.attribute(&declared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function), name);
        most -= std::max(SPARED, declared);
        driver.check(driver.set_attribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most), name);
        functions_[name] = function;
        return function;
    }

private:
    static std::string compiled(const char* name, const std::string& source, const std::vector<std::string>& options) {
        const auto& driver = Driver::get();
        std::vector<const char*> words;
        for (const auto& option : options) words.push_back(option.c_str());
        void* program = nullptr;
        TORCH_CHECK(driver.create(&program, source.c_str(), name, 0, nullptr, nullptr) == 0, "NVRTC takes no program");
        if (driver.compile(program, static_cast<int>(words.size()), words.data()) != 0) {
            size_t size = 0;
            driver.log_size(program, &size);
            std::string log(size, ' ');
            driver.log(program, log.data());
            driver.destroy(&program);
            TORCH_CHECK(false, name, " does not compile: ", log);
        }
        size_t size = 0;
        driver.cubin_size(program, &size);
        std::string binary(size, 0);
        driver.cubin(program, binary.data());
        driver.destroy(&program);
        return binary;
    }

    CUmodule module_ = nullptr;
    std::map<std::string, CUfunction> functions_;
};

// The module of a source, compiled on first use on each GPU.
inline Module& module(const char* name, const char* source, std::vector<std::string> definitions) {
    static std::mutex mutex;
    static std::map<std::string, std::unique_ptr<Module>> modules;
    int device = 0;
    cudaGetDevice(&device);
    std::string key = std::string(name) + "@" + std::to_string(device);
    for (const auto& definition : definitions) key += " " + definition;
    std::lock_guard<std::mutex> lock(mutex);
    auto& slot = modules[key];
    if (!slot) slot = std::make_unique<Module>(name, std::string(kernels::common) + source, definitions);
    return *slot;
}

// Binds this thread to its GPU, which the runtime would do in a call of its own: a thread of libtorch's that makes gradients may
// come to a kernel of ours first.
inline void bind_thread() {
    static thread_local bool bound = false;
    if (bound) return;
    int device = 0;
    cudaGetDevice(&device);
    TORCH_CHECK(cudaSetDevice(device) == cudaSuccess, "GPU ", device, " cannot be used");
    bound = true;
}

// Launches on the current stream. Arguments must have the exact types of the kernel's.
template <typename... A> void launch(CUfunction function, dim3 grid, dim3 block, size_t shared, A... arguments) {
    bind_thread();
    void* pointers[] = {static_cast<void*>(&arguments)...};
    const auto& driver = Driver::get();
    auto stream = c10::cuda::getCurrentCUDAStream().stream();
    driver.check(driver.launch(function, grid.x, grid.y, grid.z, block.x, block.y, block.z, static_cast<unsigned>(shared), stream, pointers, nullptr), "launching a kernel");
}

// As `launch`, of a kernel that waits by itself for what it needs of the one in front of it, and may begin before that has ended:
// on GPUs of compute capability 9.0 or later.
template <typename... A> void launch_early(CUfunction function, dim3 grid, dim3 block, size_t shared, A... arguments) {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (major < 9) return launch(function, grid, block, shared, arguments...);
    bind_thread();
    void* pointers[] = {static_cast<void*>(&arguments)...};
    CUlaunchAttribute early{};
    early.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    early.value.programmaticStreamSerializationAllowed = 1;
    CUlaunchConfig config{};
    config.gridDimX = grid.x, config.gridDimY = grid.y, config.gridDimZ = grid.z;
    config.blockDimX = block.x, config.blockDimY = block.y, config.blockDimZ = block.z;
    config.sharedMemBytes = static_cast<unsigned>(shared);
    config.hStream = c10::cuda::getCurrentCUDAStream().stream();
    config.attrs = &early;
    config.numAttrs = 1;
    const auto& driver = Driver::get();
    driver.check(driver.launch_with(&config, function, pointers, nullptr), "launching a kernel");
}

inline unsigned divided(int64_t n, int64_t by) { return static_cast<unsigned>((n + by - 1) / by); }

inline std::string bf16(const at::Tensor& t) { return t.scalar_type() == at::kBFloat16 ? "BF16=1" : "BF16=0"; }

inline const float* floats(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }

// A flat buffer of the update or the scores where kernels are launched: what lies on another GPU than the current one is left to
// libtorch's operations.
inline bool is_flat(const at::Tensor& t) {
    return t.is_cuda() && t.scalar_type() == at::kFloat && t.is_contiguous() && t.get_device() == c10::cuda::current_device();
}

// Where pieces of such a buffer begin and end, [pieces, 2].
inline bool are_pieces_of(const at::Tensor& pieces, const at::Tensor& flat) {
    return is_flat(flat) && pieces.device() == flat.device() && pieces.scalar_type() == at::kLong && pieces.is_contiguous() && pieces.size(0) > 0;
}

inline const long long* ends(const at::Tensor& pieces) { return reinterpret_cast<const long long*>(pieces.const_data_ptr<int64_t>()); }

inline bool is_wide(const at::Tensor& t) { return t.is_cuda() && (t.scalar_type() == at::kBFloat16 || t.scalar_type() == at::kFloat); }

// A tensor whose storage begins on 16 bytes, as vector loads need it.
inline at::Tensor aligned(const at::Tensor& t) {
    auto whole = t.contiguous();
    return reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % 16 == 0 ? whole : whole.clone();
}

}  // namespace aflora
