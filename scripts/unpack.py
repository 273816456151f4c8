"""Unpacks the wheels of libtorch: python3 unpack.py WHEELS FOLDER [cpu|cuda]

With `cpu` or `cuda` only what a program loads on such a machine, and the licences. Nothing of a wheel
is run."""

import fnmatch
import pathlib
import sys
import zipfile

LICENCES = ["*.dist-info/licenses/*", "*.dist-info/LICEN*", "*.dist-info/License*"]
# libtorch_cpu, and what it is linked to.
CPU = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"]
CPU = [f"torch/lib/{name}" for name in CPU] + ["nvidia/cu13/lib/libcupti.so.13", "nvidia/cu13/lib/libcudart.so.13"]
# What libtorch_cuda is linked to or opens; CUDA's compiler for what is compiled at run time.
CUDA = ["libtorch_cuda.so", "libtorch_cuda_linalg.so", "libc10_cuda.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so"]
CUDA = [f"torch/lib/{name}" for name in CUDA] + ["nvidia/*/lib/*.so*", "nvidia/*/include/*"]

wheels, folder, *lean = sys.argv[1:]
wanted = {"cpu": LICENCES + CPU, "cuda": LICENCES + CPU + CUDA}[lean[0]] if lean else ["*"]
for wheel in sorted(pathlib.Path(wheels).glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if any(fnmatch.fnmatch(name, want) for want in wanted)]
        archive.extractall(folder, names)
