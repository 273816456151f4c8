//! The cache of compiled kernels by itself, which needs no GPU.

use super::files;
use crate::emulation::Kernels;
use std::ffi::{c_char, c_long, CString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

type Emulate =
    unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, c_long, bool) -> c_long;

const BINARY: &[u8] = b"\x7fELF\0and more\0";

/// A cache in a folder.
struct Cache {
    kernels: Kernels<Emulate>,
    folder: CString,
}

impl Cache {
    fn new(folder: &Path) -> Cache {
        let folder = CString::new(folder.to_str().unwrap()).unwrap();
        Cache { kernels: Kernels::new("kernel_cache", &[]), folder }
    }

    fn call(&self, made_of: &str, binary: &mut [u8], keep: bool) -> c_long {
        let made_of = CString::new(made_of).unwrap();
        let (folder, at) = (self.folder.as_ptr(), binary.as_mut_ptr().cast());
        // SAFETY: two strings, and as many bytes as are said.
        unsafe {
            (self.kernels.emulate)(folder, made_of.as_ptr(), at, binary.len() as c_long, keep)
        }
    }

    fn keep(&self, made_of: &str) {
        self.call(made_of, &mut BINARY.to_vec(), true);
    }

    fn find(&self, made_of: &str) -> Option<Vec<u8>> {
        let mut binary = vec![0; 1000];
        let size = usize::try_from(self.call(made_of, &mut binary, false)).ok()?;
        binary.truncate(size);
        Some(binary)
    }
}

/// A cache that keeps one kernel, made of "source", and its file.
fn with_one() -> (tempfile::TempDir, Cache, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let cache = Cache::new(place.path());
    cache.keep("source");
    let file = files(place.path()).remove(0);
    (place, cache, file)
}

#[test]
fn a_kept_kernel_is_found_by_what_it_was_made_of() {
    let place = tempfile::tempdir().unwrap();
    let cache = Cache::new(&place.path().join("made/when/needed"));
    assert_eq!(cache.find("source"), None);
    cache.keep("source");
    assert_eq!(cache.find("source").as_deref(), Some(BINARY));
    assert_eq!(cache.find("source 2"), None);
    assert_eq!(files(&place.path().join("made/when/needed")).len(), 1, "nothing is left beside it");
}

#[test]
fn a_kept_kernel_that_is_not_whole_or_of_another_source_is_not_taken() {
    let (_place, cache, file) = with_one();
    let whole = fs::read(&file).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|n| whole[..n].to_vec()).collect();
    damaged.extend((0..whole.len()).map(|place| {
        let mut other = whole.clone();
        other[place] ^= 1;
        other
    }));
    for bytes in damaged {
        fs::write(&file, &bytes).unwrap();
        assert_eq!(cache.find("source"), None, "{}", bytes.escape_ascii());
    }
    cache.keep("source");
    assert_eq!(cache.find("source").as_deref(), Some(BINARY), "it is written anew");
}

#[test]
fn where_nothing_can_be_kept_nothing_is() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    for folder in [file.join("folder"), PathBuf::new()] {
        let cache = Cache::new(&folder);
        cache.keep("source");
        assert_eq!(cache.find("source"), None);
    }
}

#[test]
fn a_folder_in_the_place_of_a_kernel_is_none() {
    let (place, cache, file) = with_one();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(cache.find("source"), None);
    cache.keep("source");
    assert_eq!(files(place.path()), [file], "what could not be put in its place is gone");
}

#[test]
fn what_nobody_took_for_long_goes_when_another_comes() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let place = tempfile::tempdir().unwrap();
    let cache = Cache::new(place.path());
    for (made_of, days) in [("old", 61), ("taken", 61), ("young", 59)] {
        let before = files(place.path());
        cache.keep(made_of);
        let new = files(place.path()).into_iter().find(|file| !before.contains(file)).unwrap();
        let file = fs::File::options().write(true).open(new).unwrap();
        file.set_modified(SystemTime::now() - DAY * days).unwrap();
        if made_of == "taken" {
            assert!(cache.find("taken").is_some());
        }
    }
    cache.keep("new");
    let left = ["old", "taken", "young", "new"].map(|made_of| cache.find(made_of).is_some());
    assert_eq!(left, [false, true, true, true]);
}
