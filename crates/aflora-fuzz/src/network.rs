//! What a server answers, and what the hub's cache remembers.

use crate::files;
use aflora_run::hub::{Hub, Limits, Repo};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

const COMMIT: &str = "1111111111111111111111111111111111111111";

/// What the server answers now.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The address of a server that answers everything with [`ANSWER`].
fn server() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port to listen at");
        let address = listener.local_addr().expect("the address of a port");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                if let Ok(answer) = ANSWER.lock() {
                    let _ = (&stream).write_all(&answer);
                }
            }
        });
        format!("http://{address}")
    })
}

/// An answer of the hub's, and the commit that its cache has for a branch.
pub fn hub(bytes: &[u8]) {
    let [answer, commit] = files::split(bytes);
    // It could lead anywhere.
    if answer.windows(8).any(|word| word.eq_ignore_ascii_case(b"location")) {
        return;
    }
    let cache = files::folder("hub", &[]);
    let refs = cache.join("models--owner--model/refs");
    std::fs::create_dir_all(&refs).expect("a folder to write to");
    std::fs::write(refs.join("main"), commit).expect("a folder to write to");
    if let Ok(mut now) = ANSWER.lock() {
        *now = answer.to_vec();
    }
    let moment = Duration::from_millis(500);
    let hub = Hub::at(server(), &cache).with_limits(Limits {
        connect: moment,
        answer: moment,
        stall: moment,
        tries: 1,
        wait: Duration::ZERO,
        waits: Duration::ZERO,
    });
    let repo = Repo { repo: "owner/model".into(), revision: "main".into(), dataset: false };
    match hub.get(&repo, "config.json", &mut |_, _| {}) {
        Ok(path) => assert!(path.starts_with(&cache) && path.is_file()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub fn hub_seeds() -> Vec<Vec<u8>> {
    let answer = |status: &str, headers: &str, body: &str| {
        let head = format!("HTTP/1.1 {status}\r\nX-Repo-Commit: {COMMIT}\r\n{headers}\r\n\r\n");
        files::join(&[format!("{head}{body}").into_bytes(), COMMIT.into()])
    };
    let tag = "ETag: \"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0\"";
    vec![
        answer("200 OK", &format!("{tag}\r\nContent-Length: 5"), "hello"),
        answer("200 OK", "X-Linked-Etag: W/\"a-b\"\r\nX-Linked-Size: 5", "hello"),
        answer(
            "200 OK",
            &format!("{tag}\r\nTransfer-Encoding: chunked"),
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        answer("404 Not Found", "X-Error-Code: EntryNotFound\r\nContent-Length: 0", ""),
        answer("403 Forbidden", "X-Error-Message: no", "{\"errors\": [{\"message\": \"no\"}]}"),
        answer("429 Busy", "Retry-After: 9\r\nRateLimit: \"api\";r=0;t=55", "{\"error\": \"no\"}"),
    ]
}
