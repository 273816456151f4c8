//! The hub's client against servers that answer as the hub does, and as it does not.

mod fetching;
mod unlike_the_hub;

use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

const COMMIT: &str = "1111111111111111111111111111111111111111";

/// The git digest of a blob `hello`.
const HELLO: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";

/// Its SHA-256.
const HELLO_SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// Answers a request with each of `answers`, then goes away; gives its address and the requests.
fn serve(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            let mut request = String::new();
            loop {
                let line = lines.next().unwrap().unwrap();
                if line.is_empty() {
                    break;
                }
                request.push_str(&line);
                request.push('\n');
            }
            (&stream).write_all(answer.as_bytes()).unwrap();
            requests.push(request);
        }
        requests
    });
    (address, thread)
}

/// An answer of these headers, which end a connection, and this body.
fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// The hub's answer: its commit and a tag, and `length` as the length.
fn hub_s(status: &str, length: usize, tag: &str, body: &str) -> String {
    let headers = [
        format!("X-Repo-Commit: {COMMIT}"),
        format!("ETag: \"{tag}\""),
        format!("Content-Length: {length}"),
    ];
    answer(status, &headers.each_ref().map(String::as_str), body)
}

fn hello() -> String {
    hub_s("200 OK", 5, HELLO, "hello")
}

fn missing(code: &str) -> String {
    let commit = format!("X-Repo-Commit: {COMMIT}");
    answer("404 Not Found", &[&commit, &format!("X-Error-Code: {code}"), "Content-Length: 0"], "")
}

fn repo() -> Repo {
    Repo { repo: "owner/data".into(), revision: COMMIT.into(), dataset: true }
}

/// A hub that is not waited for long.
fn hub(address: &str, cache: &Path) -> Hub {
    Hub::at(address, cache).with_limits(Limits {
        answer: Duration::from_secs(5),
        stall: Duration::from_millis(300),
        tries: 2,
        wait: Duration::from_millis(1),
        waits: Duration::from_secs(3),
        ..Limits::default()
    })
}

fn get(hub: &Hub, file: &str) -> Result<PathBuf, HubError> {
    hub.get(&repo(), file, &mut |_, _| {})
}

/// What comes of `answers`: the file's content or the error, and the requests.
fn got(file: &str, answers: Vec<String>) -> (Result<String, String>, Vec<String>) {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(answers);
    let got = get(&hub(&address, cache.path()), file);
    let got = got.map(|path| fs::read_to_string(path).unwrap()).map_err(|e| e.to_string());
    (got, server.join().unwrap())
}

/// Names of all files of a cache but those of links.
fn files(cache: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![cache.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => found.push(entry.file_name().into_string().unwrap()),
                _ => {}
            }
        }
    }
    found
}
