//! The hub's client against servers that answer as the hub does, and as it does not.

use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

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

#[test]
fn a_file_is_fetched_once_and_then_taken_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(vec![hello()]);
    let hub = hub(&address, cache.path());
    let mut seen = Vec::new();
    let path = hub.get(&repo(), "x/a.txt", &mut |done, total| seen.push((done, total))).unwrap();
    let request = server.join().unwrap().remove(0);
    let line = format!("GET /datasets/owner/data/resolve/{COMMIT}/x/a.txt HTTP/1.1\n");
    assert!(request.starts_with(&line), "{request}");
    assert!(!request.contains("Range"), "{request}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
    assert_eq!(seen.last(), Some(&(5, Some(5))));
    assert!(path.ends_with(format!("datasets--owner--data/snapshots/{COMMIT}/x/a.txt")));
    // As Python lays it out.
    assert_eq!(fs::read_link(&path).unwrap(), Path::new(&format!("../../../blobs/{HELLO}")));
    assert_eq!(files(cache.path()), [HELLO]);
    // The server is gone: this can only come from the cache.
    assert_eq!(get(&hub, "x/a.txt").unwrap(), path);
}

#[test]
fn slashes_behind_hf_endpoint_make_no_empty_part_of_the_path() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(vec![hello()]);
    get(&hub(&format!("{address}//"), cache.path()), "a.txt").unwrap();
    assert!(server.join().unwrap()[0].starts_with("GET /datasets/owner/"));
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let sha256 = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
    let whole = |body| hub_s("200 OK", 11, sha256, body);
    let (address, server) = serve(vec![whole("hello")]);
    let error = get(&hub(&address, cache.path()), "a.txt").unwrap_err().to_string();
    assert!(error.contains("ended after 5 of 11 bytes"), "{error}");
    assert!(error.contains("the same command goes on there"), "{error}");
    server.join().unwrap();
    assert!(!Hub::at("", cache.path()).cached(&repo(), "a.txt").exists());

    let rest = answer(
        "206 Partial Content",
        &["Content-Length: 6", "Content-Range: bytes 5-10/11"],
        " world",
    );
    let (address, server) = serve(vec![whole(""), rest]);
    let path = get(&hub(&address, cache.path()), "a.txt").unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "hello world");
    assert!(server.join().unwrap()[1].contains("bytes=5-"));
    assert_eq!(files(cache.path()), [sha256]);
}

#[test]
fn a_connection_that_breaks_is_made_again_at_once() {
    let rest = || answer("206 Partial Content", &["Content-Range: bytes 3-4/5"], "lo");
    let whole = |body| hub_s("200 OK", 5, HELLO, body);
    let (got, requests) = got("a.txt", vec![whole("hel"), whole(""), rest()]);
    assert_eq!(got.unwrap(), "hello");
    assert!(requests[2].contains("bytes=3-"), "{}", requests[2]);
}

#[test]
fn a_server_that_begins_anew_or_sends_another_part_is_told_apart() {
    let whole = |body| hub_s("200 OK", 5, HELLO, body);
    for again in [hello(), answer("206 Partial Content", &["Content-Range: bytes 0-4/5"], "hello")]
    {
        let (got, _) = got("a.txt", vec![whole("hel"), whole(""), again]);
        assert_eq!(got.unwrap(), "hello");
    }
    // It knows no parts.
    let none = answer("416 Range Not Satisfiable", &["Content-Length: 0"], "");
    let (got, _) = got("a.txt", vec![whole("hel"), whole(""), none, hello()]);
    assert_eq!(got.unwrap(), "hello");
}

#[test]
fn what_the_hub_says_a_repository_lacks_is_remembered_and_the_next_is_tried() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(vec![missing("EntryNotFound")]);
    let offline = hub(&address, cache.path());
    let error = get(&offline, "a.txt").unwrap_err();
    assert!(matches!(error, HubError::Absent { .. }), "{error}");
    server.join().unwrap();
    // The server is gone: this is from memory.
    assert_eq!(offline.first_of(&repo(), &["a.txt"], &mut |_, _| {}).unwrap(), None);
    let (address, server) = serve(vec![hello()]);
    let hub = hub(&address, cache.path());
    let found = hub.first_of(&repo(), &["a.txt", "b.txt"], &mut |_, _| {}).unwrap();
    assert_eq!(found, Some(hub.cached(&repo(), "b.txt")));
    server.join().unwrap();
}

#[test]
fn a_404_that_is_not_the_hub_s_is_not_remembered() {
    let cache = tempfile::tempdir().unwrap();
    let bare = answer("404 Not Found", &["Content-Length: 0"], "");
    let other = missing("EntryNotFound").replace(COMMIT, &"2".repeat(40));
    let none = answer("404 Not Found", &["X-Error-Code: EntryNotFound", "Content-Length: 0"], "");
    for foreign in [bare, other, none] {
        let (address, server) = serve(vec![foreign, hello()]);
        let hub = hub(&address, cache.path());
        let error = get(&hub, "a.txt").unwrap_err();
        assert!(matches!(error, HubError::Absent { .. }), "{error}");
        assert_eq!(files(cache.path()), [""; 0]);
        let path = get(&hub, "a.txt").unwrap();
        server.join().unwrap();
        fs::remove_dir_all(path.ancestors().nth(3).unwrap()).unwrap();
    }
    for code in ["RevisionNotFound", "RepoNotFound"] {
        let (got, _) = got("a.txt", vec![missing(code)]);
        let error = got.unwrap_err();
        assert!(error.contains("no such re"), "{error}");
    }
}

#[test]
fn a_busy_server_is_asked_again_and_given_up_in_the_end() {
    for status in ["429 Too Many Requests", "503 Service Unavailable", "500 Internal Server Error"]
    {
        let busy = || answer(status, &["Content-Length: 0"], "");
        let (result, _) = got("a.txt", vec![busy(), busy(), hello()]);
        assert_eq!(result.unwrap(), "hello", "{status}");
        let said = answer(status, &["Content-Length: 9"], "back soon");
        let (result, _) = got("a.txt", vec![busy(), busy(), said]);
        let error = result.unwrap_err();
        assert!(error.contains(&format!("answers {}: back soon", &status[..3])), "{error}");
    }
}

#[test]
fn a_server_s_wish_to_wait_is_granted_within_bounds() {
    let after = |seconds: &str| {
        let after = format!("Retry-After: {seconds}");
        answer("429 Too Many Requests", &[&after, "Content-Length: 0"], "")
    };
    let started = Instant::now();
    let (result, _) = got("a.txt", vec![after("1"), hello()]);
    assert_eq!(result.unwrap(), "hello");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let (result, _) = got("a.txt", vec![after("1000000000")]);
    let error = result.unwrap_err();
    assert!(error.contains("it asks to wait for 1000000000 s"), "{error}");
}

#[test]
fn a_refusal_keeps_the_server_s_words_and_loses_the_token() {
    for (status, headers, body, expected) in [
        (
            "403 Forbidden",
            &["X-Error-Message: Access is blocked here"][..],
            "",
            "403: Access is blocked here",
        ),
        (
            "403 Forbidden",
            &[],
            "{\"error\": \"ask\\u001b[2J your admin\"}",
            "403: ask\\u{1b}[2J your admin",
        ),
        ("401 Unauthorized", &[], "no such user", "401: no such user; there is no such repository"),
        ("401 Unauthorized", &[], "not hf_secret", "401: not …;"),
        ("403 Forbidden", &["X-Error-Code: GatedRepo"], "", "it is gated"),
        ("403 Forbidden", &["Content-Type: text/html"], "<html>", "answers 403; does"),
        ("410 Gone", &[], "moved\r\naway", "answers 410: moved away"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (address, server) = serve(vec![answer(status, headers, body)]);
        let hub = Hub { token: Token::new("hf_secret"), ..hub(&address, cache.path()) };
        let error = get(&hub, "a.txt").unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        let request = server.join().unwrap().remove(0).to_lowercase();
        assert!(request.contains("authorization: bearer hf_secret"), "{request}");
        assert_eq!(files(cache.path()), [""; 0]);
    }
}

#[test]
fn without_a_network_the_error_names_what_was_wanted() {
    let cache = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = hub(&format!("http://127.0.0.1:{port}"), cache.path());
    let error = get(&hub, "a.txt").unwrap_err().to_string();
    assert!(error.contains(&format!("owner/data/resolve/{COMMIT}/a.txt")), "{error}");
    let offline = Hub { offline: Some("HF_HUB_OFFLINE"), ..hub };
    let error = get(&offline, "a.txt").unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE is set"), "{error}");
}

/// A storage's answer through the hub's redirect, which tells `headers`.
fn stored(headers: &[&str], body: &str) -> (Result<String, String>, String) {
    let length = format!("Content-Length: {}", body.len());
    let (storage, stored) = serve(vec![answer("200 OK", &[&length], body)]);
    let location = format!("Location: {storage}/bucket/x?sign=1");
    let commit = format!("X-Repo-Commit: {COMMIT}");
    let mut all = vec![location.as_str(), &commit, "ETag: \"of-the-words\"", "Content-Length: 0"];
    all.extend(headers);
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(vec![answer("302 Found", &all, "")]);
    let hub = Hub { token: Token::new("hf_secret"), ..hub(&address, cache.path()) };
    let got = get(&hub, "model.safetensors");
    let got = got.map(|path| fs::read_to_string(path).unwrap()).map_err(|e| e.to_string());
    assert!(server.join().unwrap()[0].contains("hf_secret"));
    assert!(!format!("{hub:?}").contains("secret"));
    if got.is_err() {
        assert_eq!(files(cache.path()), [""; 0]);
    }
    (got, stored.join().unwrap().remove(0))
}

#[test]
fn a_token_stays_at_the_hub_and_is_not_shown() {
    let tag = format!("X-Linked-Etag: \"{HELLO_SHA256}\"");
    let (got, asked) = stored(&[&tag, "X-Linked-Size: 5"], "hello");
    assert_eq!(got.unwrap(), "hello");
    assert!(asked.starts_with("GET /bucket/x?sign=1 "), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
}

#[test]
fn what_comes_is_held_to_the_length_and_the_digest_that_the_hub_tells() {
    let tag = format!("X-Linked-Etag: \"{HELLO_SHA256}\"");
    let (got, _) = stored(&[&tag, "X-Linked-Size: 7"], "hello");
    let error = got.unwrap_err();
    assert!(error.contains("sends 5 bytes, but the hub says that it has 7"), "{error}");
    let (got, _) = stored(&[&tag, "X-Linked-Size: 5"], "jello");
    let error = got.unwrap_err();
    assert!(error.contains("has the SHA-256") && error.contains(HELLO_SHA256), "{error}");
    // Without the file's own tag, as a redirect may have one.
    let (got, _) = stored(&["X-Linked-Size: 5"], "hello");
    assert!(got.unwrap_err().contains("no ETag"));
}

#[test]
fn small_files_are_held_to_git_s_digest_and_every_file_to_its_commit() {
    let tagged = |tag: &str| got("a.txt", vec![hub_s("200 OK", 5, tag, "hello")]).0;
    assert_eq!(tagged(HELLO).unwrap(), "hello");
    assert_eq!(tagged(HELLO_SHA256).unwrap(), "hello");
    // Its plain SHA-1, and what is no digest.
    assert_eq!(tagged("aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d").unwrap(), "hello");
    assert_eq!(tagged("5f8-61a3c").unwrap(), "hello");
    let error = tagged(&HELLO.replace('b', "c")).unwrap_err();
    assert!(error.contains(&format!("has the git digest {HELLO}, but should have c")), "{error}");
    for tag in ["../../../x", "", "a b"] {
        assert!(tagged(tag).unwrap_err().contains("ETag that can name no file"));
    }
    let other = hello().replace(COMMIT, &"2".repeat(40));
    let error = got("a.txt", vec![other]).0.unwrap_err();
    assert!(error.contains("answered with the commit 2222"), "{error}");
}

#[test]
fn a_login_page_is_no_file() {
    let page = "<!doctype html><form>";
    let plain = hub_s("200 OK", page.len(), &HELLO[..39], page);
    let typed = plain.replacen("\r\n", "\r\nContent-Type: Text/HTML; charset=utf-8\r\n", 1);
    for (answered, expected) in [
        (typed, "is it a proxy's or a network's login page?"),
        (answer("200 OK", &["Content-Type: text/plain"], page), "does not answer as the hub does"),
        (plain.replace(&HELLO[..39], HELLO), "has the git digest"),
    ] {
        for file in ["config.json", "model.safetensors"] {
            let cache = tempfile::tempdir().unwrap();
            let (address, server) = serve(vec![answered.clone()]);
            let error = get(&hub(&address, cache.path()), file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            server.join().unwrap();
            assert_eq!(files(cache.path()), [""; 0]);
        }
    }
}

#[test]
fn a_length_that_the_file_cannot_have_is_refused_before_a_byte_is_written() {
    let huge = 1_000_000_000_000_000_000;
    for (file, expected) in [
        ("config.json", "such a file may have 16777216"),
        ("tokenizer.json", "such a file may have 1073741824"),
        ("model.safetensors", "has room for"),
    ] {
        let (got, _) = got(file, vec![hub_s("200 OK", huge, HELLO, "hello")]);
        let error = got.unwrap_err();
        assert!(error.contains(expected) && error.contains(&huge.to_string()), "{error}");
    }
}

#[test]
fn a_server_that_falls_silent_or_dribbles_below_the_bytes_holds_nobody() {
    let chunked = |rest: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let head = hub_s("200 OK", 5, HELLO, "");
            let head = head.replace("Content-Length: 5", "Transfer-Encoding: chunked");
            stream.write_all(head.as_bytes()).unwrap();
            // The head of a chunk that does not end.
            for byte in rest.bytes().cycle() {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        address
    };
    for rest in ["0", "5;a", ""] {
        let cache = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let got = get(&hub(&chunked(rest), cache.path()), "a.txt");
        assert!(got.is_err() && started.elapsed() < Duration::from_secs(5), "{got:?}");
        assert_eq!(files(cache.path()), [""; 0]);
    }
}

#[test]
fn a_link_laid_where_a_part_is_to_be_is_not_followed() {
    let cache = tempfile::tempdir().unwrap();
    let victim = cache.path().join("victim");
    fs::write(&victim, "kept").unwrap();
    let blobs = cache.path().join("datasets--owner--data/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let user = rustix::process::geteuid().as_raw();
    let part = blobs.join(format!("{HELLO}.{user}.incomplete"));
    let absent = cache.path().join(format!("datasets--owner--data/.no_exist/{COMMIT}"));
    fs::create_dir_all(&absent).unwrap();
    for lay in [|a: &Path, b: &Path| symlink(a, b), |a: &Path, b: &Path| fs::hard_link(a, b)] {
        lay(&victim, &part).unwrap();
        lay(&victim, &blobs.join(format!("{HELLO}.incomplete"))).unwrap();
        let (address, server) = serve(vec![hello(), missing("EntryNotFound")]);
        let hub = hub(&address, cache.path());
        let path = get(&hub, "a.txt").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
        symlink(cache.path().join("nothing"), absent.join("b.txt")).unwrap();
        get(&hub, "b.txt").unwrap_err();
        assert!(!cache.path().join("nothing").exists(), "it was followed");
        server.join().unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
        for path in [path, blobs.join(HELLO), blobs.join(format!("{HELLO}.incomplete"))] {
            fs::remove_file(path).unwrap();
        }
        fs::remove_file(absent.join("b.txt")).unwrap();
    }
}

#[test]
fn a_branch_is_the_commit_that_it_was_at_its_first_file() {
    let cache = tempfile::tempdir().unwrap();
    let main = Repo { revision: "main".into(), ..repo() };
    let (address, server) = serve(vec![hello(), missing("EntryNotFound")]);
    let hub = hub(&address, cache.path());
    let path = hub.get(&main, "a.txt", &mut |_, _| {}).unwrap();
    assert_eq!(path, get(&hub, "a.txt").unwrap());
    // The next file is asked for by that commit, whatever the branch is by then.
    hub.get(&main, "b.txt", &mut |_, _| {}).unwrap_err();
    let requests = server.join().unwrap();
    assert!(requests[0].contains("/resolve/main/a.txt"), "{requests:?}");
    assert!(requests[1].contains(&format!("/resolve/{COMMIT}/b.txt")), "{requests:?}");
    let known = cache.path().join("datasets--owner--data/refs/main");
    assert_eq!(fs::read_to_string(&known).unwrap(), COMMIT);
    // A damaged one leads nowhere else.
    for damaged in ["../../../..", "", "main\n"] {
        fs::write(&known, damaged).unwrap();
        assert!(hub.cached(&main, "a.txt").ends_with("snapshots/main/a.txt"));
    }
}

#[test]
fn a_password_in_the_hub_s_address_is_not_shown() {
    let cache = tempfile::tempdir().unwrap();
    let at = hub("http://me:secret@127.0.0.1:9", cache.path());
    for hub in [Hub { offline: Some("HF_HUB_OFFLINE"), ..at.clone() }, at] {
        let error = get(&hub, "a.txt").unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:9/datasets/owner/data"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        assert!(!format!("{hub:?}").contains("secret"));
    }
    // Addresses that are none, which come in all forms.
    for text in ["me:secret@127.0.0.1", "http//me:secret@a", "https://me:sec ret@a", "secret"] {
        let hub = hub(text, cache.path());
        let error = get(&hub, "a.txt").unwrap_err().to_string();
        assert!(error.contains("HF_ENDPOINT is no address") && !error.contains("ret"), "{error}");
        assert!(!format!("{hub:?}").contains("ret@"));
    }
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::at("http://127.0.0.1:9", cache.path());
    let secret = cache.path().parent().unwrap().join("secret");
    for (name, revision, file) in [
        ("owner/data", "../../..", "a.txt"),
        ("owner/data", "/etc", "passwd"),
        ("owner/../data", "abc", "a.txt"),
        ("owner/data", "abc", "../../a.txt"),
        ("owner/data", "abc", "/etc/passwd"),
        ("owner/data?x", "abc", "a.txt"),
        ("a/b/c", "abc", "a.txt"),
    ] {
        let repo = Repo { repo: name.into(), revision: revision.into(), dataset: false };
        let error = hub.get(&repo, file, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("has a name that the hub has none of"), "{error}");
    }
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    assert!(!secret.exists());
}
