//! The forms that files of rows may have: all are read alike, and what is none is told with its
//! place.

use aflora_run::config;
use aflora_run::feed::{Dataset, Locator};
use aflora_run::hub::Hub;
use aflora_run::metrics::Answer;
use aflora_run::task::Example;
use std::fs;
use std::io::Write;
use std::path::Path;

const KEYS: [&str; 3] = ["text=body", "label=stars", "kind=classify"];

/// The examples of a file of that name and content, or what is wrong.
fn load(files: &[(&str, Vec<u8>)], more: &[&str]) -> Result<Dataset<Example>, String> {
    let place = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for (name, content) in files {
        let path = place.path().join(name);
        fs::write(&path, content).unwrap();
        names.push(path.display().to_string());
    }
    let names = names.join(", ");
    let mut settings = vec![format!("train=[{names}]"), format!("dev=[{names}]")];
    settings.extend(KEYS.iter().chain(more).map(|setting| setting.to_string()));
    let plain = |text: String| text.replace(&format!("{}/", place.path().display()), "");
    let task = config::load_all(None, &settings).map_err(|e| plain(e.to_string()))?.task;
    let hub = Hub::at("http://127.0.0.1:1", place.path());
    let locator = Locator { named: Vec::new(), projects: vec![place.path().into()], hub };
    task.load(&locator, &mut |_, _| {}).map_err(|e| plain(e.to_string()))
}

/// All rows: their texts and classes, sorted.
fn rows(file: &str, content: impl AsRef<[u8]>, more: &[&str]) -> Result<Vec<String>, String> {
    let dataset = load(&[(file, content.as_ref().to_vec())], more)?;
    let row = |example: Example| {
        let Answer::Class(class) = example.right else { panic!("{:?}", example.right) };
        format!("{} -> {class}", example.texts.join(" | "))
    };
    let mut rows: Vec<String> = dataset.train.into_iter().map(row).collect();
    rows.sort();
    Ok(rows)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

const ROWS: [&str; 4] = ["a, b; \"c\"\nd -> 0", "film\t3 -> 1", "film 1 -> 0", "film 2 -> 1"];

const CSV: &str = "body,stars\n\"a, b; \"\"c\"\"\nd\",1\nfilm 1,1\nfilm 2,5\n\"film\t3\",5\n";

#[test]
fn every_form_of_the_same_rows_is_read_alike() {
    let objects =
        [r#"{"body": "a, b; \"c\"\nd", "stars": 1}"#, r#"{"body": "film 1", "stars": 1}"#]
            .into_iter()
            .chain([r#"{"stars": 5, "body": "film 2"}"#, r#"{"body": "film\t3", "stars": 5}"#]);
    let objects: Vec<&str> = objects.collect();
    let semicolons =
        "stars;body\r\n1;\"a, b; \"\"c\"\"\nd\"\r\n1;film 1\r\n5;film 2\r\n5;film\t3\r\n";
    for (file, content, more) in [
        ("a.csv", CSV.to_string(), None),
        ("a.CSV", format!("\u{feff}{CSV}"), None),
        ("a.csv", semicolons.to_string(), None),
        ("a.txt", semicolons.to_string(), Some("delimiter=;")),
        ("a.csv", CSV.replace(',', "|").replace("a|", "a,"), None),
        ("a.jsonl", objects.join("\n"), None),
        ("a.json", format!("[\n  {}\n]\n", objects.join(",\n  ")), None),
        ("a.json", format!("[{}]", objects.join(", ").replace(", \"", ",\n\"")), None),
    ] {
        let found = rows(file, &content, more.as_slice());
        assert_eq!(found.unwrap(), ROWS, "{file}: {content}");
    }
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    bzip2.write_all(CSV.as_bytes()).unwrap();
    assert_eq!(rows("a.csv.gz", gzip(CSV.as_bytes()), &[]).unwrap(), ROWS);
    assert_eq!(rows("a.csv.bz2", bzip2.finish().unwrap(), &[]).unwrap(), ROWS);
    // Files that were packed one after another.
    let (first, second) = CSV.split_at(30);
    let both = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    assert_eq!(rows("a.csv.gz", both, &[]).unwrap(), ROWS);
}

#[test]
fn tabs_are_cells_of_their_own_and_quotes_are_characters_unless_the_delimiter_is_said() {
    let tabs = "body\tstars\n\"a\"\t1\nb\t5\n";
    assert_eq!(rows("a.tsv", tabs, &[]).unwrap(), ["\"a\" -> 0", "b -> 1"]);
    for tab in ["delimiter=\"\\t\"", "delimiter=\\t", "delimiter=tab", "delimiter=\t"] {
        assert_eq!(rows("a.tsv", tabs, &[tab]).unwrap(), ["a -> 0", "b -> 1"], "{tab:?}");
    }
    let error = rows("a.tsv", tabs, &["delimiter=tabs"]).unwrap_err();
    assert!(error.contains("the text \"tabs\", but must be one character, or tab"), "{error}");
}

#[test]
fn a_delimiter_that_yaml_reads_otherwise_is_taken_as_it_stands() {
    for sign in ['|', '#', '-', '&', '*', '!', '%', '@', ':', '?', ' ', ',', ';', '~'] {
        let content = format!("body{sign}stars\na{sign}1\nb{sign}5\n");
        let typed = match sign {
            // YAML's null.
            '~' => "delimiter='~'".to_string(),
            sign => format!("delimiter={sign}"),
        };
        let found = rows("a.csv", content, &[&typed]);
        assert_eq!(found.unwrap(), ["a -> 0", "b -> 1"], "{sign}");
    }
}

#[test]
fn several_files_are_one_split_whatever_their_forms() {
    let jsonl = br#"{"body": "c", "stars": 9}"#.to_vec();
    let files = [("a.csv", b"body,stars\na,1\nb,1\n".to_vec()), ("b.jsonl", jsonl)];
    let dataset = load(&files, &[]).unwrap();
    let files = dataset.files.iter().filter(|file| file.split == "train").count();
    assert_eq!((dataset.train.len(), files), (3, 2));
}

#[test]
fn parquet_columns_of_any_plain_type_are_read() {
    let fixture = "tests/fixtures/hub/mrpc/train-00000-of-00001.parquet";
    let content = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture)).unwrap();
    let columns = ["text=[sentence1, sentence2]", "label=label"];
    assert_eq!(
        rows("a.parquet", content, &columns).unwrap(),
        ["a train | b -> 1", "q\"uote | ü -> 0"]
    );
}

#[test]
fn parquet_is_read_however_it_is_packed_and_whatever_the_letters_of_its_ending() {
    let forms = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/forms");
    for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"] {
        let content = fs::read(forms.join(format!("{codec}.parquet"))).unwrap();
        for file in ["a.parquet", "a.PARQUET"] {
            let found = rows(file, &content, &[]).unwrap_or_else(|e| panic!("{codec}: {e}"));
            assert_eq!(found.len(), 40, "{codec}");
            assert!(found.contains(&"film 1 -> 1".to_string()), "{codec}: {found:?}");
        }
    }
}

#[test]
fn dates_times_and_decimals_of_parquet_are_texts_and_no_lists() {
    let file = "tests/fixtures/forms/times.parquet";
    let content = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    for (label, values) in
        [("on", ["2024-05-17", "2024-05-18"]), ("at", ["2024-05-17 12:30", "2024-05-18 12:30"])]
    {
        let found = rows("a.parquet", &content, &["text=body", &format!("label={label}")]).unwrap();
        assert!(found.contains(&"film 1 -> 1".to_string()), "{values:?}: {found:?}");
        let named = ["text=body", &format!("label={label}"), "labels=[x, y]"];
        let error = rows("a.parquet", &content, &named).unwrap_err();
        assert!(error.contains(values[0]), "{error}");
    }
}

#[test]
fn what_is_none_of_these_forms_is_told_with_its_place() {
    let utf16: Vec<u8> = CSV.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (file, content, words) in [
        (
            "a.csv",
            b"body,stars\nf\xe9e,1\n".to_vec(),
            "a.csv, line 2: not UTF-8 text: the byte 0xe9 at character 2",
        ),
        (
            "a.csv",
            [b"\xff\xfe".to_vec(), utf16.clone()].concat(),
            "line 1: not UTF-8 text; it is UTF-16",
        ),
        ("a.csv", utf16, "line 1: it holds zero bytes; is it UTF-16?"),
        (
            "a.json",
            b"[{\"body\": \"a\", \"stars\": 1}\n{\"body\"".to_vec(),
            "line 2: no comma behind an object",
        ),
        ("a.json", b"[{\"body\": \"a\", \"stars\": 1}\n".to_vec(), "the array has no end"),
        (
            "a.json",
            b"[{\"body\": \"a\", \"stars\": 1},\n{\"body\": \"b".to_vec(),
            "line 2: an object begins here and never ends",
        ),
        ("a.json", b"[1, 2]".to_vec(), "line 1: the array holds something other than objects"),
        (
            "a.json",
            b"[\n{\"body\": \"a\",\n\"stars\" 1}]".to_vec(),
            "line 3: no JSON object, column 9",
        ),
        ("a.json", b"{\"data\": [1]}".to_vec(), "a.json has no column `body`"),
        ("a.csv.gz", CSV.into(), "a.csv.gz, line 1: "),
        ("a.csv", b"body,stars\na\n".to_vec(), "line 2: 1 columns, but the first line has 2"),
        ("a.csv", b"".to_vec(), "there are no examples in it"),
        ("a.csv", b"body,stars\n".to_vec(), "there are no examples in it"),
    ] {
        let error = rows(file, content, &[]).unwrap_err();
        assert!(error.contains(words), "missing: {words}\n--- in:\n{error}");
    }
}
