//! Libraries that panic: their panic becomes an error.
//!
//! The tokenizers and parquet crates say what is wrong with most files and panic on some; tch's
//! operators panic where libtorch fails, such as for want of memory. A run should end with a
//! sentence all the same, and `predict` with its other rows written.

use std::any::Any;
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// What `read` gives; where it panics, an error that says that a reader gave up, and why.
///
/// # Errors
/// `read` panics.
pub fn catch_reading<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    catch(read).map_err(|words| format!("its reader gave up: {words}"))
}

/// What `work` gives; the panic's words, where it panics. What it was about to change must be
/// dropped or read no more, so that half a change does no harm.
///
/// # Errors
/// `work` panics.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // A panic that is caught should not be printed; all others as before.
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |about| {
            if !CATCHING.get() {
                before(about);
            }
        }));
    });
    let outer = CATCHING.replace(true);
    let given = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    given.map_err(|panic| {
        let words = words(panic.as_ref());
        let words = without_stack(words).rsplit("value: Torch(\"").next().unwrap_or_default();
        words.chars().take(LONGEST).collect::<String>()
    })
}

/// What libtorch says, without the whole stack that it adds to it, whether its line ends are line
/// ends or, in a panic, written out.
pub fn without_stack(words: &str) -> &str {
    let end = ["\nException raised from", "\\nException raised from", "\nframe #", "\\nframe #"]
        .iter()
        .filter_map(|sign| words.find(sign))
        .min();
    words[..end.unwrap_or(words.len())].trim_end()
}

/// Characters of a panic's words.
const LONGEST: usize = 400;

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(catch_reading(|| 1), Ok(1));
        let nothing: Vec<i32> = Vec::new();
        let error = catch_reading(|| nothing[3]).unwrap_err();
        assert!(error.contains("gave up: index out of bounds"), "{error}");
    }

    #[test]
    fn what_libtorch_says_comes_without_its_stack() {
        let [a, b] = [2, 3].map(|n| tch::Tensor::zeros([n], (tch::Kind::Float, tch::Device::Cpu)));
        let error = catch(|| &a + &b).unwrap_err();
        assert!(error.starts_with("The size of tensor a"), "{error}");
        assert!(!error.contains("frame #"), "{error}");
    }
}
