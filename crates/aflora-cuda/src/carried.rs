//! Shared libraries that this crate carries as bytes (shim/): opened at run time from a file in
//! memory, so that nothing is installed and one binary serves machines with and without a GPU. Where
//! the system has no such files it is a temporary one.

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::CStr;
use std::io::{self, Write};
use std::path::PathBuf;

/// A struct of a carried library's functions, each found by its name.
macro_rules! functions {
    ($(#[$about:meta])* $name:ident { $($field:ident = $symbol:literal: $signature:ty,)* }) => {
        $(#[$about])*
        pub(crate) struct $name {
            $(pub $field: $signature,)*
        }

        impl $name {
            #[allow(dead_code, reason = "a build may carry no library")]
            fn find(library: &libloading::os::unix::Library) -> std::result::Result<Self, String> {
                Ok($name {
                    // SAFETY: the signatures are those of the C++ file, which is compiled with
                    // this crate. The library is never closed.
                    $($field: unsafe {
                        *library.get::<$signature>(concat!($symbol, "\0").as_bytes())
                            .map_err(|e| e.to_string())?
                    },)*
                })
            }
        }
    };
}
pub(crate) use functions;

/// Opens a library of these bytes for the rest of the process; `find` looks up its functions.
///
/// # Errors
/// The system refuses, or a symbol is missing: libtorch is another than it was built for.
#[allow(dead_code, reason = "a build may carry no library")]
pub(crate) fn open<T>(
    name: &CStr,
    bytes: &[u8],
    find: impl FnOnce(&Library) -> Result<T, String>,
) -> Result<T, String> {
    let (_file, path) = file(name, bytes).map_err(|e| format!("a file to load: {e}"))?;
    // SAFETY: it has no initialisers of its own beyond C++'s.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|e| e.to_string())?;
    let found = find(&library)?;
    std::mem::forget(library);
    Ok(found)
}

/// These bytes as a file in memory, with its path. It is never closed: the loader knows a library by its
/// path, and would take the next one, behind the same descriptor, for this one.
#[allow(dead_code, reason = "a build may carry no library")]
#[cfg(target_os = "linux")]
fn file(name: &CStr, bytes: &[u8]) -> io::Result<((), PathBuf)> {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: a plain system call; the descriptor it gives is ours.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        std::fs::File::from_raw_fd(descriptor)
    };
    file.write_all(bytes)?;
    Ok(((), format!("/proc/self/fd/{}", file.into_raw_fd()).into()))
}

/// These bytes as a temporary file, which is gone with the first of the two, and its path.
#[allow(dead_code, reason = "a build may carry no library")]
#[cfg(not(target_os = "linux"))]
fn file(_: &CStr, bytes: &[u8]) -> io::Result<(tempfile::NamedTempFile, PathBuf)> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    let path = file.path().to_path_buf();
    Ok((file, path))
}

#[cfg(test)]
mod tests {
    use super::file;

    #[test]
    #[cfg(target_os = "linux")]
    fn one_library_is_not_taken_for_another_that_was_opened_before() {
        let paths = [c"a", c"b"].map(|name| file(name, b"bytes").unwrap().1);
        assert_ne!(paths[0], paths[1]);
        assert_eq!(std::fs::read(&paths[0]).unwrap(), b"bytes");
    }
}
