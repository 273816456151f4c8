// In place of Gloo's own header, which libtorch's packages do not have: what libtorch's
// ProcessGroupGloo.hpp names of it, and nothing else. Gloo itself lies in libtorch_cpu.
#pragma once

#include <memory>

namespace gloo::transport {

class Device;

class UnboundBuffer {
public:
    virtual ~UnboundBuffer() = 0;
};

}  // namespace gloo::transport
