//! The log: lines on standard error, as `AFLORA_LOG` asks for them.
//!
//! Only our own crates write to it, at every level. What a library thinks worth a line is not ours
//! to judge: an HTTP client's trace holds each byte of its requests, and so the hub's token.

use crate::ui::LogSink;
use tracing::Subscriber;
use tracing_subscriber::filter::{filter_fn, EnvFilter};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// From now on, our log lines go to `sink`.
pub fn start(sink: LogSink) {
    let filter = EnvFilter::try_from_env("AFLORA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Not `init`, which would also take in what libraries write by the `log` crate. It fails where
    // there is a log already, which goes on then.
    let _ = tracing::subscriber::set_global_default(subscriber(filter, move || sink.clone()));
}

fn subscriber<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer()
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(writer)
        .with_filter(filter_fn(|about| is_ours(about.target())));
    tracing_subscriber::registry().with(filter).with(lines)
}

/// Whether a target, which is a module's path, lies in a crate of ours.
fn is_ours(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    name == "aflora" || name.starts_with("aflora_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_level_lets_a_library_write() {
        for asked in ["trace", "ureq_proto::util=trace,aflora=trace"] {
            let kept = Kept::default();
            let writer = kept.clone();
            let subscriber = subscriber(EnvFilter::new(asked), move || writer.clone());
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: "ureq_proto::util", "a library's");
                tracing::trace!(target: "rustls::client", "a library's");
                tracing::error!(target: "aflorax", "a library's");
                tracing::trace!("our own");
                tracing::info!(target: "aflora", "our own");
            });
            let lines = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert_eq!(lines, "TRACE our own\n INFO our own\n", "{asked}");
        }
    }
}
