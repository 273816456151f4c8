//! Servers and folders that are not what they should be.

use super::*;
use std::os::unix::fs::symlink;
use std::time::Instant;

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
fn two_files_with_one_tag_that_is_no_digest_stay_two() {
    let cache = tempfile::tempdir().unwrap();
    let tagged = |body| hub_s("200 OK", 5, "5f8-61a3c", body);
    let (address, server) = serve(vec![tagged("hello"), tagged("other")]);
    let hub = hub(&address, cache.path());
    for (file, expected) in [("a.txt", "hello"), ("x/a.txt", "other")] {
        assert_eq!(fs::read_to_string(get(&hub, file).unwrap()).unwrap(), expected);
    }
    server.join().unwrap();
}

#[test]
fn a_login_page_is_no_file() {
    let page = "<!doctype html><form>";
    let plain = hub_s("200 OK", page.len(), &HELLO[..39], page);
    let typed = plain.replacen("\r\n", "\r\nContent-Type: Text/HTML; charset=utf-8\r\n", 1);
    for (answered, expected) in [
        (typed, "a proxy's or a network's login page?"),
        (plain.replacen("\r\n", "\r\nContent-Encoding: gzip\r\n", 1), "compressed"),
        (plain.replace("200 OK", "206 Partial Content"), "sends a part"),
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

/// A server that sends `head` and then `rest` over and over, a byte now and then.
fn dribble(head: String, rest: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        for byte in rest.bytes().cycle() {
            std::thread::sleep(Duration::from_millis(20));
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
        // Silence.
        std::thread::sleep(Duration::from_secs(20));
    });
    address
}

#[test]
fn a_server_that_falls_silent_or_dribbles_holds_nobody() {
    let whole = hub_s("200 OK", 5000, HELLO, "hello");
    let chunked = whole.replace("Content-Length: 5000", "Transfer-Encoding: chunked");
    let chunked = chunked.trim_end_matches("hello");
    for (head, rest, expected) in [
        ("HTTP/1.1 200 OK\r\n", "X", "did not answer within 0.3 s"),
        ("", "", "did not answer within 0.3 s"),
        (&whole, "", "5 bytes came in 0.3 s"),
        (&whole, "x", "bytes came in 0.3 s"),
        // The head of a chunk that does not end, and its comment.
        (chunked, "0", ""),
        (chunked, "5;a", ""),
        (&whole.replace("200 OK", "503 Busy"), "x", "answers 503: hello"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&dribble(head.into(), rest), cache.path());
        let answer = Duration::from_millis(300);
        let limits = Limits { answer, tries: 0, ..hub.limits.clone() };
        let started = Instant::now();
        let error = get(&hub.with_limits(limits), "a.txt").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(started.elapsed() < Duration::from_secs(15), "{error}");
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
