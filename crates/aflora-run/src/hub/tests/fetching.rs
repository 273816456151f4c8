//! Files as the hub gives them, and what it says where it does not.

use super::*;
use std::time::Instant;

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

/// What comes of `answers`, with the number of tries that the documentation tells.
fn got_large(answers: Vec<String>) -> (Result<String, String>, usize) {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve(answers);
    let hub = hub(&address, cache.path());
    let Limits { tries, stall, .. } = Limits::default();
    let hub = hub.clone().with_limits(Limits { tries, stall, ..hub.limits });
    let got = get(&hub, "model.safetensors");
    let got = got.map(|path| fs::read_to_string(path).unwrap()).map_err(|e| e.to_string());
    // A client that gave up too early must fail its test, not keep it waiting.
    let started = Instant::now();
    while !server.is_finished() {
        assert!(started.elapsed() < Duration::from_secs(20), "answers were left over: {got:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    (got, server.join().unwrap().len())
}

#[test]
fn a_server_that_always_begins_anew_and_breaks_off_is_given_up() {
    let size = 3 << 20;
    let half = "x".repeat(size / 2);
    let whole = |body: &str| hub_s("200 OK", size, "5f8-61a3c", body);
    // A try that finds a part asks for the file and then for its rest.
    let mut answers = vec![whole(&half)];
    for _ in 0..5 {
        answers.extend([whole(""), whole(&half)]);
    }
    let (got, _) = got_large(answers);
    let error = got.unwrap_err();
    assert!(error.contains("ended after 1572864 of 3145728 bytes"), "{error}");
    // No request came after these, to be refused.
    assert!(!error.contains("before that"), "{error}");
}

#[test]
fn a_server_that_breaks_off_after_every_megabyte_and_goes_on_there_is_not_given_up() {
    let (piece, pieces) = (1 << 20, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    let size = pieces.len() * piece;
    let whole = |body: &str| hub_s("200 OK", size, "5f8-61a3c", body);
    let mut answers = vec![whole(&pieces[0].repeat(piece))];
    for (i, letter) in pieces.iter().enumerate().skip(1) {
        let headers = [
            format!("Content-Range: bytes {}-{}/{size}", i * piece, size - 1),
            format!("Content-Length: {}", size - i * piece),
        ];
        let headers = headers.each_ref().map(String::as_str);
        answers.extend([whole(""), answer("206 Partial Content", &headers, &letter.repeat(piece))]);
    }
    let (got, requests) = got_large(answers);
    // Seven breaks, two more than tries.
    assert!(got.unwrap() == pieces.map(|letter| letter.repeat(piece)).concat());
    assert_eq!(requests, 1 + 2 * 7);
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
fn without_the_network_what_a_snapshot_lacks_is_absent() {
    let cache = tempfile::tempdir().unwrap();
    let offline = Some("HF_HUB_OFFLINE");
    let hub = Hub { offline, ..hub("http://127.0.0.1:9", cache.path()) };
    let first = || hub.first_of(&repo(), &["a.txt", "b.txt"], &mut |_, _| {});
    assert!(matches!(first(), Err(HubError::Offline { .. })));
    // As `snapshot_download` leaves it.
    let other = hub.cached(&repo(), "config.json");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, "{}").unwrap();
    assert_eq!(first().unwrap(), None);
    // What is needed is still missed by name.
    assert!(matches!(get(&hub, "a.txt"), Err(HubError::Offline { .. })));
}
