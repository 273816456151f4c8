//! Compiles the shims (shim/) against libtorch's headers into shared libraries of their own, which
//! the crate carries as bytes and loads at run time: `shim.cpp`, against CUDA's headers too, for a
//! GPU, and `collective.cpp` for several processes. They need no GPU, no nvcc, no CUDA and no NCCL
//! library: every symbol is found when they are loaded. What is for the CPU (`host.cpp`) is linked in
//! as it is.
//!
//! Where headers are missing the crate is built without, and says so at run time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const KERNELS: [(&str, &str); 12] = [
    ("common", "common.cuh"),
    ("low_rank", "low_rank.cu"),
    ("wide_path", "wide_path.cu"),
    ("layer_norm", "layer_norm.cu"),
    ("rms_norm", "rms_norm.cu"),
    ("rotary", "rotary.cu"),
    ("gated", "gated.cu"),
    ("heads", "heads.cu"),
    ("disentangled", "disentangled.cu"),
    ("tensor_cores", "tensor_cores.cuh"),
    ("disentangled_tiled", "disentangled_tiled.cu"),
    ("quantised", "quantised.cu"),
];

/// What kernels and the host both include.
const SHARED: [&str; 2] = ["weight.cuh", "blocks.cuh"];

fn main() {
    for path in ["shim", "kernels", "build.rs"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for variable in ["LIBTORCH", "LIBTORCH_USE_PYTORCH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rustc-check-cfg=cfg(host)");
    plain().file("shim/blocks.cpp").compile("aflora_blocks");
    if let Some(libtorch) = libtorch() {
        build_host(&libtorch);
        println!("cargo:rustc-cfg=host");
    }
    if let Some(version) = torch_include().ok().as_deref().and_then(libtorch_version) {
        println!("cargo:rustc-env=AFLORA_LIBTORCH={version}");
    }
    let lacks = |what: &str, variable: &str, reason: String| {
        println!("cargo:warning=aflora-cuda is built without {what}: {reason}");
        println!("cargo:rustc-env={variable}={reason}");
    };
    println!("cargo:rustc-check-cfg=cfg(shim)");
    match cuda_shim() {
        Ok(()) => println!("cargo:rustc-cfg=shim"),
        Err(reason) => lacks("graphs and fused kernels", "AFLORA_NO_SHIM", reason),
    }
    println!("cargo:rustc-check-cfg=cfg(collective)");
    match collective() {
        Ok(()) => println!("cargo:rustc-cfg=collective"),
        Err(reason) => lacks("runs over several processes", "AFLORA_NO_COLLECTIVE", reason),
    }
}

/// A compiler of plain arithmetic: each operation is rounded by itself, as bitsandbytes and the `gguf`
/// package have it.
fn plain() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(3).flag("-ffp-contract=off").warnings(false);
    build
}

/// What is for the CPU.
fn build_host(libtorch: &Path) {
    let include = libtorch.join("include");
    plain().include(include).file("shim/host.cpp").compile("aflora_host");
}

fn torch_include() -> Result<PathBuf, String> {
    let libtorch = libtorch().ok_or("neither LIBTORCH nor LIBTORCH_USE_PYTORCH is set")?;
    Ok(libtorch.join("include"))
}

/// The version that libtorch's headers are of.
fn libtorch_version(include: &Path) -> Option<String> {
    let header = fs::read_to_string(include.join("torch/headeronly/version.h")).ok()?;
    let number = |part: &str| {
        let begin = format!("#define TORCH_VERSION_{part} ");
        header.lines().find_map(|line| line.strip_prefix(&begin)?.trim().parse::<u8>().ok())
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

fn collective() -> Result<(), String> {
    let include = torch_include()?;
    if !include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp").is_file() {
        return Err(format!("{} has no headers of libtorch's c10d", include.display()));
    }
    let front = include.join("torch/csrc/api/include");
    compile("collective", &[PathBuf::from("shim/c10d"), include, front])
}

fn cuda_shim() -> Result<(), String> {
    let libtorch = libtorch().ok_or("neither LIBTORCH nor LIBTORCH_USE_PYTORCH is set")?;
    let include = torch_include()?;
    if !include.join("ATen/cuda/CUDAGraph.h").is_file() {
        return Err(format!("{} has no headers of libtorch's CUDA part", include.display()));
    }
    let cuda =
        cuda_include(&libtorch).ok_or("CUDA's headers are missing (`make setup` fetches them)")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let text = |e: std::io::Error| e.to_string();
    fs::write(out.join("aflora_kernels.h"), kernels().map_err(text)?).map_err(text)?;
    compile("shim", &[PathBuf::from("shim"), out, include, cuda])
}

/// Compiles `shim/NAME.cpp` to the library `NAME.so` that the crate carries.
fn compile(name: &str, include: &[PathBuf]) -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = cc::Build::new().cpp(true).opt_level(2).get_compiler().to_command();
    compiler
        .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-s", "-w"])
        .args(include.iter().map(|folder| format!("-I{}", folder.display())))
        .arg(format!("shim/{name}.cpp"))
        .arg("-o")
        .arg(out.join(format!("{name}.so")));
    let output = compiler.output().map_err(|e| format!("no C++ compiler: {e}"))?;
    if !output.status.success() {
        // Not for want of headers: a mistake, to be seen.
        panic!("shim/{name}.cpp does not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The kernels' sources as C++ strings: they are compiled at run time, for the GPU at hand.
fn kernels() -> std::io::Result<String> {
    let mut header = String::from("#pragma once\nnamespace aflora::kernels {\n");
    for (name, file) in KERNELS {
        let mut source = fs::read_to_string(Path::new("kernels").join(file))?;
        // NVRTC is given no files.
        for header in SHARED {
            let text = fs::read_to_string(Path::new("kernels").join(header))?;
            source = source.replace(&format!("#include \"{header}\""), &text);
        }
        header.push_str(&format!("inline const char {name}[] = R\"CUDA({source})CUDA\";\n"));
    }
    header.push_str("}\n");
    Ok(header)
}

/// The folder that torch-sys links to, by its own rules: a Python's torch first, and none where
/// documentation is all that is built.
fn libtorch() -> Option<PathBuf> {
    if env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        return None;
    }
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let path = "import os, torch; print(os.path.dirname(torch.__file__))";
        let output = Command::new("python3").args(["-c", path]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        return output.status.success().then(|| PathBuf::from(text.trim()));
    }
    env::var_os("LIBTORCH").map(PathBuf::from)
}

/// Where cuda_runtime.h lies whole: beside libtorch, as pip's packages have it, or in a toolkit.
fn cuda_include(libtorch: &Path) -> Option<PathBuf> {
    let beside = libtorch.parent().map(|site| site.join("nvidia/cu13/include"));
    let toolkit = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let toolkit = toolkit.map(PathBuf::from).chain([PathBuf::from("/usr/local/cuda")]);
    let toolkit = toolkit.map(|root| root.join("include"));
    let whole = |include: &PathBuf| {
        include.join("cuda_runtime.h").is_file() && include.join("crt/host_config.h").is_file()
    };
    beside.into_iter().chain(toolkit).find(whole)
}
