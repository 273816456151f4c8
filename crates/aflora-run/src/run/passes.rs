//! What is evaluated at once: as many rows as were asked for, or as many as fit into memory.
//!
//! Evaluating needs no gradient, so each row's result is its own, and the rows may be cut in any
//! way. A pass that runs out of memory is done again in smaller ones; and one whose size is known
//! beforehand (the states of all tokens of long texts) is cut before it is tried, since on a CPU
//! the system may end a process that takes too much without asking.
//!
//! Of several processes each takes its share of the rows, and all get what all found.

use super::failure;
use crate::interrupt::{self, Interrupted};
use aflora_core::sharded::ShardedBase;
use aflora_cuda::World;
use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;

/// Numbers that a pass may make by what is known of its rows: 512 MB of them in fp32.
const MOST: usize = 1 << 27;

/// How many rows are taken at once, and by whom.
#[derive(Debug, Clone)]
pub struct Passes {
    asked: usize,
    rows: Cell<usize>,
    told: Cell<bool>,
    world: World,
    sharded: Option<Arc<ShardedBase>>,
    records: bool,
}

impl Passes {
    /// So many, until they turn out to be too many.
    pub fn new(rows: usize) -> Self {
        Self::among(rows, World::alone(), None)
    }

    /// So many on each of these processes, which may have the model's weights together.
    pub fn among(rows: usize, world: World, sharded: Option<Arc<ShardedBase>>) -> Self {
        let (rows, told) = (Cell::new(rows), Cell::new(false));
        Passes { asked: rows.get(), rows, told, world, sharded, records: true }
    }

    /// The same, whose passes on a GPU are not recorded unless `records` says so.
    pub fn recording(self, records: bool) -> Self {
        Passes { records, ..self }
    }

    /// Whether passes on a GPU are recorded: not where processes come together for weights.
    pub fn records(&self) -> bool {
        self.records && self.sharded.is_none()
    }

    /// How many of so many rows are this process's.
    pub fn share(&self, rows: usize) -> usize {
        (rows + self.world.size() - 1 - self.world.rank()) / self.world.size()
    }

    /// What `work` gives of all of `rows`, one stretch of them after another; of several processes
    /// that of all, in one order for all. `work` must take nothing of a stretch for done before it
    /// succeeds.
    ///
    /// # Errors
    /// Those of `work`, with what helps where not even one row fits into memory; or a
    /// [signal](crate::interrupt) came, here or to another process.
    pub fn of<T: Serialize + DeserializeOwned>(
        &self,
        rows: &[usize],
        work: impl FnMut(&[usize]) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.of_size(rows, |_| 0, work)
    }

    /// [`of`](Self::of) rows of which each makes `size` numbers, filled up to the largest beside it:
    /// of as many at once as keep to a bound.
    ///
    /// # Errors
    /// As there.
    pub fn of_size<T: Serialize + DeserializeOwned>(
        &self,
        rows: &[usize],
        size: impl Fn(usize) -> usize,
        mut work: impl FnMut(&[usize]) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.shared(rows, |rows, found| {
            self.each(rows, size, |rows| {
                found.push(work(rows)?);
                Ok(())
            })
        })
    }

    /// [`of`](Self::of), where what `begin` launches of a stretch is read by `end` once the next is under way. So
    /// the device works while the host reads the one and makes ready the other. `begin` has what came before
    /// waited for, by `wait`, before it launches.
    ///
    /// # Errors
    /// As there. What cannot be read is not tried again.
    pub fn overlapped<L, T: Serialize + DeserializeOwned>(
        &self,
        rows: &[usize],
        wait: &dyn Fn(),
        mut begin: impl FnMut(&[usize]) -> Result<L>,
        mut end: impl FnMut(&[usize], L) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.shared(rows, |rows, found| {
            let mut under_way: Option<(Vec<usize>, L)> = None;
            let mut failed = Ok(());
            self.each(
                rows,
                |_| 0,
                |rows| {
                    if failed.is_err() {
                        return Ok(());
                    }
                    let begun = begin(rows)?;
                    if let Some((before, begun)) = under_way.replace((rows.to_vec(), begun)) {
                        let read = failure::guarded(|| end(&before, begun));
                        failed = read.map(|part| found.push(part));
                    }
                    Ok(())
                },
            )?;
            failed?;
            failure::guarded(|| {
                wait();
                if let Some((rows, begun)) = under_way.take() {
                    found.push(end(&rows, begun)?);
                }
                Ok(())
            })
        })
    }

    /// What `work` finds of each of `rows`, in any order. It gets rows and how many to take at once,
    /// and hands over each one's result as it is made: one that is done makes place for the next. Where
    /// so many do not fit into memory, it gets what is left with fewer at once.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn flowing<T: Serialize + DeserializeOwned>(
        &self,
        rows: &[usize],
        mut work: impl FnMut(&[usize], usize, &mut dyn FnMut(usize, T)) -> Result<()>,
    ) -> Result<Vec<(usize, T)>> {
        self.shared(rows, |rows, found| {
            let mut left = rows.to_vec();
            while !left.is_empty() {
                interrupt::check()?;
                let n = self.rows.get().min(left.len());
                let tried =
                    failure::guarded(|| work(&left, n, &mut |row, of| found.push((row, of))));
                let done: HashSet<usize> = found.iter().map(|(row, _)| *row).collect();
                left.retain(|row| !done.contains(row));
                match tried {
                    Ok(()) => anyhow::ensure!(left.is_empty(), "{} rows are left out", left.len()),
                    Err(error) => self.fewer(error, n)?,
                }
            }
            Ok(())
        })
    }

    /// What `work` finds of this process's share of `rows`; of several processes, what all found.
    fn shared<T: Serialize + DeserializeOwned>(
        &self,
        rows: &[usize],
        work: impl FnOnce(&[usize], &mut Vec<T>) -> Result<()>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        if let Some(sharded) = &self.sharded {
            sharded.go_apart()?;
        }
        let ended = work(&self.world.share(rows), &mut found);
        if self.world.is_alone() {
            return ended.map(|()| found);
        }
        // One that is asked to stop tells the others in place of what it found.
        let stopped = match ended.map_err(anyhow::Error::downcast::<Interrupted>) {
            Ok(()) => None,
            Err(Ok(Interrupted(signal))) => Some(signal),
            Err(Err(error)) => return Err(error),
        };
        if let Some(sharded) = &self.sharded {
            sharded.come_together()?;
        }
        let mut all = Vec::new();
        for said in self.world.gather(&serde_json::to_vec(&(stopped, found))?)? {
            let (stopped, found): (Option<i32>, Vec<T>) = serde_json::from_slice(&said)?;
            if let Some(signal) = stopped {
                return Err(Interrupted(signal).into());
            }
            all.extend(found);
        }
        Ok(all)
    }

    /// Does `work` on all of `rows`, one stretch of them after another.
    fn each(
        &self,
        rows: &[usize],
        size: impl Fn(usize) -> usize,
        mut work: impl FnMut(&[usize]) -> Result<()>,
    ) -> Result<()> {
        let mut left = rows;
        while !left.is_empty() {
            interrupt::check()?;
            let whole = self.rows.get().min(left.len());
            let n = within(&left[..whole], &size);
            if n < whole {
                self.tell(n, "a layer's states of more take over 512 MB");
            }
            let (now, later) = left.split_at(n);
            match failure::guarded(|| work(now)) {
                Ok(()) => left = later,
                Err(error) => self.fewer(error, n)?,
            }
        }
        Ok(())
    }

    /// Takes fewer rows at once than `n` from now on, which did not fit into memory.
    ///
    /// # Errors
    /// It was something else, or one row alone.
    fn fewer(&self, error: anyhow::Error, n: usize) -> Result<()> {
        if !failure::is_out_of_memory(&error) {
            return Err(error);
        }
        if n == 1 {
            return Err(failure::explain_evaluation(error));
        }
        self.rows.set(n.div_ceil(2));
        self.tell(n.div_ceil(2), "more do not fit into memory");
        Ok(())
    }

    /// Says once that fewer rows than were asked for are taken.
    fn tell(&self, rows: usize, why: &str) {
        if !self.told.replace(true) {
            let asked = self.asked;
            tracing::info!(
                "evaluating {rows} rows at once, or fewer, in place of {asked}: {why}. The result \
                 is the same"
            );
        }
    }
}

/// How many of the first of `rows` keep to the bound; one at least.
fn within(rows: &[usize], size: impl Fn(usize) -> usize) -> usize {
    let mut largest = 0;
    let fits = rows.iter().zip(1..).take_while(|&(&row, n)| {
        largest = largest.max(size(row));
        n * largest <= MOST
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    /// The stretches that are done, on a device that holds `room` rows, and how many were tried.
    fn done(passes: &Passes, rows: usize, room: usize) -> (Vec<Vec<usize>>, usize) {
        let rows: Vec<usize> = (0..rows).collect();
        let (mut done, mut tried) = (Vec::new(), 0);
        let work = |rows: &[usize]| {
            tried += 1;
            if rows.len() > room {
                // As tch's operators fail: they panic.
                panic!("CUDA out of memory. Tried to allocate 2 GiB");
            }
            done.push(rows.to_vec());
            Ok(())
        };
        passes.of(&rows, work).unwrap();
        (done, tried)
    }

    #[test]
    fn rows_that_do_not_fit_are_evaluated_in_smaller_passes_and_each_once() {
        let passes = Passes::new(32);
        let (stretches, tried) = done(&passes, 70, 9);
        assert_eq!(stretches.concat(), (0..70).collect::<Vec<_>>());
        assert!(stretches.iter().all(|rows| rows.len() <= 8), "{stretches:?}");
        assert_eq!(tried, stretches.len() + 2, "32 and 16 are tried once");
        let (stretches, tried) = done(&passes, 70, 9);
        assert_eq!(tried, stretches.len(), "what fits is known from then on");
        assert_eq!(done(&Passes::new(32), 70, 32).0.len(), 3);
    }

    #[test]
    fn rows_that_flow_are_each_done_once_though_fewer_fit_than_were_asked_for() {
        let passes = Passes::new(8);
        let rows: Vec<usize> = (0..30).collect();
        let mut asked = Vec::new();
        let work = |rows: &[usize], n: usize, done: &mut dyn FnMut(usize, String)| {
            asked.push((rows.len(), n));
            for (at, row) in rows.iter().enumerate() {
                if at >= 5 && n > 3 {
                    panic!("CUDA out of memory. Tried to allocate 2 GiB");
                }
                done(*row, format!("text {row}"));
            }
            Ok(())
        };
        let mut found = passes.flowing(&rows, work).unwrap();
        found.sort();
        let expected: Vec<_> = rows.iter().map(|row| (*row, format!("text {row}"))).collect();
        assert_eq!(found, expected);
        assert_eq!(asked, [(30, 8), (25, 4), (20, 2)], "what was done is not done again");

        let one = Passes::new(1);
        let fails = |_: &[usize], _: usize, _: &mut dyn FnMut(usize, u8)| -> Result<()> {
            panic!("CUDA out of memory. Tried to allocate 2 GiB")
        };
        let words = format!("{:#}", one.flowing(&rows, fails).unwrap_err());
        assert!(words.contains("not even one row"), "{words}");
    }

    #[test]
    fn a_stretch_is_read_while_the_next_is_under_way_and_none_twice() {
        let passes = Passes::new(8);
        let rows: Vec<usize> = (0..20).collect();
        let happened = std::cell::RefCell::new(Vec::new());
        let tell = |what: String| happened.borrow_mut().push(what);
        let begin = |rows: &[usize]| -> Result<usize> {
            // Memory is short once.
            if rows[0] == 8 && rows.len() > 4 {
                panic!("CUDA out of memory. Tried to allocate 2 GiB");
            }
            tell(format!("begin {}", rows[0]));
            Ok(rows[0])
        };
        let end = |rows: &[usize], first: usize| {
            assert_eq!(rows[0], first);
            tell(format!("end {first}"));
            Ok(rows.to_vec())
        };
        let found = passes.overlapped(&rows, &|| tell("wait".into()), begin, end).unwrap();
        assert_eq!(found.concat(), rows);
        let expected = [
            "begin 0", "begin 8", "end 0", "begin 12", "end 8", "begin 16", "end 12", "wait",
            "end 16",
        ];
        assert_eq!(happened.take(), expected);

        let unreadable = |_: &[usize], _: ()| -> Result<()> { Err(anyhow!("no such class")) };
        let error = Passes::new(8).overlapped(&rows, &|| {}, |_| Ok(()), unreadable).unwrap_err();
        assert_eq!(error.to_string(), "no such class");
        for last in [0, 16] {
            let full = |rows: &[usize], _: ()| -> Result<()> {
                match rows[0] == last {
                    true => panic!("DefaultCPUAllocator: can't allocate memory"),
                    false => Ok(()),
                }
            };
            let begun = std::cell::Cell::new(0);
            let begin = |rows: &[usize]| -> Result<()> {
                begun.set(begun.get() + rows.len());
                Ok(())
            };
            let error = Passes::new(8).overlapped(&rows, &|| {}, begin, full).unwrap_err();
            assert!(failure::is_out_of_memory(&error), "{error:#}");
            assert!(begun.get() <= rows.len(), "none is begun twice");
        }
    }

    #[test]
    fn one_row_that_does_not_fit_is_an_error_with_advice() {
        let work = |_: &[usize]| -> Result<()> {
            Err(anyhow!("DefaultCPUAllocator: can't allocate memory"))
        };
        let error = Passes::new(4).of(&[0, 1, 2], work).unwrap_err();
        let words = format!("{error:#}");
        assert!(words.contains("not even one row") && words.contains("max_length"), "{words}");
        assert!(words.contains("DefaultCPUAllocator"), "{words}");
    }

    #[test]
    fn other_errors_are_not_tried_again() {
        let mut tried = 0;
        let work = |_: &[usize]| -> Result<()> {
            tried += 1;
            Err(anyhow!("no kernel image"))
        };
        let error = Passes::new(4).of(&[0, 1, 2], work).unwrap_err();
        assert_eq!((error.to_string().as_str(), tried), ("no kernel image", 1));
    }

    /// The dev loss of SmolLM2-135M: 192 rows of 384 tokens, and states of 4 × 576 in an MLP.
    #[test]
    fn a_pass_keeps_to_its_bound_beforehand() {
        let rows: Vec<usize> = (0..192).collect();
        let mut sizes = Vec::new();
        let work = |rows: &[usize]| {
            sizes.push(rows.len());
            Ok(())
        };
        Passes::new(192).of_size(&rows, |_| 384 * 2_304, work).unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 192);
        assert!(sizes.iter().all(|&n| n * 384 * 2_304 <= MOST), "{sizes:?}");
        // Short rows behind a long one are as wide as that.
        assert_eq!(within(&[10, 1, 1, 1], |row| row * MOST / 20), 2);
        assert_eq!(within(&[1, 1, 10, 1], |row| row * MOST / 20), 2);
        assert_eq!(within(&[3, 1], |row| row * MOST), 1, "one row always goes");
    }
}
