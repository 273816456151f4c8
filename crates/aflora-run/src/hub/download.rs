//! Bytes as they come from a server, which may send them slowly, without an end, or not at all.
//!
//! A thread of its own reads them. So it is the receiver that says how long it waits, whatever the
//! server does below the level of bytes, such as the head of a chunk that never ends.

use super::limits::{Limits, LEAST};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Pieces that wait between the reader and the writer.
const WAITING: usize = 16;

/// Pieces of `body` as they come; the end of the channel is that of the body.
fn pieces(mut body: impl Read + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
    let (send, receive) = sync_channel(WAITING);
    std::thread::spawn(move || loop {
        let mut piece = vec![0; 1 << 16];
        let read = body.read(&mut piece);
        let last = !matches!(read, Ok(n) if n > 0);
        if matches!(read, Ok(0)) {
            return;
        }
        let sent = send.send(read.map(|n| {
            piece.truncate(n);
            piece
        }));
        if last || sent.is_err() {
            return;
        }
    });
    receive
}

/// The first bytes of `body`, `most` at the most: what comes in `time`.
pub(super) fn beginning(body: impl Read + Send + 'static, most: usize, time: Duration) -> Vec<u8> {
    let pieces = pieces(body);
    let until = Instant::now() + time;
    let mut bytes = Vec::new();
    while bytes.len() < most {
        match pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(piece)) => bytes.extend(piece),
            _ => break,
        }
    }
    bytes.truncate(most);
    bytes
}

/// What is asked of a body.
pub(super) struct Wanted<'a> {
    /// Bytes of the file that are there already.
    pub(super) have: u64,
    /// Bytes of the whole file, where they are known.
    pub(super) total: Option<u64>,
    /// The most bytes that the file may have.
    pub(super) most: u64,
    pub(super) limits: &'a Limits,
}

/// Why not all of a body came.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection ended: another one may bring the rest.
    Ended(String),
    /// The server does what it should not.
    Refused(String),
    /// The file cannot be written.
    Disk(io::Error),
}

/// Appends `body` to a file that holds its beginning; gives how many bytes it holds then.
///
/// `progress` gets the bytes done and, where it is known, their total.
pub(super) fn receive(
    body: impl Read + Send + 'static,
    to: &mut File,
    wanted: &Wanted,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<u64, Broken> {
    let Wanted { have, total, most, limits } = *wanted;
    let pieces = pieces(body);
    let mut done = have;
    let (mut began, mut before) = (Instant::now(), done);
    loop {
        let left = limits.stall.saturating_sub(began.elapsed());
        match pieces.recv_timeout(left) {
            Ok(Ok(piece)) => {
                done += piece.len() as u64;
                if done > most {
                    to.set_len(0).map_err(Broken::Disk)?;
                    let problem = format!("more than {most} bytes come: no end to it");
                    return Err(Broken::Refused(problem));
                }
                to.write_all(&piece).map_err(Broken::Disk)?;
                progress(done, total);
            }
            Ok(Err(error)) => return Err(Broken::Ended(ended(done, total, &error.to_string()))),
            Err(RecvTimeoutError::Disconnected) => {
                return match total {
                    Some(total) if done != total => {
                        Err(Broken::Ended(ended(done, Some(total), "no more came")))
                    }
                    _ => Ok(done),
                };
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A piece that comes exactly at the end of the time counts for the next.
        if began.elapsed() >= limits.stall {
            if done - before < LEAST {
                let (came, seconds) = (done - before, limits.stall.as_secs_f64());
                return Err(Broken::Refused(format!(
                    "{came} bytes came in {seconds} s, fewer than {LEAST}: the server or the \
                     network is too slow; HF_HUB_DOWNLOAD_TIMEOUT sets another time"
                )));
            }
            (began, before) = (Instant::now(), done);
        }
    }
}

fn ended(done: u64, total: Option<u64>, how: &str) -> String {
    let total = total.map_or("an unknown number of".into(), |total| total.to_string());
    format!("the connection ended after {done} of {total} bytes ({how})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(stall: u64) -> Limits {
        Limits { stall: Duration::from_millis(stall), ..Limits::default() }
    }

    fn receive_from(
        body: impl Read + Send + 'static,
        total: Option<u64>,
        limits: &Limits,
    ) -> (Result<u64, Broken>, u64) {
        let mut file = tempfile::tempfile().unwrap();
        let wanted = Wanted { have: 0, total, most: 1 << 20, limits };
        let received = receive(body, &mut file, &wanted, &mut |_, _| {});
        (received, file.metadata().unwrap().len())
    }

    #[test]
    fn a_body_without_an_end_is_given_up() {
        let (received, kept) = receive_from(io::repeat(1), None, &Limits::default());
        let Err(Broken::Refused(reason)) = received else { panic!("{received:?}") };
        assert!(reason.contains("more than 1048576 bytes"), "{reason}");
        assert_eq!(kept, 0);
    }

    /// A byte now and then.
    struct Slow;

    impl Read for Slow {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(20));
            bytes[0] = 1;
            Ok(1)
        }
    }

    #[test]
    fn a_byte_now_and_then_holds_nobody() {
        let (received, kept) = receive_from(Slow, Some(1 << 20), &limits(200));
        let Err(Broken::Refused(reason)) = received else { panic!("{received:?}") };
        assert!(reason.contains("bytes came in 0.2 s, fewer than 65536"), "{reason}");
        assert!((1..=11).contains(&kept), "{kept}");
        // What is short may be slow.
        let (received, _) = receive_from(Slow.take(5), Some(5), &limits(2000));
        assert_eq!(received.unwrap(), 5);
    }

    #[test]
    fn silence_holds_nobody() {
        struct Silent;
        impl Read for Silent {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                loop {
                    std::thread::park();
                }
            }
        }
        let (received, kept) = receive_from(Silent, None, &limits(50));
        assert!(matches!(received, Err(Broken::Refused(_))) && kept == 0);
        assert!(beginning(Silent, 9, Duration::from_millis(50)).is_empty());
    }

    #[test]
    fn a_connection_that_ends_early_is_told_with_what_came() {
        let (received, kept) = receive_from(&b"hello"[..], Some(11), &Limits::default());
        let Err(Broken::Ended(reason)) = received else { panic!("{received:?}") };
        assert!(reason.contains("after 5 of 11 bytes"), "{reason}");
        assert_eq!(kept, 5);
        assert_eq!(beginning(&b"hello"[..], 4, Duration::from_secs(9)), b"hell");
    }
}
