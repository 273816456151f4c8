//! Settings of a thread that hold while a model is built, and no longer: not even where the
//! building panics and someone above goes on.

use std::cell::Cell;
use std::thread::LocalKey;

/// Gives a setting its value back when it is dropped.
pub(crate) struct Restore<T: Copy + 'static>(&'static LocalKey<Cell<T>>, T);

impl<T: Copy + 'static> Restore<T> {
    /// Sets it until then.
    pub(crate) fn after(setting: &'static LocalKey<Cell<T>>, value: T) -> Self {
        Restore(setting, setting.replace(value))
    }
}

impl<T: Copy + 'static> Drop for Restore<T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}
