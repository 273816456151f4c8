//! The hub's client against servers of one answer.

use super::address::*;
use super::*;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;

/// Answers one request with `answer`, then goes away; gives its address and the request.
fn serve(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
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
        request
    });
    (address, thread)
}

fn repo() -> Repo {
    Repo { repo: "owner/data".into(), revision: "abc".into(), dataset: true }
}

#[test]
fn a_file_is_fetched_once_and_then_taken_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let hub = Hub::at(&address, cache.path());
    let mut seen = Vec::new();
    let path = hub.get(&repo(), "x/a.txt", &mut |done, total| seen.push((done, total))).unwrap();
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /datasets/owner/data/resolve/abc/x/a.txt HTTP/1.1\n"));
    assert!(!request.contains("Range"), "{request}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
    assert_eq!(seen.last(), Some(&(5, Some(5))));
    assert!(path.ends_with("datasets--owner--data/snapshots/abc/x/a.txt"));
    // The server is gone: this can only come from the cache.
    assert_eq!(hub.get(&repo(), "x/a.txt", &mut |_, _| {}).unwrap(), path);
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let get = |address: &str| Hub::at(address, cache.path()).get(&repo(), "a.txt", &mut |_, _| {});
    let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello");
    let error = get(&address).unwrap_err().to_string();
    assert!(error.contains("ended after 5 of 11 bytes"), "{error}");
    server.join().unwrap();
    let target = Hub::at("", cache.path()).cached(&repo(), "a.txt");
    assert!(!target.exists());

    let (address, server) =
        serve("HTTP/1.1 206 Partial Content\r\nContent-Length: 6\r\n\r\n world");
    assert_eq!(fs::read_to_string(get(&address).unwrap()).unwrap(), "hello world");
    assert!(server.join().unwrap().contains("bytes=5-"));
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_server_that_begins_anew_is_believed() {
    let cache = tempfile::tempdir().unwrap();
    let hub = |address: &str| Hub::at(address, cache.path());
    let target = hub("").cached(&repo(), "a.txt");
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(target.with_extension("txt.incomplete"), "other").unwrap();
    let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let path = hub(&address).get(&repo(), "a.txt", &mut |_, _| {}).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "hello");
    server.join().unwrap();
}

#[test]
fn what_a_repository_lacks_is_remembered_and_the_next_is_tried() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let hub = Hub::at(&address, cache.path());
    let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, HubError::Absent { .. }), "{error}");
    server.join().unwrap();
    // The server is gone: this is from memory.
    assert_eq!(hub.first_of(&repo(), &["a.txt"], &mut |_, _| {}).unwrap(), None);
    let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb");
    let hub = Hub::at(&address, cache.path());
    let found = hub.first_of(&repo(), &["a.txt", "b.txt"], &mut |_, _| {}).unwrap();
    assert_eq!(found, Some(hub.cached(&repo(), "b.txt")));
    server.join().unwrap();
}

#[test]
fn a_gated_repository_asks_for_a_token() {
    let cache = tempfile::tempdir().unwrap();
    let (address, server) = serve("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let hub = Hub { token: Some(Token("secret".into())), ..Hub::at(&address, cache.path()) };
    let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN") && !error.contains("secret"), "{error}");
    assert!(server.join().unwrap().to_lowercase().contains("authorization: bearer secret"));
    let folder = hub.cached(&repo(), "a.txt").parent().unwrap().to_path_buf();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn without_a_network_the_error_names_what_was_wanted() {
    let cache = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = Hub::at(&format!("http://127.0.0.1:{port}"), cache.path());
    let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("owner/data/resolve/abc/a.txt"), "{error}");
    let offline = Hub { offline: true, ..hub };
    let error = offline.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn a_token_stays_at_the_hub_and_is_not_shown() {
    let cache = tempfile::tempdir().unwrap();
    let (storage, stored) = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let answer = format!(
        "HTTP/1.1 302 Found\r\nLocation: {storage}/bucket/x?sign=1\r\nContent-Length: 0\r\n\r\n"
    );
    let (address, server) = serve(answer.leak());
    let hub = Hub { token: Some(Token("secret".into())), ..Hub::at(&address, cache.path()) };
    let path = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "hello");
    assert!(server.join().unwrap().contains("secret"));
    let asked = stored.join().unwrap();
    assert!(asked.starts_with("GET /bucket/x?sign=1 "), "{asked}");
    assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
    assert!(!format!("{hub:?}").contains("secret"));
}

/// What a file of `hello` of which the hub says `headers` comes to.
fn get_told(headers: &str, revision: &str) -> Result<String, String> {
    let cache = tempfile::tempdir().unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{headers}\r\n\r\nhello");
    let (address, server) = serve(answer.leak());
    let hub = Hub::at(&address, cache.path());
    let repo = Repo { revision: revision.into(), ..repo() };
    let got = hub.get(&repo, "a.bin", &mut |_, _| {});
    server.join().unwrap();
    let folder = hub.cached(&repo, "a.bin").parent().unwrap().to_path_buf();
    assert!(got.is_ok() || fs::read_dir(folder).unwrap().count() <= 1);
    got.map(|path| fs::read_to_string(path).unwrap()).map_err(|e| e.to_string())
}

#[test]
fn what_came_is_held_to_the_digest_and_the_commit_that_the_hub_tells() {
    let right = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let tag = |digest: &str| format!("X-Linked-Etag: \"{digest}\"\r\nX-Linked-Size: 5");
    assert_eq!(get_told(&tag(right), "abc").unwrap(), "hello");
    let error = get_told(&tag(&right.replace('2', "3")), "abc").unwrap_err();
    assert!(error.contains(&format!("has the SHA-256 {right}, but should have 3")), "{error}");
    // A tag that is no SHA-256 says nothing.
    assert_eq!(get_told("ETag: \"0123\"", "abc").unwrap(), "hello");
    let commit = "1".repeat(40);
    let told = format!("X-Repo-Commit: {commit}");
    assert_eq!(get_told(&told, &commit).unwrap(), "hello");
    let error = get_told(&told, &"2".repeat(40)).unwrap_err();
    assert!(error.contains(&format!("answered with the commit {commit}")), "{error}");
    let error = get_told("X-Linked-Size: 7", "abc").unwrap_err();
    assert!(error.contains("5 bytes came, but the hub says that it has 7"), "{error}");
}

#[test]
fn a_password_in_the_hub_s_address_is_not_shown() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::at("http://me:secret@127.0.0.1:9", cache.path());
    for hub in [Hub { offline: true, ..hub.clone() }, hub] {
        let error = hub.get(&repo(), "a.txt", &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:9/datasets/owner/data"), "{error}");
        assert!(!error.contains("secret"), "{error}");
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

#[test]
fn redirects_go_to_addresses_alone_and_never_from_https_to_http() {
    for (url, location, expected) in [
        ("https://a.b/c", "/d", Some("https://a.b/d")),
        ("https://a.b/c", "//e.f/d", Some("https://e.f/d")),
        ("https://a.b/c", "https://e.f/d", Some("https://e.f/d")),
        ("https://a.b/c", "http://e.f/d", None),
        ("http://a.b/c", "http://e.f/d", Some("http://e.f/d")),
        ("http://a.b", "file:///etc/passwd", None),
        ("http://a.b", "d", None),
    ] {
        assert_eq!(redirected(url, location).as_deref(), expected, "{url} {location}");
    }
}

#[test]
fn a_file_without_an_end_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("a")).unwrap();
    let copied = copy(&mut io::repeat(1), &mut file, 0, None, 1 << 20, &mut |_, _| {});
    assert!(copied.unwrap_err().to_string().contains("more than 1048576 bytes"));
    assert_eq!(file.metadata().unwrap().len(), 0);
}
