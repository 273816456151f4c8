//! How long the hub is waited for, and how much is taken from it.

use std::path::Path;
use std::time::Duration;

/// How long the hub is waited for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For a name to be looked up, and again for a connection, a proxy's and TLS's part included. A
    /// machine without a network waits this long at the most: neither is tried twice.
    pub connect: Duration,
    /// For the head of an answer, which a proxy may hold back until it has looked through the whole.
    pub answer: Duration,
    /// In this time, [`LEAST`] bytes must come, or the rest of the file.
    pub stall: Duration,
    /// Further tries after a server that is busy or a connection that broke.
    pub tries: u32,
    /// The wait before the first of them; each is twice the one before, up to eight times the first.
    pub wait: Duration,
    /// All waits together, those that a server asks for included.
    pub waits: Duration,
}

/// The fewest bytes in [`Limits::stall`].
pub const LEAST: u64 = 64 << 10;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            tries: 5,
            wait: Duration::from_secs(1),
            waits: Duration::from_secs(360),
        }
    }
}

/// How often and how long one download is tried again.
pub(super) struct Patience<'a> {
    limits: &'a Limits,
    tries: u32,
    waited: Duration,
    /// Bytes of the file that were there when this count began, `None` until it is known.
    began: Option<u64>,
}

/// So many bytes more than when the count began make a failure the first one again.
const PROGRESS: u64 = 1 << 20;

impl<'a> Patience<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Patience { limits, tries: 0, waited: Duration::ZERO, began: None }
    }

    /// `held` bytes of the file are there. What comes a second time, from a server that begins anew,
    /// is no progress: the mark never goes back, so the count begins once a megabyte of the file.
    pub(super) fn holds(&mut self, held: u64) {
        let began = *self.began.get_or_insert(held);
        if held >= began.saturating_add(PROGRESS) {
            *self = Patience { began: Some(held), ..Patience::new(self.limits) };
        }
    }

    /// How long to wait before the next try, `after` a time that the server asks for; `None` if it
    /// is given up.
    pub(super) fn next(&mut self, after: Option<Duration>) -> Option<Duration> {
        let own = self.limits.wait * 2u32.pow(self.tries.min(3));
        // A server tells whole seconds, of which the last has not quite passed.
        let wait = after.map_or(own, |after| after.saturating_add(self.limits.wait));
        let waited = self.waited.saturating_add(wait);
        if self.tries == self.limits.tries || waited > self.limits.waits {
            return None;
        }
        (self.tries, self.waited) = (self.tries + 1, waited);
        Some(wait)
    }
}

/// The most bytes of a configuration.
const MOST_OF_CONFIG: u64 = 16 << 20;

/// The most bytes that a file of this name may have, `None` if that is the hub's to say: weights and
/// tables, whose readers map them or go through them. All others are read whole.
pub(super) fn most(file: &str) -> Option<u64> {
    let large = [".safetensors", ".bin", ".parquet"];
    if large.iter().any(|end| file.ends_with(end)) {
        None
    } else if file.ends_with("config.json") {
        Some(MOST_OF_CONFIG)
    } else {
        Some(aflora_files::read::MOST)
    }
}

/// The most bytes of a file whose length nobody tells.
pub(super) const MOST_UNTOLD: u64 = 1 << 30;

/// Bytes that a download may take of the disk of `folder`: all but a twentieth of what is free.
pub(super) fn room(folder: &Path) -> u64 {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return u64::MAX };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    free - free / 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_doubles_and_ends() {
        let limits = Limits::default();
        let seconds = |wait: Option<Duration>| wait.map(|wait| wait.as_secs());
        let mut patience = Patience::new(&limits);
        for expected in [1, 2, 4, 8, 8] {
            assert_eq!(seconds(patience.next(None)), Some(expected));
        }
        assert_eq!(patience.next(None), None);
    }

    #[test]
    fn only_bytes_that_were_never_there_before_begin_the_count_anew() {
        let limits = Limits::default();
        // The bytes that are told in each try, and how many seconds are waited after it.
        let waits = |tries: Vec<Vec<u64>>| -> Vec<Option<u64>> {
            let mut patience = Patience::new(&limits);
            let waits = tries.iter().map(|held| {
                held.iter().for_each(|held| patience.holds(*held));
                patience.next(None).map(|wait| wait.as_secs())
            });
            waits.collect()
        };
        let [none, half, whole] = [0, PROGRESS / 2, PROGRESS];
        let until_the_end = [Some(1), Some(2), Some(4), Some(8), Some(8), None];
        // It begins anew each time, after a part of an earlier command's too.
        assert_eq!(waits(vec![vec![none, whole + half]; 6]), until_the_end);
        assert_eq!(waits(vec![vec![9 * whole, none, 8 * whole]; 6]), until_the_end);
        // It goes on, by a megabyte or by less.
        let on = (0..8).map(|i| vec![i * whole, (i + 1) * whole]).collect();
        assert_eq!(waits(on), [Some(1); 8]);
        let by_halves = (0..8).map(|i| vec![i * half, (i + 1) * half]).collect();
        assert_eq!(waits(by_halves), [1, 1, 2, 1, 2, 1, 2, 1].map(Some));
    }

    #[test]
    fn a_server_that_asks_for_a_long_wait_gets_six_minutes_in_all() {
        let limits = Limits::default();
        let mut patience = Patience::new(&limits);
        let after = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(patience.next(after(300)), after(301));
        assert_eq!(patience.next(after(300)), None);
        assert_eq!(Patience::new(&limits).next(after(u64::MAX)), None);
    }

    #[test]
    fn a_file_may_be_as_large_as_its_kind() {
        assert_eq!(most("config.json"), Some(16 << 20));
        assert_eq!(most("generation_config.json"), Some(16 << 20));
        assert_eq!(most("model.safetensors.index.json"), Some(1 << 30));
        assert_eq!(most("tokenizer.json"), Some(1 << 30));
        assert_eq!(most("model-00001-of-00002.safetensors"), None);
        assert_eq!(most("mrpc/train-00000-of-00001.parquet"), None);
        assert!(room(Path::new("/")) < 1 << 60);
    }
}
