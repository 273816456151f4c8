// In place of Gloo's own header, which libtorch's packages do not have: what libtorch's
// ProcessGroupGloo.hpp names of it, and nothing else. Gloo itself lies in libtorch_cpu.
#pragma once

#include <chrono>
#include <memory>

namespace gloo {

class Context {
public:
    void setTimeout(std::chrono::milliseconds);
};

}  // namespace gloo
