//! What a user's surroundings must not do: hang the command, lead it out of its folders, make it
//! ask a network, or learn its token.

use crate::common::Forked;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use tempfile::TempDir;

const TOKEN: &str = "hf_ThisIsASecretToken";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The shipped configurations, a small model under the name `minilm`, and pairs for MRPC.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = root().join("crates/aflora-models/tests/fixtures");
    let copy = |from: PathBuf, to: &str| {
        let to = folder.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    copy(fixtures.join("bert_classes/config.json"), "minilm/config.json");
    copy(fixtures.join("bert_classes/model.safetensors"), "minilm/model.safetensors");
    copy(fixtures.join("word_piece/tokenizer.json"), "minilm/tokenizer.json");
    copy(root().join("configs/experiment.yaml"), "configs/experiment.yaml");
    for kind in ["tasks", "models", "methods"] {
        for file in fs::read_dir(root().join("configs").join(kind)).unwrap().flatten() {
            if file.path().is_file() {
                let name = file.file_name().into_string().unwrap();
                copy(file.path(), &format!("configs/{kind}/{name}"));
            }
        }
    }
    let mut rows = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n".to_string();
    for i in 0..32 {
        rows += &format!("{}\t1\t2\tone is {}\tit was\n", i % 2, ["bad", "good"][i % 2]);
    }
    for split in ["train", "dev"] {
        let path = folder.path().join(format!("glue/MRPC/{split}.tsv"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &rows).unwrap();
    }
    folder
}

/// A server that answers everything with `answer`; gives its address and counts who came.
fn serve(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    (address, count)
}

const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fn aflora(place: &Path, address: &str, arguments: &[&str]) -> Output {
    command(place, address, arguments).forked()
}

fn command(place: &Path, address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aflora"));
    command.args(arguments).current_dir(place).env_remove("AFLORA_DATA");
    for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
    {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", address).env("HF_HOME", place.join("hf")).env("HF_TOKEN", TOKEN);
    command.env("AFLORA_LOG", "trace");
    command
}

fn run(place: &Path, address: &str, more: &[&str]) -> Output {
    let mut arguments =
        vec!["run", "configs/experiment.yaml", "task=mrpc", "device=cpu", "threads=1"];
    arguments.extend(["max_length=32", "epochs=4", "batch_size=16", "run_dir=out"]);
    arguments.extend(more);
    aflora(place, address, &arguments)
}

/// The bytes in hexadecimal dumps, which no search for text finds.
fn dumped(log: &[u8]) -> Vec<u8> {
    let log = String::from_utf8_lossy(log);
    let words = log.split_whitespace().filter(|word| word.len() % 2 == 0);
    let words = words.filter(|word| word.bytes().all(|b| b.is_ascii_hexdigit()));
    let digits: Vec<u8> = words.flat_map(str::bytes).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn a_token_in_a_hexadecimal_dump_is_seen() {
    let pairs =
        "TRACE 68 66 5f 54 68 69 73 49  hf_ThisI\nTRACE 73 41 53 65 63 72 65 74  sASecret\n\
                 TRACE 54 6f 6b 65 6e  Token\n";
    let fours = "TRACE 6865 6164 6865 6164 6572 6561 6572 7468  headheadereaerth\n\
                 TRACE 6866 5f54 6869 7349 7341 5365 6372 6574  hf_ThisIsASecret\n\
                 TRACE 546f 6b65 6e0d 0a-- ---- ---- ---- ----  Token..\n";
    for dump in [pairs, fours] {
        let bytes = dumped(dump.as_bytes());
        assert!(String::from_utf8_lossy(&bytes).contains(TOKEN), "{dump}");
    }
}

/// Nothing that was printed or written holds the token.
fn has_no_token(place: &Path, output: &Output) {
    let holds = |bytes: &[u8]| bytes.windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes());
    assert!(!holds(&output.stdout) && !holds(&output.stderr), "it was printed");
    assert!(!holds(&dumped(&output.stderr)), "it was dumped");
    let mut folders = vec![place.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert!(!holds(&fs::read(&path).unwrap()), "it is in {}", path.display());
            }
        }
    }
}

#[test]
fn a_token_is_in_nothing_that_is_printed_or_written() {
    let place = workplace();
    let (address, count) = serve(REFUSAL);
    // Refused: both the model and the data are asked for.
    for more in [&["model=deberta-v3-small", "data=."][..], &["model=minilm", "data=minilm/.."]] {
        let output = run(place.path(), &address, more);
        has_no_token(place.path(), &output);
        if count.load(Ordering::SeqCst) > 0 && !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(words.contains("HF_TOKEN"), "{words}");
        }
    }
    assert!(count.load(Ordering::SeqCst) > 0, "the hub was asked");
    // And in what a whole run leaves.
    assert!(place.path().join("out/provenance.json").is_file());
    assert!(place.path().join("out/events.jsonl").is_file());
}

#[test]
fn an_address_of_the_hub_that_is_none_is_told_without_its_password() {
    let place = workplace();
    for address in ["https://me:the secret@host", "me:the-secret@host", "https:/me:the secret@h"] {
        let output = run(place.path(), address, &["model=deberta-v3-small", "data=."]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains("HF_ENDPOINT is no address"), "{words}");
        assert!(!words.contains("secret"), "{words}");
    }
}

#[test]
fn a_proxy_is_asked_where_the_environment_names_one_and_its_password_is_not_shown() {
    let place = workplace();
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nConnection: close\r\n\r\n";
    let ((proxy, asked), (address, direct)) = (serve(answer), serve(REFUSAL));
    let named = proxy.replace("http://", "http://me:secret@");
    let arguments = ["inspect", "configs/experiment.yaml", "model=deberta-v3-small", "task=mrpc"];
    let inspect = |exempt: &str| {
        let mut command = command(place.path(), &address, &arguments);
        command.env("HTTP_PROXY", &named).env("NO_PROXY", exempt).output().unwrap()
    };
    let output = inspect("");
    let words = String::from_utf8_lossy(&output.stderr);
    let host = proxy.trim_start_matches("http://");
    assert!(words.contains(&format!("(by the proxy {host})")), "{words}");
    assert!(!words.contains("secret"), "{words}");
    let count = |of: &AtomicUsize| of.load(Ordering::SeqCst);
    assert_eq!((count(&asked), count(&direct)), (1, 0));
    inspect("127.0.0.1");
    assert_eq!((count(&asked), count(&direct)), (1, 1));
}

#[test]
fn with_data_and_model_at_hand_no_connection_is_made() {
    let place = workplace();
    let (address, count) = serve(REFUSAL);
    let output = run(place.path(), &address, &["model=minilm", "data=."]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = place.path().join("new.jsonl");
    fs::write(&file, "{\"text_a\": \"one is good\", \"text_b\": \"it was\"}\n").unwrap();
    let output = aflora(place.path(), &address, &["predict", "out", "new.jsonl", "--data", "."]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for arguments in [&["validate", "configs/experiment.yaml", "task=mrpc"][..], &["keys"], &["ls"]]
    {
        aflora(place.path(), &address, arguments);
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

fn refused(output: &Output, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(words), "missing: {words}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_model_block_leads_to_the_hub_and_nowhere_else() {
    let place = workplace();
    let (address, count) = serve(REFUSAL);
    for (key, value) in [
        ("revision", "../../../.."),
        ("revision", "/etc"),
        ("repo", "../../x"),
        ("repo", "owner/name?download=true#"),
        ("repo", "http://elsewhere/x"),
    ] {
        let setting = format!("model.{key}={value:?}");
        let output = run(place.path(), &address, &["model=deberta-v3-small", "data=.", &setting]);
        assert_eq!(output.status.code(), Some(2));
        refused(&output, &format!("`{key}` is"));
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[cfg(unix)]
#[test]
fn pipes_devices_and_folders_are_told_and_nothing_hangs() {
    let place = workplace();
    let made = Command::new("mkfifo").arg(place.path().join("pipe.yaml")).status().unwrap();
    assert!(made.success());
    for (file, words) in [
        ("pipe.yaml", "it is a pipe or device"),
        ("/dev/zero", "it is a pipe or device"),
        ("minilm", "it is a folder"),
    ] {
        refused(&aflora(place.path(), "http://127.0.0.1:9", &["validate", file]), words);
    }
    // Data and weights that are no files are not there.
    for file in ["glue/MRPC/train.tsv", "minilm/model.safetensors", "minilm/tokenizer.json"] {
        let place = workplace();
        let path = place.path().join(file);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let output = run(place.path(), "http://127.0.0.1:9", &["model=minilm", "data=."]);
        refused(&output, "error: ");
    }
}

/// `predict` reads from a pipe as it comes; a line without an end is one row too long.
#[test]
fn a_stream_without_lines_is_given_up() {
    let place = workplace();
    let address = "http://127.0.0.1:9";
    assert!(run(place.path(), address, &["model=minilm", "data=."]).status.success());
    for name in ["/dev/zero", "endless.csv"] {
        if name != "/dev/zero"
            && std::os::unix::fs::symlink("/dev/zero", place.path().join(name)).is_err()
        {
            continue;
        }
        let output = aflora(place.path(), address, &["predict", "out", name, "--data", "."]);
        refused(&output, "a row of more than");
    }
}
