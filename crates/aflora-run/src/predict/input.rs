//! The rows of an input: those of a file in large portions, those of a parquet file at once, those of a
//! stream as they come.

use crate::feed::read::of_parquet;
use crate::feed::row::Row;
use crate::feed::source::is_parquet;
use crate::feed::table::{Format, TableReader};
use crate::feed::unpack::{contents, Packing};
use crate::feed::DataError;
use crate::task::TaskSpec;
use crate::usage;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, Receiver, TryRecvError};

/// What stands for standard input.
pub const STDIN: &str = "-";

/// Rows of a stream that are read ahead.
const AHEAD: usize = 1024;

/// The rows of an input.
pub struct InputRows {
    /// What messages call it.
    called: PathBuf,
    /// The input's form; that of objects for a parquet file, whose rows are such.
    pub format: Format,
    /// How long it is, where that is known; else 0.
    pub bytes: u64,
    from: RowOrigin,
}

enum RowOrigin {
    /// Those of a parquet file, which is read whole.
    Whole(std::vec::IntoIter<Row>),
    File(TableReader<Box<dyn Read + Send>>),
    /// A pipe or a terminal: read by a thread, so that what has come is answered while more comes.
    Stream(Receiver<Result<Row, DataError>>),
}

impl InputRows {
    /// Opens an input, standard input if it is [`STDIN`], in the form that is named, else that of
    /// its name's ending. The first line of a .tsv file may be a row of one of the `tasks`' own.
    ///
    /// # Errors
    /// It cannot be read, or its first line cannot.
    pub fn open(input: &Path, format: Option<Format>, tasks: &[&TaskSpec]) -> Result<InputRows> {
        let stdin = input == Path::new(STDIN);
        let (file, called) = match stdin {
            true => (standard_input()?, PathBuf::from("standard input")),
            false => (open(input)?, input.to_path_buf()),
        };
        let about = file.metadata().with_context(|| format!("{}", called.display()))?;
        if format.is_none() && !stdin && is_parquet(input) {
            let from = RowOrigin::Whole(of_parquet(input)?.into_iter());
            // All bytes are read before the first row is answered.
            return Ok(InputRows { called, format: Format::Jsonl, bytes: 0, from });
        }
        let format = format.unwrap_or_else(|| Format::of(input));
        let names: Vec<_> = tasks.iter().map(|task| task.input_names()).collect();
        let known = |cells: &[String]| {
            let mut names = names.iter().flatten().flatten();
            let mut sources = tasks.iter().flat_map(|task| task.dataset.sources.iter());
            // A TSV file of the task's own may have none.
            format == Format::Csv
                || sources.all(|(_, source)| source.header)
                || names.any(|name| cells.iter().any(|cell| cell.trim() == *name))
        };
        let table = TableReader::new(contents(file, &called), &called, format, known)?;
        let from = if about.is_file() { RowOrigin::File(table) } else { stream(table) };
        // How much a packed file holds is not known before it is read.
        let bytes = if Packing::of(&called).is_some() { 0 } else { about.len() };
        Ok(InputRows { called, format, bytes, from })
    }

    /// The next rows, `most` of them; of a stream those that have come, one at least. None at the
    /// end.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn next(&mut self, most: usize) -> Result<Vec<Row>, DataError> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let row = match &mut self.from {
                RowOrigin::Whole(rows) => rows.next(),
                RowOrigin::File(table) => table.read()?,
                RowOrigin::Stream(coming) if rows.is_empty() => coming.recv().ok().transpose()?,
                RowOrigin::Stream(coming) => match coming.try_recv() {
                    Ok(row) => Some(row?),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
                },
            };
            let Some(row) = row else { break };
            rows.push(row);
        }
        Ok(rows)
    }

    /// Bytes of a file that were read so far.
    pub fn done(&self) -> u64 {
        match &self.from {
            RowOrigin::File(table) => table.bytes(),
            RowOrigin::Whole(_) | RowOrigin::Stream(_) => 0,
        }
    }

    /// What is wrong with a row, by its line.
    pub fn problem(&self, line: usize, problem: String) -> DataError {
        DataError::Row { path: self.called.clone(), line, problem }
    }
}

/// The rows of a table, read by a thread that is so many rows ahead and no more.
fn stream(mut table: TableReader<Box<dyn Read + Send>>) -> RowOrigin {
    let (send, receive) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        while let Some(row) = table.read().transpose() {
            let last = row.is_err();
            // Nobody waits for rows any more where an earlier one ended the command.
            if send.send(row).is_err() || last {
                break;
            }
        }
    });
    RowOrigin::Stream(receive)
}

fn standard_input() -> Result<File> {
    let own = io::stdin().as_fd().try_clone_to_owned();
    Ok(File::from(own.context("standard input cannot be read")?))
}

fn open(input: &Path) -> Result<File> {
    let shown = input.display();
    if input.is_dir() {
        usage!("{shown} is a folder; name a file in it");
    }
    // Not [`aflora_files::open`]: a pipe is read as it comes.
    match File::open(input) {
        Ok(file) => Ok(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => usage!("{shown}: there is no such file"),
        Err(e) => Err(e).with_context(|| format!("{shown} cannot be read")),
    }
}
