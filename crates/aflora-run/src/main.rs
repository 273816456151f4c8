//! The `aflora` command.

mod cli;

use aflora_run::config::{self, ConfigErrors};
use aflora_run::data::DataError;
use aflora_run::interrupt::Interrupted;
use aflora_run::predict::{self, Settings};
use aflora_run::run::place::Place;
use aflora_run::run::{memory, prepare, rows::HOLDOUT, summary::Summary, train};
use aflora_run::saved::SavedRun;
use aflora_run::ui::{self, thousands, LogSink};
use aflora_run::{inspect, list, replay, report, watch, UsageError};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Fine-tune pretrained models with adaptive freezing of low-rank adaptation (AFLoRA).
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Keys that every run knows:
  task=NAME        cola sst2 mrpc qnli stsb rte mnli qqp reviews gsm8k cnn_dailymail lines
  model=NAME       a file of configs/models        method=NAME  a file of configs/methods
  seed=N           initial values, order, dropout  data=FOLDER  where data and models lie
  epochs=N  batch_size=N  lr=X  head_lr=X  max_length=N
  limit=N          training rows to use            eval_limit=N evaluation rows to use
  run_dir=FOLDER   where to write                  device=auto|cpu|cuda:N  precision=auto|fp32|bf16
Keys of blocks are dotted: method.rank=8  method.freeze.rule=matrix_rank  model.layers='[0, 1]'
`aflora keys` lists all of them.

Exit codes: 0 done, 1 the run failed, 2 wrong usage, configuration, or data not found,
130 and 143 stopped by a signal: the same command goes on.
AFLORA_LOG=debug shows more, AFLORA_LOG=warn less.";

const REPORT_HELP: &str = "\
Writes, for each results file, NAME.md (tables), NAME.csv (a row a run) and its heat maps (SVG), and
report.html over all of them: one page with every chart, which needs no network. The same results
make the same bytes. A damaged file is named, the others are rendered, and the exit code is 1.

Example:
  aflora report experiments/results --out report";

const WATCH_HELP: &str = "\
Shows progress, losses, trainable parameters, freezing and evaluations; ends when the run ends, or
with q or Ctrl-C, which leave the run alone. Where standard output is no terminal it prints one
summary.

Example:
  aflora watch runs/reviews-minilm-aflora-seed42";

#[derive(Subcommand)]
enum Command {
    /// Train and evaluate one configuration, and write a run folder.
    #[command(
        after_help = "Example:\n  aflora run configs/experiment.yaml task=mrpc model=minilm data=../data lr=5e-3"
    )]
    Run(Target),
    /// Check a configuration: all problems at once, each with its place.
    Validate(Target),
    /// Show which layers would get an adapter, and how many parameters would train.
    #[command(after_help = "Needs the model's config.json, not its weights.")]
    Inspect(Target),
    /// Predict with a finished run for the texts in a JSONL or CSV file.
    #[command(after_help = "\
Rows hold `text`, or `text_a` and `text_b` for tasks on pairs. Each comes back as a line of JSON with
`label` and `scores` added, `score` for a regression, or `prediction` where the task asks for text.

Example:
  aflora predict runs/reviews-minilm-aflora-seed42 new.csv --output judged.jsonl")]
    Predict {
        #[command(flatten)]
        saved: Saved,
        /// A .csv file with a header, or JSON objects, one a line.
        input: PathBuf,
        /// Where to write; standard output if not given.
        #[arg(long)]
        output: Option<PathBuf>,
        /// auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
        /// Of the frozen weights: auto (as the run trained), fp32, tf32, bf16.
        #[arg(long, default_value = "auto")]
        precision: String,
        /// Rows at once.
        #[arg(long, default_value_t = 32)]
        batch_size: usize,
    },
    /// Write a finished run's model as a plain Hugging Face folder, the adapter merged into it.
    #[command(
        after_help = "Example:\n  aflora merge runs/reviews-minilm-aflora-seed42 my-model\n\
                      transformers opens it with AutoModelForSequenceClassification (AutoModelForCausalLM,\n\
                      AutoModelForSeq2SeqLM for models that write)."
    )]
    Merge {
        #[command(flatten)]
        saved: Saved,
        /// The folder to write.
        target: PathBuf,
    },
    /// Write a finished run's adapter for users of Hugging Face PEFT.
    #[command(
        after_help = "Example:\n  aflora export runs/reviews-minilm-aflora-seed42 my-adapter --as lora\n\
                      PeftModel.from_pretrained(base_model, \"my-adapter\") opens it."
    )]
    Export {
        #[command(flatten)]
        saved: Saved,
        /// The folder to write.
        target: PathBuf,
        /// The form: lora, which every method's adapter folds into.
        #[arg(long = "as", value_parser = ["lora"], default_value = "lora")]
        form: String,
    },
    /// Run an experiment: a grid of models, tasks, methods and seeds.
    #[command(after_help = cli::experiment::HELP)]
    Experiment(cli::experiment::Experiment),
    /// When matrices would have frozen by another rule, score or schedule: no training.
    #[command(after_help = "\
Needs a run with record_gradients=true whose matrices never froze (method=aflora-trainable).
Without settings: every rule with every score. With settings of freezing: each matrix, as CSV.

Examples:
  aflora replay runs/recorded
  aflora replay runs/recorded rule=matrix_rank score='|p*g|' t_f=50%")]
    Replay {
        /// The folder of the run.
        run: PathBuf,
        /// Settings of freezing on top of the defaults, such as rule=matrix_rank.
        #[arg(value_name = "KEY=VALUE")]
        overrides: Vec<String>,
    },
    /// List every key that can be set, with what it takes, its default and what it does.
    Keys,
    /// List runs with their results.
    Ls {
        /// The folder that holds the runs.
        #[arg(default_value = "runs")]
        folder: PathBuf,
    },
    /// Make tables, charts and a page from what experiments found.
    #[command(after_help = REPORT_HELP)]
    Report {
        /// The folder of results files (*.json), or one of them.
        #[arg(default_value = "experiments/results")]
        results: PathBuf,
        /// The folder to write to; beside the results if not given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Watch a run under way, or look at one that has ended.
    #[command(after_help = WATCH_HELP)]
    Watch {
        /// The run's folder.
        run: PathBuf,
    },
}

#[derive(Args)]
struct Saved {
    /// A finished run's folder.
    run: PathBuf,
    /// A further folder to look for the run's model in.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Saved {
    fn open(&self, progress: &mut dyn ui::Progress) -> Result<SavedRun> {
        SavedRun::open(&self.run, self.data.as_deref(), progress)
    }
}

#[derive(Args)]
struct Target {
    /// The run file, such as configs/experiment.yaml, or the config.yaml of a run.
    config: PathBuf,
    /// Settings on top of it: key=value, the value in YAML.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (mut progress, sink) = ui::for_stderr();
    start_logging(sink);
    match dispatch(cli.command, progress.as_mut()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.end();
            match error.is::<Interrupted>() {
                true => eprintln!("{error:#}; the same command goes on from there"),
                false => eprintln!("error: {error:#}"),
            }
            exit_code(&error)
        }
    }
}

fn dispatch(command: Command, progress: &mut dyn ui::Progress) -> Result<()> {
    match command {
        Command::Experiment(experiment) => experiment.run(progress),
        Command::Run(target) => run(&target, progress),
        Command::Validate(target) => {
            let resolved = config::load(&target.config, &target.overrides)?;
            println!("{}: fine, {}", target.config.display(), resolved.name());
            Ok(())
        }
        Command::Inspect(target) => {
            let resolved = config::load(&target.config, &target.overrides)?;
            print!("{}", inspect::inspect(&resolved, progress)?);
            Ok(())
        }
        Command::Predict { saved, input, output, device, precision, batch_size } => {
            let run = saved.open(progress)?;
            let settings = Settings { device: &device, precision: &precision, batch_size };
            write_to(output.as_deref(), |to| {
                let rows = predict::predict(&run, &input, to, &settings, progress)?;
                tracing::info!("{rows} rows");
                Ok(())
            })
        }
        Command::Merge { saved, target } => {
            let run = saved.open(progress)?;
            new_folder(&target)?;
            run.merge(&target)?;
            println!("{}", target.display());
            Ok(())
        }
        Command::Export { saved, target, form: _ } => {
            let run = saved.open(progress)?;
            new_folder(&target)?;
            run.export_lora(&target)?;
            println!("{}", target.display());
            Ok(())
        }
        Command::Replay { run, overrides } => {
            let freeze = replay::settings(&overrides)?;
            match overrides.is_empty() {
                true => print!("{}", replay::compare(&run, &freeze)?),
                false => print!("{}", replay::replay(&run, &freeze)?.csv()),
            }
            Ok(())
        }
        Command::Keys => {
            print!("{}", config::keys::table());
            Ok(())
        }
        Command::Ls { folder } => {
            print!("{}", list::list(&folder)?);
            Ok(())
        }
        Command::Report { results, out } => report::command(&results, out.as_deref()),
        Command::Watch { run } => watch::watch(&run),
    }
}

/// Refuses to write over something that is there.
fn new_folder(path: &Path) -> Result<()> {
    if path.exists() {
        let problem = format!("{} exists already; name a new folder", path.display());
        return Err(UsageError(problem).into());
    }
    Ok(())
}

/// Writes to standard output, or to the path that was named.
fn write_to(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match path {
        None => write(&mut std::io::stdout().lock()),
        Some(path) => aflora_files::write_output(path, write)
            .with_context(|| format!("{} cannot be written", path.display())),
    }
}

fn run(target: &Target, progress: &mut dyn ui::Progress) -> Result<()> {
    let mut resolved = config::load(&target.config, &target.overrides)?;
    // Before anything is read: whether there is something to do.
    let place = Place::find(&mut resolved)?;
    if let Place::Finished(path, summary) = &place {
        tracing::info!("this run is finished already");
        print_result(path, summary);
        return Ok(());
    }
    tracing::info!("{}: reading data and model", resolved.name());
    let mut prepared = prepare::prepare(&resolved, progress)?;
    describe(&prepared);
    let mut tuner = prepared.tuner()?;
    memory::fit(&mut resolved, &mut prepared, &mut tuner)?;
    let folder = place.open()?;
    let summary = train::train(&resolved, &prepared, tuner, &folder, progress)?;
    print_result(folder.path(), &summary);
    Ok(())
}

fn print_result(folder: &Path, summary: &Summary) {
    let best = &summary.best;
    println!("{}", folder.display());
    for (name, value) in &best.metrics {
        let value = value.map_or("undefined".into(), |v| format!("{v:.4}"));
        println!("  {name:<12} {value}  (best epoch {} of {})", best.epoch, summary.last.epoch);
    }
    let counts = &summary.parameters;
    println!(
        "  parameters   {} at the start, {} at the end, {} on average; head {}",
        thousands(counts.at_start),
        thousands(counts.at_end),
        thousands(counts.time_average.round() as i64),
        thousands(counts.head)
    );
    println!(
        "  time         {} training, {} evaluating, {:.1} ms a step, on {}",
        ui::seconds(summary.seconds.training),
        ui::seconds(summary.seconds.evaluation),
        summary.seconds.median_step * 1e3,
        summary.device
    );
    let memory = summary.peak_memory.map_or(String::new(), |bytes| {
        format!(", {:.1} GB of memory at the most", bytes as f64 / 1e9)
    });
    println!("  speed        {} tokens/s{memory}", thousands(summary.tokens_per_second as i64));
    if summary.skipped_steps > 0 {
        println!("  skipped      {} steps without a finite gradient", summary.skipped_steps);
    }
}

fn describe(run: &prepare::Prepared) {
    let used = |split: &str| run.config.holdout.is_none() || split == "train";
    for source in run.sources.iter().filter(|source| used(&source.split)) {
        let (split, rows, path) = (&source.split, source.rows, source.path.display());
        let skipped = match source.skipped {
            0 => String::new(),
            n => format!(" ({n} broken rows skipped)"),
        };
        tracing::info!("{split}: {} of {rows} rows of {path}{skipped}", run.objective.rows(split));
    }
    if run.config.holdout.is_some() {
        let rows = run.objective.rows(HOLDOUT);
        tracing::info!("evaluating on {rows} rows held out of the training split");
    }
    for remark in run.objective.remarks() {
        tracing::info!("{remark}");
    }
    if run.weights.is_empty() {
        tracing::info!("the model starts from random weights");
    } else if !run.loaded.new.is_empty() {
        tracing::info!("new in the model: {}", run.loaded.new.join(", "));
    }
    if let Some(first) = run.loaded.unused.first() {
        let n = run.loaded.unused.len();
        tracing::info!("{n} tensors of the weights are not used, such as {first}");
    }
}

fn start_logging(sink: LogSink) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("AFLORA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(move || sink.clone())
        .init();
}

/// 2 for a wrong call, configuration or missing data; 1 for a run that failed.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    use aflora_models::Error as ModelError;
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return ExitCode::from(interrupted.exit_code());
    }
    let usage = error.is::<ConfigErrors>()
        || error.is::<UsageError>()
        || matches!(error.downcast_ref(), Some(aflora_core::Error::Setting { .. }))
        || matches!(error.downcast_ref(), Some(DataError::NotFound { .. }))
        || matches!(
            error.downcast_ref(),
            Some(
                ModelError::Targets(_)
                    | ModelError::UnknownBackbone { .. }
                    | ModelError::Purpose { .. }
                    | ModelError::Unbuilt(_)
            )
        );
    ExitCode::from(if usage { 2 } else { 1 })
}
