//! `aflora predict`: a finished run's answers to the rows of a file.

use super::finished::Computing;
use super::output::Output;
use super::saved::Base;
use aflora_run::predict::{self, Asked, OutputFormat, Shown};
use aflora_run::saved::SavedRun;
use aflora_run::ui::Progress;
use aflora_run::UsageError;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What the command takes.
#[derive(Args)]
pub struct Predict {
    /// A finished run's folder; or an adapter's, as PEFT writes it, here or on the hub
    /// (owner/name@revision). Left out where --adapter names them.
    run: PathBuf,
    /// A .csv or .tsv file with a header, JSON objects, one a line, a .txt file with a text a line, a
    /// .parquet file, or `-` for standard input.
    input: Option<PathBuf>,
    #[command(flatten)]
    base: Base,
    /// In place of RUN, once for each of several finished runs or adapters on one base model, which is
    /// loaded once: every row is answered by each, and its name added as `adapter`.
    #[arg(long = "adapter", value_name = "NAME=RUN", value_parser = named)]
    adapters: Vec<(String, PathBuf)>,
    /// The column whose value says which of the adapters answers a row, by its name.
    #[arg(long, value_name = "COLUMN", requires = "adapters")]
    adapter_column: Option<String>,
    #[command(flatten)]
    computing: Computing,
    /// The file to write, packed where its name ends in .gz; standard output if not given, or `-`.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The output's form; by its name, else a table where the input is a .csv file, else jsonl.
    #[arg(long, value_name = "FORM", value_enum)]
    output_format: Option<OutputFormat>,
    /// Of how many classes to give the probability, the likeliest first; of all if not given.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
}

/// Words for `--help`.
pub const HELP: &str = "\
Rows have their texts under the names of the task's own columns (`sentence1`, `#1 String`); where a
row has none of these, under `text`, or `text_a` and `text_b` for tasks on pairs. Each comes back, its values as they stood,
with `label` and `scores` (the probability of each class) added, `score` for a regression, or `prediction` where the task asks for
text. Classes go by the names that `aflora merge` writes (`equivalent`, not `1`). 
Where the first row has such a name itself, ours are `predicted_label`, `predicted_scores`,
`predicted_score` or `predicted_text`, and `predicted_label_2` and so on where it has these too; a
later row that has one of ours is told, and only its answers go by the next free name.

Rows of a .csv file come back as one, all others as JSON objects, one a line, unless --output ends in
.csv, .tsv or .jsonl (with .gz behind, packed), or --output-format says otherwise. In a table, what is neither text nor number
(`scores`) is JSON in its cell.

A .csv file is read by RFC 4180 (.csv.gz and .csv.bz2 as well, and so for all forms); in a .tsv file, as in GLUE's, a quote is a character like any
other. NaN and Infinity, which Python writes into JSON, are read as null. Standard input, pipes and other endings are JSON objects, one a line, unless --format says
otherwise; of a pipe or a terminal each row is answered when it comes. Texts that are empty, or longer than the run reads, are told by their lines.

With --adapter, several finished runs and adapters on one base model answer: each row comes back once
for each, with its name under `adapter`, or once alone, from the one that stands in --adapter-column.
The base lies in memory once. They may be of other methods, layers, tasks and heads.

--output takes a device or a pipe as it stands and writes through a link; a file appears whole or
not at all, and one whose folder takes no new file is written where it stands once all is ready. The
input is never written over.

Examples:
  aflora predict runs/reviews-minilm-aflora-seed42 new.csv --output judged.jsonl
  echo 'a fine film' | aflora predict runs/reviews-minilm-aflora-seed42 - --format lines --top-k 1
  aflora predict runs/reviews-minilm-aflora-seed42 new.tsv.gz --output judged.jsonl
  aflora predict my-adapter new.csv --model minilm
  aflora predict new.csv --adapter mine=runs/mine --adapter theirs=owner/name --output both.csv
  aflora predict new.csv --adapter mood=runs/mood --adapter topic=runs/topic --adapter-column task";

impl Predict {
    /// Whether it writes to standard output.
    pub fn prints(&self) -> bool {
        Output::is_stdout(self.output.as_deref())
    }

    /// Predicts.
    ///
    /// # Errors
    /// The run cannot be opened, a row is not as it should be, or the output cannot be written.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let (run, input) = self.places()?;
        let output = Output::beside(self.output.as_deref(), input)?;
        let shown = Shown {
            format: self.output_format.or(self.output.as_deref().and_then(form)),
            top_k: self.top_k,
            terminal: output.is_standard() && std::io::stdout().is_terminal(),
        };
        // A run told what is odd in its model's files when it trained.
        aflora_models::tell_oddities_at_debug_level();
        let (model, data) = (self.base.model.as_deref(), self.base.data.as_deref());
        let (names, folders): (Vec<String>, Vec<&Path>) =
            self.adapters.iter().map(|(name, folder)| (name.clone(), folder.as_path())).unzip();
        let runs = match run {
            Some(run) => vec![SavedRun::open(run, model, data, progress)?],
            None => SavedRun::open_all(folders, model, data, progress)?,
        };
        let asked = match (run, &runs[..]) {
            (Some(_), [run]) => Asked::One(run),
            (_, runs) => {
                Asked::Several { runs, names: &names, column: self.adapter_column.as_deref() }
            }
        };
        output.write(|to| {
            let settings = self.computing.settings();
            let rows = predict::predict(asked, input, to, &settings, &shown, progress)?;
            tracing::info!("{rows} rows");
            Ok(())
        })
    }

    /// The run, where one is named by itself, and the input.
    fn places(&self) -> Result<(Option<&Path>, &Path), UsageError> {
        let mut seen = HashSet::new();
        if let Some((name, _)) = self.adapters.iter().find(|(name, _)| !seen.insert(name)) {
            return Err(UsageError(format!("two adapters are called `{name}`")));
        }
        match (&self.input, self.adapters.is_empty()) {
            (Some(input), true) => Ok((Some(&self.run), input)),
            (None, false) => Ok((None, &self.run)),
            (None, true) => Err(UsageError(
                "name the file to predict for behind the run; `-` is standard input".into(),
            )),
            (Some(_), false) => Err(UsageError(format!(
                "{} stands beside --adapter: name it as one, too, or all without --adapter's",
                self.run.display()
            ))),
        }
    }
}

/// An adapter's name and its folder.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, folder)) if !name.trim().is_empty() && !folder.is_empty() => {
            Ok((name.trim().to_string(), PathBuf::from(folder)))
        }
        _ => Err("write NAME=RUN, such as good=runs/good".into()),
    }
}

/// The form that a file's ending asks for, before that of a packed one.
fn form(path: &Path) -> Option<OutputFormat> {
    let packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let path = if packed { Path::new(path.file_stem()?) } else { path };
    OutputFormat::from_str(path.extension()?.to_str()?, true).ok()
}
