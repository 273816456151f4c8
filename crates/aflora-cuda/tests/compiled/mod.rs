//! The kernels' sources compiled by NVRTC, which needs no GPU: `AFLORA_NVRTC` names the library where the
//! loader does not find it by itself.

use libloading::os::unix::Library;
use std::ffi::{c_char, c_int, c_void, CString};
use std::io::Write;
use std::path::Path;

#[path = "../../sources.rs"]
mod sources;

/// A source, and what it is compiled with beside the kind.
const SOURCES: [(&[&str], &[&[&str]]); 19] = [
    (
        &["low_rank.cu"],
        &[
            &["R=4", "PATHS=1"],
            &["R=8", "PATHS=1"],
            &["R=2", "PATHS=3"],
            &["R=4", "PATHS=3"],
            &["R=6", "PATHS=2"],
        ],
    ),
    (&["feed_forward.cu"], &[&["R=4", "PATHS=1", "ACT=1"], &["R=8", "PATHS=1", "ACT=2"]]),
    (
        &["low_rank_tiled.cu"],
        &[
            &["R=4", "PATHS=1"],
            &["R=8", "PATHS=1"],
            &["R=4", "PATHS=3"],
            &["R=8", "PATHS=3"],
            &["R=5", "PATHS=2"],
        ],
    ),
    (&["feed_forward_tiled.cu"], &[&["R=4", "PATHS=1", "ACT=1"], &["R=8", "PATHS=1", "ACT=2"]]),
    (&["wide_path.cu"], &[&[]]),
    (&["adamw.cu"], &[&[]]),
    (&["joint_norm.cu"], &[&[]]),
    (&["order.cu"], &[&[]]),
    (&["scores.cu"], &[&[]]),
    (&["layer_norm.cu"], &[&["H=768", "THREADS=32"], &["H=8192", "THREADS=256"]]),
    (&["rms_norm.cu"], &[&["H=128", "THREADS=32"], &["H=4096", "THREADS=256"]]),
    (&["rotary.cu"], &[&["INTERLEAVED=0"], &["INTERLEAVED=1"]]),
    (&["gated.cu"], &[&["ACT=0"], &["ACT=1"], &["ACT=2"]]),
    (&["heads.cu"], &[&[]]),
    (&["cross_entropy.cu"], &[&[]]),
    (
        &["quantised.cu"],
        &[
            &["INT8=0", "E4M3=0", "BLOCKS=0", "ROWS=8"],
            &["INT8=1", "E4M3=0", "BLOCKS=0", "ROWS=8"],
            &["INT8=1", "E4M3=1", "BLOCKS=0", "ROWS=8"],
        ],
    ),
    (&["fp8.cu"], &[&["THREADS=32"], &["THREADS=256"]]),
    (&["disentangled.cu"], &[&["VEC=4", "ITEMS=8"]]),
    (
        &["disentangled_tiled.cu"],
        &[
            &["SIZE=64", "POSITIONS=1", "SKIPS=1"],
            &["SIZE=64", "POSITIONS=1", "SKIPS=0"],
            &["SIZE=128", "POSITIONS=1", "SKIPS=0"],
            &["SIZE=32", "POSITIONS=0", "SKIPS=1"],
            &["SIZE=64", "POSITIONS=0", "SKIPS=1"],
        ],
    ),
];

/// Compiles a program's text; gives what the compiler said where it refuses.
struct Compiler {
    library: Library,
}

impl Compiler {
    fn open() -> Result<Compiler, String> {
        let own = std::env::var("AFLORA_NVRTC").ok();
        let names = own.into_iter().chain(["libnvrtc.so.13", "libnvrtc.so.12"].map(String::from));
        let mut why = String::new();
        for name in names {
            // SAFETY: opening it runs its initialisers, which are made for that.
            match unsafe { Library::new(&name) } {
                Ok(library) => return Ok(Compiler { library }),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    fn compile(&self, source: &str, options: &[String]) -> Result<(), String> {
        type Create = unsafe extern "C" fn(
            *mut *mut c_void,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int;
        type LogSize = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
        type Log = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
        let source = CString::new(source).unwrap();
        let options: Vec<CString> =
            options.iter().map(|option| CString::new(option.as_str()).unwrap()).collect();
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        // SAFETY: NVRTC's functions have these types in every version; strings and places live through the calls.
        unsafe {
            let create = self.library.get::<Create>(b"nvrtcCreateProgram\0").unwrap();
            let compile = self.library.get::<Compile>(b"nvrtcCompileProgram\0").unwrap();
            let log_size = self.library.get::<LogSize>(b"nvrtcGetProgramLogSize\0").unwrap();
            let log = self.library.get::<Log>(b"nvrtcGetProgramLog\0").unwrap();
            let destroy = self.library.get::<Destroy>(b"nvrtcDestroyProgram\0").unwrap();
            let none = std::ptr::null();
            let name = c"kernel.cu".as_ptr();
            assert_eq!(create(&mut program, source.as_ptr(), name, 0, none, none), 0);
            let returned = compile(program, options.len() as c_int, options.as_ptr());
            let mut size = 0;
            log_size(program, &mut size);
            let mut words = vec![0u8; size];
            log(program, words.as_mut_ptr().cast());
            destroy(&mut program);
            match returned {
                0 => Ok(()),
                _ => Err(String::from_utf8_lossy(&words).into_owned()),
            }
        }
    }
}

#[test]
fn kernels_compile_for_the_architectures_that_they_are_for() {
    let compiler = match Compiler::open() {
        Ok(compiler) => compiler,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "skipped, it needs NVRTC: {why}");
            return;
        }
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let read = |name: &&str| sources::source(&folder, name).unwrap();
    for (files, definitions) in SOURCES {
        let source: String = ["common.cuh"].iter().chain(files).map(read).collect();
        for (architecture, kind) in [("sm_80", 0), ("sm_80", 1), ("sm_90", 0), ("sm_90", 1)] {
            if kind == 0 && files.iter().any(|file| file.ends_with("_tiled.cu")) {
                continue;
            }
            for definitions in definitions {
                let mut options = vec![
                    format!("--gpu-architecture={architecture}"),
                    "--std=c++17".into(),
                    "-default-device".into(),
                    format!("-DBF16={kind}"),
                ];
                options.extend(definitions.iter().map(|definition| format!("-D{definition}")));
                if let Err(words) = compiler.compile(&source, &options) {
                    panic!("{files:?} with {options:?}:\n{words}");
                }
            }
        }
    }
}
