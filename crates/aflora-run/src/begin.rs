//! The beginning of the program, before libtorch's: how its threads on a CPU wait for one another. This
//! module's unsafe code: what the system's loader hands over is read, and one call starts the program again.
//!
//! libtorch's operators are parallel loops of GNU's OpenMP, whose threads spin for up to 300,000
//! turns before they sleep, so as to be awake when the next loop comes. On a machine that has
//! other work, a thread that spins takes the processor from the one that it waits for: a step of
//! 0.2 s takes 1.5 to 7 s. Threads that sleep at once are slower where the machine is idle, since
//! each loop has to wake them. `WAIT` is nearly the best of both (docs/performance.md has the
//! measurements).
//!
//! OpenMP reads its variables when it is loaded, which is before `main`. So the program starts itself
//! once more, in the same process, with the variable set. The loader calls [`begin`] before any library begins,
//! and libraries' beginnings are nearly all that a start takes (0.17 s): the second start takes 0.01 s more.

use std::ffi::{c_char, c_int, CStr};
use std::ptr::null;

/// OpenMP's variables that say how to wait, whichever the user prefers.
const CHOICES: [&[u8]; 3] = [b"GOMP_SPINCOUNT=", b"OMP_WAIT_POLICY=", b"KMP_BLOCKTIME="];

/// How often a thread looks for work before it sleeps.
const WAIT: &CStr = c"GOMP_SPINCOUNT=10000";

/// So many variables an environment may have, and a path so many bytes; the program goes on as it is where there are more.
const ROOM: usize = 4096;

/// What the loader calls at the beginning, where the program names it in its `.preinit_array`: the number of
/// arguments, the arguments, and the environment, the last two with a null behind them.
pub type Begin = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Makes the threads of this process, and of those that it starts, wait as `WAIT` says, unless
/// the environment has a setting of its own. Where that fails, the program goes on as it is.
///
/// # Safety
/// It is the loader that calls, with the program's own arguments and environment.
pub unsafe extern "C" fn begin(
    _: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    // SAFETY: numbers that the system gave the loader. Without a base the loader was called by name, and is the program that would be
    // started again; a program with others' rights starts nothing.
    let (by_name, secure) =
        unsafe { (libc::getauxval(libc::AT_BASE) == 0, libc::getauxval(libc::AT_SECURE) != 0) };
    if by_name || secure {
        return;
    }
    let mut variables = [null(); ROOM + 2];
    let mut count = 0;
    loop {
        // SAFETY: the last one is null, and none behind it is read.
        let variable = unsafe { *environment.add(count) };
        if variable.is_null() {
            break;
        }
        // SAFETY: a string that lives as long as the process.
        let text = unsafe { CStr::from_ptr(variable) }.to_bytes();
        if count == ROOM || CHOICES.iter().any(|name| text.starts_with(name)) {
            return;
        }
        variables[count] = variable;
        count += 1;
    }
    variables[count] = WAIT.as_ptr();
    let mut program = [0; ROOM];
    // SAFETY: at most as many bytes are written as there is room for beside a null; the lists end with one. No memory is
    // asked for, which no library is ready to give.
    unsafe {
        if libc::readlink(c"/proc/self/exe".as_ptr(), program.as_mut_ptr(), ROOM - 1) > 0 {
            libc::execve(program.as_ptr(), arguments, variables.as_ptr());
        }
    }
}
