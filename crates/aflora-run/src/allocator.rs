//! The C library's allocator. This module's unsafe code: calls that set thresholds, and one that gives memory back.

/// The least bytes of a block that goes back to the system when it is freed.
///
/// A step takes far longer to compute with such a block than the system to clear it, and among kept
/// ones of many sizes, such as the logits over a large vocabulary of batches of many lengths, none
/// fits the next: a process would grow to several times what it needs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK: libc::c_int = 1 << 28;

/// Makes the C library keep large blocks that were freed. By itself it gives each back to the
/// system, and a step's every tensor would be new pages to fault in and to clear.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both only set a threshold of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Gives the system what the C library keeps and nobody uses. Takes the time of some system calls, and
/// what is used again are new pages.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
