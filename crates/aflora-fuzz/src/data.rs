//! Files of examples.

use crate::files;
use aflora_run::config;
use aflora_run::discover;
use aflora_run::feed::bounded::Bounded;
use aflora_run::feed::read::{classes, read};
use aflora_run::feed::row::Row;
use aflora_run::feed::source::HoldOut;
use aflora_run::feed::table::{Format, TableReader};
use aflora_run::feed::Source;
use aflora_run::metrics::Answer;
use aflora_run::task::conversation::{columns_of, Conversation};
use aflora_run::task::{Kind, TaskSpec};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Tasks with files of every form; seeds name them by their place here.
const TASKS: [&str; 6] = ["mrpc", "cola", "stsb", "qqp", "reviews", "lines"];

fn tasks() -> &'static [Arc<TaskSpec>] {
    static LOADED: OnceLock<Vec<Arc<TaskSpec>>> = OnceLock::new();
    LOADED.get_or_init(|| {
        let run_file = files::project().join("configs/experiment.yaml");
        let load =
            |name: &&str| Some(config::load(&run_file, &[format!("task={name}")]).ok()?.task);
        TASKS.iter().filter_map(load).collect()
    })
}

/// A byte that chooses the task, then the file.
fn task(bytes: &[u8]) -> Option<(&'static TaskSpec, &[u8])> {
    let (&first, file) = bytes.split_first()?;
    Some((&tasks()[usize::from(first) % TASKS.len()], file))
}

fn seeds(files: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    let number = |name: &str| TASKS.iter().position(|task| *task == name).unwrap_or_default();
    files.iter().map(|(name, bytes)| [vec![number(name) as u8], bytes.clone()].concat()).collect()
}

/// Reads a file by every form in which a task's rows are published.
fn examples(task: &TaskSpec, path: &Path) {
    for (_, source) in task.dataset.sources.iter() {
        by(task, source, path);
    }
}

fn by(task: &TaskSpec, source: &Source, path: &Path) {
    match read(path, source, |row| task.example(row, source)) {
        Ok(part) => {
            assert!(!part.rows.is_empty());
            let all = part.rows.iter().chain(&part.held_out);
            let sane = |right: &Answer| match right {
                Answer::Class(class) => (0..task.labels.len() as i64).contains(class),
                Answer::Score(score) => score.is_finite(),
                Answer::Set(set) => set.len() == task.labels.len(),
                Answer::Scores(scores) => scores.iter().all(|score| score.is_finite()),
                Answer::Tags(_) | Answer::Text(_) => true,
            };
            assert!(all.into_iter().all(|example| sane(&example.right)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What rows of the user's own ask for: what is found holds the rows' labels.
fn own(path: &Path) {
    let files = [path.to_path_buf()];
    for label in [&[][..], &["label".to_string(), "text".to_string()]] {
        let named = discover::Columns { text: &[], label };
        match discover::look(&Source::default(), &files, named, None) {
            Ok(look) => assert!(look.kind.is_none_or(|(_, why)| !why.is_empty())),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let roles = [["text", "label"], ["text", "label"], ["text", "label"], ["tokens", "tags"]];
    let kinds = [None, Some(Kind::Classify), Some(Kind::Multilabel), Some(Kind::Tokens)];
    for (roles, kind) in roles.into_iter().zip(kinds) {
        let columns = roles.map(|role| (role.to_string(), role.to_string())).into();
        let within = Some(roles[1].into()).filter(|_| kind != Some(Kind::Tokens));
        let hold_out = HoldOut { percent: 20, within, ..HoldOut::default() };
        let source = Source { columns, hold_out, ..Source::default() };
        match discover::labels(&source, &files, kind, ',') {
            Ok(found) => assert!(found.labels.is_none_or(|labels| !labels.is_empty())),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A row as a conversation: one that is read is the same when it was a text.
fn conversation(row: &Row) {
    let found = columns_of(row).unwrap_or_default().into_iter();
    let columns = found.map(|(role, name)| (role.to_string(), name.to_string())).collect();
    for source in [Source { columns, ..Source::default() }, Source::default()] {
        match Conversation::of(row, &source) {
            Ok(Some(read)) => {
                assert!(!read.messages.is_empty());
                assert!(read.messages.iter().all(|message| message["role"].is_string()));
                assert_eq!(Conversation::from_text(&read.to_text()).ok().as_ref(), Some(&read));
                assert!(read.asked(true).len() <= read.messages.len());
                let _ = (read.answer(), read.place());
            }
            Ok(None) => {}
            Err(problem) => assert!(!problem.is_empty()),
        }
    }
}

/// The rows as `predict` reads them: each has a line of its own, and its values are JSON.
fn rows(bytes: &[u8], format: Format) {
    let is_header = |cells: &[String]| cells.len() != 3;
    let Ok(mut table) = TableReader::new(Bounded::new(bytes), Path::new("rows"), format, is_header)
    else {
        return;
    };
    let mut last = 0;
    while let Ok(Some(row)) = table.read() {
        assert!(row.line > last);
        last = row.line;
        for (name, cell) in row.cells() {
            let _ = (row.find(name), row.list(name, ' '));
            assert!(!serde_json::to_string(cell).unwrap_or_default().is_empty());
        }
        conversation(&row);
    }
}

pub fn tsv(bytes: &[u8]) {
    let Some((spec, file)) = task(bytes) else { return };
    rows(file, Format::Tsv);
    let folder = files::folder("tsv", &[("train.tsv", file)]);
    examples(spec, &folder.join("train.tsv"));
}

pub fn tsv_seeds() -> Vec<Vec<u8>> {
    seeds(&[
        ("mrpc", "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\ta\tb\n".into()),
        ("cola", b"gj04\t1\t\tWe sail.\ngj04\t0\t*\tSail we.\r\n".to_vec()),
        ("stsb", b"sentence1\tsentence2\tscore\na\tb\t2.5\n".to_vec()),
        (
            "qqp",
            b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t0\n1\t2\ta\n"
                .to_vec(),
        ),
    ])
}

pub fn parquet(bytes: &[u8]) {
    let Some((spec, file)) = task(bytes) else { return };
    let folder = files::folder("parquet", &[("train.parquet", file)]);
    let path = folder.join("train.parquet");
    for (_, names) in classes(&path).unwrap_or_default() {
        assert!(names.len() <= file.len());
    }
    examples(spec, &path);
}

pub fn parquet_seeds() -> Vec<Vec<u8>> {
    let file = |name: &str| {
        files::own(&format!("aflora-run/tests/fixtures/hub/{name}-00000-of-00001.parquet"))
    };
    let packed =
        |codec: &str| files::own(&format!("aflora-run/tests/fixtures/forms/{codec}.parquet"));
    seeds(&[
        ("mrpc", file("mrpc/train")),
        ("mrpc", file("mrpc/validation")),
        ("mrpc", packed("classes")),
        ("mrpc", packed("brotli")),
        ("mrpc", packed("gzip")),
        ("mrpc", packed("lz4")),
        ("mrpc", packed("zstd")),
    ])
}

pub fn csv(bytes: &[u8]) {
    rows(bytes, Format::Csv);
    let name = match bytes {
        [b'B', b'Z', b'h', ..] => "reviews.csv.bz2",
        [0x1f, 0x8b, ..] => "reviews.csv.gz",
        _ => "reviews.csv",
    };
    let folder = files::folder("csv", &[(name, bytes)]);
    tasks().iter().for_each(|task| examples(task, &folder.join(name)));
    own(&folder.join(name));
}

pub fn csv_seeds() -> Vec<Vec<u8>> {
    let mut text = "category,text,movie_name,has_plot_and_reviews\n".to_string();
    for film in 0..20 {
        text +=
            &format!("plot,story {film},film{film},True\nfresh,\"good, {film}\",film{film},True\n");
    }
    let semicolons = "label;text\n1.0;\"a; b\"\n2.0;c\n1;d\n2;e\n";
    // The same, packed.
    let packed =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xcb\x49\x4c\x4a\xcd\xb1\x2e\x49\xad\x28\xe1\x32\
        \xd4\x33\xb0\x56\x4a\xb4\x56\x48\x52\xe2\x32\x02\x32\x93\xb9\x0c\xad\x53\xb8\x8c\xac\x53\
        \xb9\x00\x6d\x52\x27\x37\x24\x00\x00\x00";
    let quoted = b"a,b\r\n\"x, \"\"y\"\"\r\nz\",\"\"\r\n\r\n5\" pipe,\"c\" d\r\n";
    vec![text.into_bytes(), quoted.to_vec(), semicolons.into(), packed.to_vec()]
}

pub fn jsonl(bytes: &[u8]) {
    rows(bytes, Format::Jsonl);
    let folder = files::folder("jsonl", &[("train.jsonl", bytes)]);
    tasks().iter().for_each(|task| examples(task, &folder.join("train.jsonl")));
    own(&folder.join("train.jsonl"));
}

pub fn jsonl_seeds() -> Vec<Vec<u8>> {
    vec![
        b"{\"input\": \"a\", \"target\": \"b\"}\n\n{\"input\": \"\\u00e9\", \"target\": \"\"}\n"
            .to_vec(),
        b"[\n  {\"text\": \"a ] }\", \"label\": true},\n  {\"text\": \"b\", \"label\":\nfalse}]\n"
            .to_vec(),
        br#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": []}
{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}
{"instruction": "a", "input": "", "output": "b", "history": [["c", "d"]]}
{"messages": "[{\"role\": \"assistant\", \"tool_calls\": [1]}]"}
"#
        .to_vec(),
        "\u{feff}{\"target\": \"x\", \"input\": \"y\", \"n\": 1e3, \"more\": [null, {}]}".into(),
    ]
}

pub fn conll(bytes: &[u8]) {
    rows(bytes, Format::Conll);
    let folder = files::folder("conll", &[("train.conll", bytes)]);
    tasks().iter().for_each(|task| examples(task, &folder.join("train.conll")));
}

pub fn conll_seeds() -> Vec<Vec<u8>> {
    vec![
        b"-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\r\n\n\na  b\tx\n".to_vec(),
        b"\n\n \n\tO\n".to_vec(),
    ]
}
