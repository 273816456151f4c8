//! Compiles the shims (shim/) against libtorch's headers into shared libraries of their own, which
//! the crate carries as bytes and loads at run time: `shim.cpp`, against CUDA's headers too, for a
//! GPU, and `collective.cpp` for several processes. They need no GPU, no nvcc, no CUDA and no NCCL
//! library: every symbol is found when they are loaded. What is for the CPU (`host.cpp`) is linked in
//! as it is.
//!
//! Where headers are missing the crate is built without, and says so at run time.
//!
//! libtorch's headers take half a minute each to read: what the same compiler made of the same sources
//! is kept in the folder that `AFLORA_SHIMS` names, for other profiles and other projects.

mod sources;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io, thread};

const KERNELS: [(&str, &str); 20] = [
    ("common", "common.cuh"),
    ("adamw", "adamw.cu"),
    ("joint_norm", "joint_norm.cu"),
    ("order", "order.cu"),
    ("scores", "scores.cu"),
    ("low_rank", "low_rank.cu"),
    ("low_rank_tiled", "low_rank_tiled.cu"),
    ("feed_forward", "feed_forward.cu"),
    ("feed_forward_tiled", "feed_forward_tiled.cu"),
    ("wide_path", "wide_path.cu"),
    ("layer_norm", "layer_norm.cu"),
    ("rms_norm", "rms_norm.cu"),
    ("rotary", "rotary.cu"),
    ("gated", "gated.cu"),
    ("cross_entropy", "cross_entropy.cu"),
    ("heads", "heads.cu"),
    ("disentangled", "disentangled.cu"),
    ("disentangled_tiled", "disentangled_tiled.cu"),
    ("quantised", "quantised.cu"),
    ("fp8", "fp8.cu"),
];

fn main() {
    for path in ["shim", "kernels", "build.rs", "sources.rs"] {
        println!("cargo:rerun-if-changed={path}");
    }
    for variable in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", KEPT] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    plain().file("shim/blocks.cpp").compile("aflora_blocks");
    let libtorch = libtorch();
    let (host, shim, collective) = thread::scope(|scope| {
        let shim = scope.spawn(|| cuda_shim(libtorch.as_deref()));
        let collective = scope.spawn(|| collective(libtorch.as_deref()));
        (libtorch.as_deref().map(host), shim.join(), collective.join())
    });
    println!("cargo:rustc-check-cfg=cfg(host)");
    if let Some(object) = host {
        plain().object(object).compile("aflora_host");
        println!("cargo:rustc-cfg=host");
    }
    if let Some(version) = libtorch.as_deref().and_then(version) {
        println!("cargo:rustc-env=AFLORA_LIBTORCH={version}");
    }
    let carried = |what: &str, cfg: &str, variable: &str, built: Result<(), String>| {
        println!("cargo:rustc-check-cfg=cfg({cfg})");
        match built {
            Ok(()) => println!("cargo:rustc-cfg={cfg}"),
            Err(reason) => {
                println!("cargo:warning=aflora-cuda is built without {what}: {reason}");
                println!("cargo:rustc-env={variable}={reason}");
            }
        }
    };
    let seen = "its mistake is printed above";
    carried("graphs and fused kernels", "shim", "AFLORA_NO_SHIM", shim.expect(seen));
    let several = "runs over several processes";
    carried(several, "collective", "AFLORA_NO_COLLECTIVE", collective.expect(seen));
}

/// A compiler of plain arithmetic: each operation is rounded by itself, as bitsandbytes and the `gguf`
/// package have it.
fn plain() -> cc::Build {
    let mut build = cc::Build::new();
    // Without the symbols for a debugger, in every profile: what was kept serves them all.
    build.cpp(true).std("c++17").opt_level(3).debug(false);
    build.flag("-ffp-contract=off").warnings(false);
    build
}

/// What is for the CPU, as an object file.
fn host(libtorch: &Path) -> PathBuf {
    let mut compiler = plain().include(include(libtorch)).get_compiler().to_command();
    compiler.args(["-c", "shim/host.cpp"]);
    compiled("host.o", compiler).unwrap_or_else(|reason| panic!("{reason}"))
}

fn include(libtorch: &Path) -> PathBuf {
    libtorch.join("include")
}

/// The version that libtorch's headers are of.
fn version(libtorch: &Path) -> Option<String> {
    let header = include(libtorch).join("torch/headeronly/version.h");
    let header = fs::read_to_string(header).ok()?;
    let number = |part: &str| {
        let begin = format!("#define TORCH_VERSION_{part} ");
        header.lines().find_map(|line| line.strip_prefix(&begin)?.trim().parse::<u8>().ok())
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

const NO_LIBTORCH: &str = "neither LIBTORCH nor LIBTORCH_USE_PYTORCH is set";

fn collective(libtorch: Option<&Path>) -> Result<(), String> {
    let include = include(libtorch.ok_or(NO_LIBTORCH)?);
    if !include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp").is_file() {
        return Err(format!("{} has no headers of libtorch's c10d", include.display()));
    }
    let front = include.join("torch/csrc/api/include");
    library("collective", &[PathBuf::from("shim/c10d"), include, front])
}

fn cuda_shim(libtorch: Option<&Path>) -> Result<(), String> {
    let libtorch = libtorch.ok_or(NO_LIBTORCH)?;
    let include = include(libtorch);
    if !include.join("ATen/cuda/CUDAGraph.h").is_file() {
        return Err(format!("{} has no headers of libtorch's CUDA part", include.display()));
    }
    let cuda =
        cuda_include(libtorch).ok_or("CUDA's headers are missing (`make setup` fetches them)")?;
    let text = |e: io::Error| e.to_string();
    fs::write(out("aflora_kernels.h"), kernels().map_err(text)?).map_err(text)?;
    library("shim", &[PathBuf::from("shim"), out(""), include, cuda])
}

/// Compiles `shim/NAME.cpp` to the library `NAME.so` that the crate carries.
fn library(name: &str, include: &[PathBuf]) -> Result<(), String> {
    let mut compiler =
        cc::Build::new().cpp(true).opt_level(2).debug(false).get_compiler().to_command();
    compiler
        .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-s", "-w"])
        .args(include.iter().map(|folder| format!("-I{}", folder.display())))
        .arg(format!("shim/{name}.cpp"));
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "macos") {
        // Its linker asks for every symbol where others wait for the library to be loaded.
        compiler.args(["-undefined", "dynamic_lookup"]);
    }
    compiled(&format!("{name}.so"), compiler).map(drop)
}

fn out(file: &str) -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(file)
}

/// Where what was compiled is kept.
const KEPT: &str = "AFLORA_SHIMS";

/// Lets the compiler write this file of OUT_DIR, or takes it from where it is kept.
fn compiled(file: &str, mut compiler: Command) -> Result<PathBuf, String> {
    let made = out(file);
    let text = |e: io::Error| e.to_string();
    let kept = match env::var_os(KEPT) {
        Some(folder) => Some(PathBuf::from(folder).join(known(&compiler).map_err(text)? + file)),
        None => None,
    };
    if kept.as_ref().is_some_and(|kept| fs::copy(kept, &made).is_ok()) {
        return Ok(made);
    }
    let output = compiler.arg("-o").arg(&made).output();
    let output = output.map_err(|e| format!("no C++ compiler: {e}"))?;
    if !output.status.success() {
        // Not for want of headers: a mistake, to be seen.
        panic!("{compiler:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    if let Some(kept) = kept {
        // Whole or not at all; another build may be at it.
        let new = kept.with_extension(std::process::id().to_string());
        let folder = kept.parent().expect("it has a folder");
        let _ = fs::create_dir_all(folder)
            .and_then(|()| fs::copy(&made, &new))
            .and_then(|_| fs::rename(&new, &kept));
    }
    Ok(made)
}

/// The begin of a name for all that the compiler's output follows from: itself, its arguments, the
/// sources, libtorch's version.
fn known(compiler: &Command) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    Command::new(compiler.get_program()).arg("--version").output()?.stdout.hash(&mut hasher);
    // OUT_DIR is another each time; what is included from it is made of `kernels`.
    let own = out("").to_string_lossy().into_owned();
    for argument in compiler.get_args() {
        argument.to_string_lossy().replace(&own, "").hash(&mut hasher);
    }
    for folder in ["shim", "kernels"] {
        hash_files(Path::new(folder), &mut hasher)?;
    }
    libtorch().as_deref().and_then(version).hash(&mut hasher);
    Ok(format!("{:016x}-", hasher.finish()))
}

fn hash_files(folder: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            hash_files(&path, hasher)?;
        } else {
            (&path, fs::read(&path)?).hash(hasher);
        }
    }
    Ok(())
}

/// The kernels' sources as C++ strings: they are compiled at run time, for the GPU at hand.
fn kernels() -> std::io::Result<String> {
    let mut header = String::from("#pragma once\nnamespace aflora::kernels {\n");
    for (name, file) in KERNELS {
        let source = sources::source(Path::new("kernels"), file)?;
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
