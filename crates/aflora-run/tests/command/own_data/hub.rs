//! Data sets of the hub.

use super::{ok, reviews, task, RUN};
use crate::common::{command, refused, text, workplace, Forked};
use serde_json::Value;
use std::fs;

/// A hub of one data set, whose files are `files`: it answers until the test ends.
fn hub(files: Vec<(&'static str, String)>) -> String {
    use std::io::{BufRead, BufReader, Write};
    const COMMIT: &str = "1111111111111111111111111111111111111111";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("");
            let body = match path {
                "/api/datasets/owner/films/revision/main" => {
                    let names =
                        files.iter().map(|(name, _)| serde_json::json!({"rfilename": name}));
                    let siblings: Vec<Value> = names.collect();
                    Some(serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string())
                }
                path => {
                    let name =
                        path.strip_prefix(&format!("/datasets/owner/films/resolve/{COMMIT}/"));
                    let file = files.iter().find(|(file, _)| Some(*file) == name);
                    file.map(|(_, content)| content.clone())
                }
            };
            let (status, code, body) = match body {
                Some(body) => ("200 OK", String::new(), body),
                None => ("404 Not Found", "X-Error-Code: EntryNotFound\r\n".into(), String::new()),
            };
            let tag = format!("{:x}", body.len() as u64 * 7919 + 1);
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"{tag}\"\r\n\
                 {code}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_data_set_of_the_hub_is_trained_on_by_its_name() {
    let place = workplace();
    let readme = "---\nconfigs:\n- config_name: short\n  data_files:\n  - split: train\n    path: \
                  short/train-*\n  - split: validation\n    path: short/val.csv\n- config_name: long\n  \
                  data_files: long/*\ndataset_info:\n- config_name: short\n  features:\n  - name: stars\n    \
                  dtype:\n      class_label:\n        names:\n          '0': low\n          '1': mid\n          \
                  '2': high\n---\n# Films\n";
    let address = hub(vec![
        ("README.md", readme.to_string()),
        ("short/train-0.csv", reviews(["0", "1", "2"])),
        ("short/train-1.csv", reviews(["0", "1", "2"]).replace("film", "one")),
        ("short/val.csv", reviews(["0", "1", "2"]).replace("film", "it")),
    ]);
    let command = |offline: &str, more: &[&str]| {
        let mut command = command(place.path(), &[&RUN[..], more].concat());
        command.env("HF_ENDPOINT", &address).env("HF_HUB_OFFLINE", offline);
        command.forked()
    };
    let keys = ["train=hub:owner/films/short", "text=body", "label=stars"];
    let output = command("0", &keys);
    ok(&output);
    let told = text(&output.stderr);
    assert!(
        told.contains("train: 180 of 180 rows")
            && told.contains(" and 1 further file")
            && told.contains("dev: 90 of 90 rows"),
        "{told}"
    );
    assert!(told.contains("the classes have names: low, mid, high"), "{told}");
    let task = task(place.path());
    assert_eq!((&task["task"], &task["kind"]), (&"films".into(), &"classify".into()));
    assert_eq!(task["label_names"], serde_json::json!(["low", "mid", "high"]));
    assert!(task["dataset"]["sources"]["own"]["revision"].as_str().unwrap().starts_with("1111"));
    // From the cache, once it is there.
    fs::remove_dir_all(place.path().join("out")).unwrap();
    ok(&command("1", &keys));
    for (name, words) in [
        ("hub:owner/films", "name one of its configurations, behind a slash: short, long"),
        ("hub:owner/films/none", "it has no configuration `none`, but short, long"),
        ("hub:owner/films/short/none", "the data set has no split `none`, but train, validation"),
        ("hub:films", "`films` is no data set; write hub:owner/name"),
    ] {
        refused(&command("0", &[&format!("train={name}")]), 2, words);
    }
}
