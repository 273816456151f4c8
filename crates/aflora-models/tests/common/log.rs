//! What a test's own thread logs.

use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use tracing_subscriber::util::SubscriberInitExt;

/// What was logged meanwhile.
pub fn logged(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // A place that a test beside this one comes to first, where nobody listens, would be taken for silent ever
    // after, now and then: somebody always listens.
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| {
        let nobody = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
        let _ = tracing::subscriber::set_global_default(nobody);
    });
    let sink = Sink::default();
    let writer = sink.clone();
    let log = tracing_subscriber::fmt().with_writer(Mutex::new(writer)).with_ansi(false).finish();
    let guard = log.set_default();
    run();
    drop(guard);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}
