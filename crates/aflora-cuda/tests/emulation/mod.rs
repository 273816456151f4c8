//! Kernels compiled for the CPU, each by a file of this folder, which has a function `emulate`. No GPU is
//! needed.

use libloading::os::unix::{Library, Symbol};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::Tensor;

/// A kernel's `emulate`, of type `F`.
pub struct Kernels<F> {
    pub emulate: Symbol<F>,
    _library: Library,
}

impl<F> Kernels<F> {
    /// Of `emulation/NAME.cpp`, compiled with these definitions.
    pub fn new(name: &str, definitions: &[String]) -> Kernels<F> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let folder = env!("CARGO_TARGET_TMPDIR");
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let library = format!("{folder}/{name}-{}-{number}.so", std::process::id());
        let source = format!("{}/tests/emulation/{name}.cpp", env!("CARGO_MANIFEST_DIR"));
        let made = Command::new("c++")
            .args(["-std=c++17", "-O2", "-w", "-fPIC", "-shared", "-fno-strict-aliasing"])
            // _FORTIFY_SOURCE counts the fibers' jumps between stacks as faults.
            .args(["-fvisibility=hidden", "-U_FORTIFY_SOURCE"])
            .args(definitions.iter().map(|definition| format!("-D{definition}")))
            .args([&source, "-o", &library])
            .output()
            .expect("a C++ compiler");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // SAFETY: a library of plain functions, which stays open as long as they are held.
        let opened = unsafe { Library::new(&library) }.unwrap();
        std::fs::remove_file(&library).unwrap();
        // SAFETY: `F` is the type that the file gives that function, as the caller says.
        let emulate = unsafe { opened.get(b"emulate\0") }.unwrap();
        Kernels { emulate, _library: opened }
    }
}

/// The definition that kernels in `kind` are compiled with.
pub fn wide(kind: tch::Kind) -> String {
    format!("BF16={}", u8::from(kind == tch::Kind::BFloat16))
}

/// Where a tensor's elements lie; null for none.
pub fn at(t: Option<&Tensor>) -> *mut std::ffi::c_void {
    t.map_or(std::ptr::null_mut(), Tensor::data_ptr)
}
