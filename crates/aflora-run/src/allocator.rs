//! The C library's allocator. This crate's unsafe code: two calls that set thresholds.

/// Makes the C library keep large blocks that were freed. By itself it gives each back to the
/// system, and a step's every tensor would be new pages to fault in and to clear.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both only set a threshold of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
