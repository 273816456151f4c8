//! What `aflora predict` does with people's files: their forms, their own columns, their habits.

use crate::common::{self, aflora, command, refused, run, text, workplace};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A workplace with a small finished run in `out`.
fn finished() -> TempDir {
    let place = workplace();
    let output = run(place.path(), &["task=mrpc", "run_dir=out"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    place
}

/// As lines of JSON, whatever the form of the input.
fn predict(place: &Path, name: &str, content: &[u8], more: &[&str]) -> Output {
    predict_as(place, name, content, &[&["--output-format", "jsonl"], more].concat())
}

fn predict_as(place: &Path, name: &str, content: &[u8], more: &[&str]) -> Output {
    fs::write(place.join(name), content).unwrap();
    aflora(place, &[&["predict", "out", name, "--data", "."], more].concat())
}

/// The lines of a prediction that must succeed.
fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(String::from).collect()
}

#[test]
fn a_row_keeps_its_own_columns_and_every_digit() {
    let place = finished();
    let row = "{\"id\": 12345678901234567890123, \"x\": 0.1000000000000000000001, \"label\": \
               \"mine\", \"scores\": [1.50], \"text_a\": \"one is good\", \"text_b\": \"it was\"}\n";
    let found = &lines(&predict(place.path(), "own.jsonl", row.as_bytes(), &[]))[0];
    for part in [
        "\"id\":12345678901234567890123,",
        "\"x\":0.1000000000000000000001,",
        "\"label\":\"mine\",",
        "\"scores\":[1.50],",
        "\"predicted_label\":\"",
        "\"predicted_scores\":{\"not_equivalent\":0.",
    ] {
        assert!(found.contains(part), "{part} is missing in {found}");
    }
    let table = "label,text_a,text_b,n\nmine,one is good,it was,1.50\n";
    let found = &lines(&predict(place.path(), "own.csv", table.as_bytes(), &[]))[0];
    for part in ["{\"label\":\"mine\",", "\"n\":\"1.50\",", "\"predicted_label\":"] {
        assert!(found.contains(part), "{part} is missing in {found}");
    }
}

/// A late `label` ended the file, and so did the output of a prediction with labels.
#[test]
fn a_late_label_and_the_output_of_a_prediction_are_rows_like_others() {
    let place = finished();
    let mixed = "{\"text_a\": \"a\", \"text_b\": \"b\"}\n\
                 {\"text_a\": \"a\", \"text_b\": \"b\", \"label\": 1, \"x\": NaN}\n\
                 {\"text_a\": \"a\", \"text_b\": \"b\"}\n";
    let output = predict(place.path(), "mixed.jsonl", mixed.as_bytes(), &[]);
    let found = lines(&output);
    assert!(found[1].contains("\"label\":1,\"x\":null,\"predicted_label\":\""), "{}", found[1]);
    assert!(found[1].contains("\"predicted_scores\":{"), "{}", found[1]);
    assert!(found[0].contains("\"b\",\"label\":\"") && found[0] == found[2], "{}", found[2]);
    let told = text(&output.stderr);
    assert!(
        told.contains("1 row has a name itself that the answers have") && told.contains("line 2")
    );

    // Back in, again and again.
    let mut rows = found[0].clone() + "\n";
    for named in ["predicted_label", "predicted_label_2", "predicted_label_3"] {
        let output = predict(place.path(), "again.jsonl", rows.as_bytes(), &[]);
        let found = lines(&output);
        let start = rows.strip_suffix("}\n").unwrap();
        assert!(found[0].starts_with(&format!("{start},\"{named}\":\"")), "{}", found[0]);
        rows = found[0].clone() + "\n";
    }
}

#[test]
fn files_that_training_takes_are_taken_whatever_their_letters_marks_and_line_ends() {
    let place = finished();
    let dev = fs::read_to_string(place.path().join("glue/MRPC/dev.tsv")).unwrap();
    let rows = dev.lines().count() - 1;
    let marked = format!("\u{feff}{}", dev.replace('\n', "\r\n"));
    let expected = lines(&predict(place.path(), "dev.tsv", dev.as_bytes(), &[]));
    assert_eq!(expected.len(), rows);
    assert!(expected[0].contains("\"#2 String\":\"it was very good\""), "{}", expected[0]);
    let found = lines(&predict(place.path(), "MARKED.TSV", marked.as_bytes(), &[]));
    assert_eq!(found, expected);
    let table = "\u{feff}#1 String,#2 String\r\n\"one, \"\"two\"\"\",b\r\n";
    let found = lines(&predict(place.path(), "new.CSV", table.as_bytes(), &[]));
    assert!(
        found[0].starts_with("{\"#1 String\":\"one, \\\"two\\\"\",\"#2 String\":\"b\",\"label\"")
    );
    // Quotes in a .tsv file are characters, as in GLUE's.
    let quoted = "text_a\ttext_b\n\"a\tb\n";
    let found = lines(&predict(place.path(), "quotes.tsv", quoted.as_bytes(), &[]));
    assert!(found[0].contains("\"text_a\":\"\\\"a\""), "{}", found[0]);
}

#[test]
fn a_broken_row_is_told_by_its_line_with_either_line_end() {
    let place = finished();
    for end in ["\n", "\r\n"] {
        let table = ["text_a,text_b", "1,2", "\"3", "3\",4", "5", ""].join(end);
        let output = predict(place.path(), "bad.csv", table.as_bytes(), &[]);
        refused(&output, 1, "bad.csv, line 5: 1 columns, but the first line has 2");
        let rows = ["{\"text_a\": \"a\", \"text_b\": \"b\"}", "{\"text_a\": 5}", ""].join(end);
        let output = predict(place.path(), "bad.jsonl", rows.as_bytes(), &["--output", "never"]);
        refused(&output, 1, "error: bad.jsonl, line 2: `text_a` is 5, but must be a text\n");
    }
    assert!(!place.path().join("never").exists());
}

#[test]
fn texts_that_are_cut_or_empty_are_told_by_their_lines() {
    let place = finished();
    let long = "good ".repeat(100);
    let table = format!("text_a,text_b\na,b\n{long},b\n\" \",b\na,\n");
    let output = predict(place.path(), "new.csv", table.as_bytes(), &[]);
    assert_eq!(lines(&output).len(), 4);
    let told = text(&output.stderr);
    assert!(told.contains("2 texts are empty: lines 4, 5"), "{told}");
    assert!(told.contains("1 text is longer than the model reads here, and cut: line 3"), "{told}");
}

/// What `predict -` makes of its standard input.
fn from_stdin(place: &Path, content: &str, more: &[&str]) -> Output {
    let mut child = command(place, &[&["predict", "out", "-", "--data", "."], more].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn standard_input_is_read_in_the_form_that_is_named() {
    let place = finished();
    let row = "{\"text_a\": \"a\", \"text_b\": \"b\"}\n";
    assert_eq!(lines(&from_stdin(place.path(), row, &[])).len(), 1);
    let table = "text_a\ttext_b\na\tb\nc\td\n";
    assert_eq!(lines(&from_stdin(place.path(), table, &["--format", "tsv"])).len(), 2);
    refused(&from_stdin(place.path(), "oops\n", &[]), 1, "standard input, line 1: no JSON object");
}

#[test]
fn a_packed_file_is_read_as_its_unpacked_one() {
    let place = finished();
    let rows = b"text_a,text_b\na,b\nc,d\n";
    let plain = predict(place.path(), "new.csv", rows, &[]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, rows).unwrap();
    let packed = predict(place.path(), "new.csv.gz", &packed.finish().unwrap(), &[]);
    assert_eq!(lines(&packed), lines(&plain));
    assert!(!lines(&packed).is_empty());
    let damaged = predict(place.path(), "new.csv.gz", b"no archive", &[]);
    refused(&damaged, 1, "new.csv.gz, line 1: ");
}

#[test]
fn a_parquet_file_is_predicted_and_judged_as_its_rows_are() {
    let place = finished();
    let table = common::root()
        .join("crates/aflora-run/tests/fixtures/hub/mrpc/train-00000-of-00001.parquet");
    let rows = "{\"sentence1\": \"a train\", \"sentence2\": \"b\", \"label\": 1, \"idx\": 0}\n\
                {\"sentence1\": \"q\\\"uote\", \"sentence2\": \"ü\", \"label\": 0, \"idx\": 1}\n";
    let expected = predict(place.path(), "new.jsonl", rows.as_bytes(), &[]);
    let found = predict(place.path(), "new.parquet", &fs::read(table).unwrap(), &[]);
    assert_eq!((lines(&found), lines(&found).len()), (lines(&expected), 2));
    let judged =
        |name: &str| lines(&aflora(place.path(), &["evaluate", "out", name, "--data", "."]));
    assert_eq!(judged("new.parquet"), judged("new.jsonl"));
    refused(&predict(place.path(), "new.parquet", b"PAR1", &[]), 1, "not a readable parquet file");
}

#[test]
fn an_output_whose_name_says_that_it_is_packed_is_packed() {
    let place = finished();
    let rows = b"text_a,text_b\na,b\nc,d\n";
    for (name, plain) in [("o.csv.gz", "o.csv"), ("o.jsonl.GZ", "o.jsonl")] {
        for output in [name, plain] {
            lines(&predict_as(place.path(), "new.csv", rows, &["--output", output]));
        }
        let packed = fs::File::open(place.path().join(name)).unwrap();
        let mut found = String::new();
        let mut unpacked = flate2::read::MultiGzDecoder::new(packed);
        std::io::Read::read_to_string(&mut unpacked, &mut found).unwrap();
        assert_eq!(found, fs::read_to_string(place.path().join(plain)).unwrap(), "{name}");
    }
}

#[test]
fn what_is_wrong_with_the_call_ends_with_2_and_with_the_rows_with_1() {
    let place = finished();
    for (arguments, words) in [
        (&["nowhere.csv"][..], "nowhere.csv: there is no such file"),
        (&["out"], "out is a folder"),
        (&["new.parquet"], "new.parquet: there is no such file"),
        (&["new.csv", "--output", "o.parquet"], ".parquet is not written here"),
        (&["new.csv", "--output", "o.csv.bz2"], ".bz2 is not written here"),
        (&["new.csv", "--format", "xls"], "it must be csv, tsv, jsonl, lines or conll"),
        (&["new.csv", "--batch-size", "0"], "--batch-size is 0"),
        (&["new.csv", "--top-k", "0"], "--top-k is 0"),
        (&["new.csv", "--device", "gpu"], "`gpu` is no device"),
        (
            &["new.csv", "--precision", "fp4"],
            "[possible values: auto, fp32, tf32, bf16, nf4, nf4_nested, int8, int8_dynamic, fp8]",
        ),
    ] {
        fs::write(place.path().join("new.csv"), "text_a,text_b\na,b\n").unwrap();
        let all = [&["predict", "out", "--data", "."], arguments].concat();
        refused(&aflora(place.path(), &all), 2, words);
    }
    let output = predict(place.path(), "keys.csv", b"text\nx\n", &[]);
    refused(&output, 1, "keys.csv, line 2: the row has [\"text\"]; `mrpc` wants `#1 String` and");
    refused(&predict(place.path(), "empty.csv", b"", &[]), 1, "there are no examples in it");
}

#[test]
fn an_output_that_is_a_device_a_pipe_or_a_link_stays_one() {
    let place = finished();
    let rows = b"text_a,text_b\na,b\n";
    let is_file = |name: &str| fs::symlink_metadata(place.path().join(name)).unwrap().is_file();
    // A link is written through; what it leads to is replaced whole.
    fs::write(place.path().join("judged.jsonl"), "old").unwrap();
    std::os::unix::fs::symlink("judged.jsonl", place.path().join("link")).unwrap();
    lines(&predict(place.path(), "new.csv", rows, &["--output", "link"]));
    assert!(!is_file("link"));
    let judged = || fs::read_to_string(place.path().join("judged.jsonl")).unwrap();
    assert!(judged().contains("\"label\""));
    let before = judged();
    let broken = predict(place.path(), "bad.csv", b"text_a,text_b\na\n", &["--output", "link"]);
    refused(&broken, 1, "error: bad.csv, line 2");
    assert_eq!(judged(), before);
    // A device, also by way of a link.
    std::os::unix::fs::symlink("/dev/null", place.path().join("device")).unwrap();
    for device in ["/dev/null", "device"] {
        lines(&predict(place.path(), "new.csv", rows, &["--output", device]));
        assert!(!fs::metadata("/dev/null").unwrap().is_file(), "{device}");
    }
    let output = predict(place.path(), "new.csv", rows, &["--output", "/dev/stdout"]);
    assert!(lines(&output)[0].contains("\"label\""));
    // A pipe.
    assert!(Command::new("mkfifo").arg(place.path().join("pipe")).status().unwrap().success());
    let pipe = place.path().join("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    lines(&predict(place.path(), "new.csv", rows, &["--output", "pipe"]));
    assert!(reader.join().unwrap().contains("\"label\""));
    assert!(!is_file("pipe"));

    // Commands that write folders make new ones, and leave what stands there.
    for (arguments, words) in [
        (&["merge", "out", "device", "--data", "."][..], "device exists already"),
        (&["export", "out", "pipe", "--data", "."], "pipe exists already"),
        (&["merge", "out", "dangling", "--data", "."], "dangling exists already"),
    ] {
        let _ = std::os::unix::fs::symlink("nowhere", place.path().join("dangling"));
        refused(&aflora(place.path(), arguments), 2, words);
    }
    refused(&run(place.path(), &["task=mrpc", "run_dir=device"]), 2, "device cannot be made");
    let results = common::root().join("experiments/results").display().to_string();
    let report = aflora(place.path(), &["report", &results, "--out", "device"]);
    refused(&report, 2, "device cannot be made");
    assert!(!is_file("device") && !is_file("pipe") && !is_file("dangling"));
    assert!(!place.path().join("nowhere").exists());
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_anything_is_done() {
    let place = workplace();
    fs::write(place.path().join("file"), "").unwrap();
    let experiment = common::root().join("experiments/table4.yaml").display().to_string();
    let results = common::root().join("experiments/results").display().to_string();
    // There is no such run: nobody looks for it.
    for (arguments, words) in [
        (
            &["predict", "none", "new.csv", "--output", "new/"][..],
            "new/ cannot be written: it ends",
        ),
        (
            &["predict", "none", "new.csv", "--output", "glue"],
            "glue cannot be written: it is a folder",
        ),
        (
            &["predict", "none", "new.csv", "--output", "none/new"],
            "none/new cannot be written: No such",
        ),
        (&["merge", "none", "file/new"], "the folder file/new cannot be made"),
        (&["export", "none", "/proc/new"], "the folder /proc/new cannot be made"),
        (&["report", &results, "--out", "file"], "the folder file cannot be made"),
        (
            &["experiment", &experiment, "--out", "file/new"],
            "the folder of results file/new cannot",
        ),
        (&["experiment", &experiment, "--runs", "file/new"], "the folder of runs "),
    ] {
        refused(&aflora(place.path(), arguments), 2, words);
    }
    assert!(!place.path().join("new").exists());
}

#[test]
fn a_file_that_cannot_be_replaced_is_written_where_it_stands() {
    let place = finished();
    // Mounts of our own: one file in a folder that is mounted for reading alone, and one that is
    // mounted itself, so that another cannot take its name.
    let script = "set -e
        mkdir sealed; : > sealed/file; : > file
        mount --bind sealed sealed; mount -o remount,bind,ro sealed
        mount --bind inner sealed/file; mount --bind outer file
        for output in sealed/file file; do
            \"$0\" predict out new.csv --data . --output $output --output-format jsonl
        done";
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]).current_dir(place.path());
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no mounts of our own can be made here");
    }
    let old = "old ".repeat(1000);
    for name in ["inner", "outer"] {
        fs::write(place.path().join(name), &old).unwrap();
    }
    fs::write(place.path().join("new.csv"), "text_a,text_b\na,b\n").unwrap();
    let mut command = unshare();
    command.args(["sh", "-c", script, env!("CARGO_BIN_EXE_aflora")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in ["inner", "outer"] {
        let written = fs::read_to_string(place.path().join(name)).unwrap();
        assert!(
            written.starts_with("{\"text_a\":\"a\"") && written.lines().count() == 1,
            "{written}"
        );
    }
}

#[test]
fn an_output_called_as_standard_output_goes_there() {
    let place = finished();
    fs::write(place.path().join("new.csv"), "text_a,text_b\na,b\n").unwrap();
    let log = place.path().join("log");
    fs::write(&log, "before\n").unwrap();
    for name in ["-", "/dev/stdout"] {
        let append = fs::File::options().append(true).open(&log).unwrap();
        let arguments = [
            "predict",
            "out",
            "new.csv",
            "--data",
            ".",
            "--output",
            name,
            "--output-format",
            "jsonl",
        ];
        let status = command(place.path(), &arguments).stdout(append).status().unwrap();
        assert!(status.success());
    }
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.starts_with("before\n{") && log.lines().count() == 3, "{log}");
    assert!(!place.path().join("-").exists());
}

/// Each was told to be missing.
#[test]
fn what_stands_in_the_place_of_a_run_s_file_is_told() {
    let place = workplace();
    let path = |name: &str| place.path().join("out").join(name);
    fs::create_dir_all(path("config.yaml")).unwrap();
    refused(&run(place.path(), &["task=mrpc", "run_dir=out"]), 2, "config.yaml: it is a folder");
    refused(&aflora(place.path(), &["watch", "out"]), 2, "config.yaml: it is a folder");
    let predict = || aflora(place.path(), &["predict", "out", "new.csv"]);
    refused(&predict(), 2, "out is no finished run: it holds no metrics.json");
    fs::create_dir(path("metrics.json")).unwrap();
    refused(&predict(), 2, "out/metrics.json: it is a folder, not a file");
    fs::remove_dir(path("metrics.json")).unwrap();
    assert!(Command::new("mkfifo").arg(path("metrics.json")).status().unwrap().success());
    refused(&predict(), 2, "out/metrics.json: it is a pipe or device, no file");
}

#[test]
fn a_csv_file_comes_back_as_one_and_an_output_in_the_form_of_its_name() {
    let place = finished();
    let table = "text_a,id,text_b\n\"one, \"\"is\"\" good\",007,\"it\nwas\"\n";
    let output = predict_as(place.path(), "new.csv", table.as_bytes(), &[]);
    let found = lines(&output).join("\n");
    let head = "text_a,id,text_b,label,scores\n\"one, \"\"is\"\" good\",007,\"it\nwas\",";
    assert!(found.starts_with(head), "{found}");
    assert!(found.contains("equivalent,\"{\"\"not_equivalent\"\":0."), "{found}");
    // What was written is read again.
    let again = predict_as(place.path(), "again.csv", format!("{found}\n").as_bytes(), &[]);
    let again = lines(&again).join("\n");
    assert!(again.starts_with("text_a,id,text_b,label,scores,predicted_label,predicted_scores\n"));

    let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
    let rows =
        "{\"text_a\": \"a\", \"n\": 1.50, \"text_b\": \"b\", \"x\": [1, null], \"y\": null}\n";
    for (name, start) in [
        ("out.jsonl", "{\"text_a\":\"a\",\"n\":1.50,"),
        ("out.csv", "text_a,n,text_b,x,y,label,scores\na,1.50,b,\"[1, null]\",,"),
        ("out.TSV", "text_a\tn\ttext_b\tx\ty\tlabel\tscores\na\t1.50\tb\t[1, null]\t\t"),
        ("out.txt", "{\"text_a\":\"a\",\"n\":1.50,"),
    ] {
        lines(&predict_as(place.path(), "in.jsonl", rows.as_bytes(), &["--output", name]));
        assert!(read(name).starts_with(start), "{name}: {}", read(name));
    }
    // What a table has no place for is told.
    let other = format!("{rows}{{\"text_a\": \"a\", \"text_b\": \"b\", \"z\": 1}}\n");
    let refuse = |rows: &str, name: &str, words: &str| {
        let output = predict_as(place.path(), "in.jsonl", rows.as_bytes(), &["--output", name]);
        refused(&output, 2, words);
    };
    refuse(&other, "new.csv", "line 2: the first row has no `z`");
    let tab = "{\"text_a\": \"a\\tb\", \"text_b\": \"b\"}\n";
    refuse(tab, "new.tsv", "line 1: a tab or an end of line in a cell, which no .tsv file holds");
}

#[test]
fn the_likeliest_classes_come_first_and_no_more_than_were_asked_for() {
    let place = finished();
    let row = "{\"text_a\": \"one is good\", \"text_b\": \"it was\"}\n";
    let scores = |more: &[&str]| {
        let found = &lines(&predict(place.path(), "new.jsonl", row.as_bytes(), more))[0];
        let found: serde_json::Value = serde_json::from_str(found).unwrap();
        (found["label"].clone(), found["scores"].as_object().unwrap().clone())
    };
    let (label, all) = scores(&[]);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["not_equivalent", "equivalent"]);
    let (_, two) = scores(&["--top-k", "2"]);
    assert_eq!(two.keys().next().unwrap(), label.as_str().unwrap());
    assert_eq!((two.len(), &two["equivalent"]), (2, &all["equivalent"]));
    let (_, one) = scores(&["--top-k", "1"]);
    assert_eq!(one.keys().collect::<Vec<_>>(), [label.as_str().unwrap()]);
}

#[test]
fn the_input_is_never_written_over() {
    let place = finished();
    let rows = b"text_a,text_b\na,b\n";
    std::os::unix::fs::symlink("new.csv", place.path().join("link")).unwrap();
    for name in ["new.csv", "./new.csv", "link"] {
        let output = predict_as(place.path(), "new.csv", rows, &["--output", name]);
        refused(&output, 2, "is the input; name another file to write to");
    }
    let run = |append: bool| {
        let file =
            fs::File::options().append(append).write(true).open(place.path().join("new.csv"));
        let arguments = ["predict", "out", "new.csv", "--data", "."];
        command(place.path(), &arguments).stdout(file.unwrap()).output().unwrap()
    };
    refused(&run(true), 2, "standard output is the input");
    assert_eq!(fs::read(place.path().join("new.csv")).unwrap(), rows);
    let stdin = fs::File::open(place.path().join("new.csv")).unwrap();
    let arguments =
        ["predict", "out", "-", "--format", "csv", "--data", ".", "--output", "new.csv"];
    refused(&command(place.path(), &arguments).stdin(stdin).output().unwrap(), 2, "is the input");
    assert_eq!(fs::read(place.path().join("new.csv")).unwrap(), rows);
}

/// The rows of a stream waited for the 1,023 that should follow.
#[test]
fn a_row_of_a_stream_is_answered_before_the_next_comes() {
    use std::io::{BufRead, BufReader};
    let place = finished();
    let mut child = command(place.path(), &["predict", "out", "-", "--data", "."])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());
    for text in ["a", "b", "c"] {
        writeln!(to, "{{\"text_a\": \"{text}\", \"text_b\": \"it was\"}}").unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("{{\"text_a\":\"{text}\",")), "{line}");
    }
    drop(to);
    assert!(child.wait().unwrap().success());
}
