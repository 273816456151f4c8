//! The `aflora` command.

use aflora_run::config::{self, ConfigErrors};
use aflora_run::data::DataError;
use aflora_run::run::{folder::RunFolder, prepare, train};
use aflora_run::ui::{self, thousands, LogSink};
use aflora_run::{inspect, list, UsageError};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
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
  task=NAME        cola sst2 mrpc qnli stsb rte mnli qqp reviews
  model=NAME       a file of configs/models        method=NAME  a file of configs/methods
  seed=N           initial values, order, dropout  data=FOLDER  where data and models lie
  epochs=N  batch_size=N  lr=X  head_lr=X  max_length=N
  limit=N          training rows to use            eval_limit=N evaluation rows to use
  run_dir=FOLDER   where to write                  device=auto|cpu|cuda:N  precision=auto|fp32|bf16
Keys of blocks are dotted: method.rank=8  method.freeze.rule=matrix_rank  model.layers='[0, 1]'
`aflora keys` lists all of them.

Exit codes: 0 done, 1 the run failed, 2 wrong usage, configuration, or data not found.
AFLORA_LOG=debug shows more, AFLORA_LOG=warn less.";

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
    /// List every key that can be set, with what it takes, its default and what it does.
    Keys,
    /// List runs with their results.
    Ls {
        /// The folder that holds the runs.
        #[arg(default_value = "runs")]
        folder: PathBuf,
    },
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
            eprintln!("error: {error:#}");
            exit_code(&error)
        }
    }
}

fn dispatch(command: Command, progress: &mut dyn ui::Progress) -> Result<()> {
    match command {
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
        Command::Keys => {
            print!("{}", config::keys::table());
            Ok(())
        }
        Command::Ls { folder } => {
            print!("{}", list::list(&folder)?);
            Ok(())
        }
    }
}

fn run(target: &Target, progress: &mut dyn ui::Progress) -> Result<()> {
    let resolved = config::load(&target.config, &target.overrides)?;
    tracing::info!("{}: reading data and model", resolved.name());
    let prepared = prepare::prepare(&resolved, progress)?;
    describe(&prepared);
    let tuner = prepared.tuner()?;
    let folder = match &resolved.run.run_dir {
        Some(path) => RunFolder::create_named(path)?,
        None => RunFolder::create_numbered(Path::new("runs"), &resolved.name())?,
    };
    let summary = train::train(&resolved, &prepared, tuner, &folder, progress)?;

    let best = &summary.best;
    println!("{}", folder.path().display());
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
    Ok(())
}

fn describe(run: &prepare::Prepared) {
    let used = |split: &str| match split {
        "train" => run.train.labels.len(),
        _ => run.evals.iter().find(|(name, _)| name == split).map_or(0, |(_, e)| e.labels.len()),
    };
    for source in &run.sources {
        let (split, rows, path) = (&source.split, source.rows, source.path.display());
        let skipped = match source.skipped {
            0 => String::new(),
            n => format!(" ({n} broken rows skipped)"),
        };
        tracing::info!("{split}: {} of {rows} rows of {path}{skipped}", used(split));
    }
    let cut = run.train.truncated();
    if cut > 0 {
        tracing::info!(
            "{cut} training texts are longer than {} tokens: cut",
            run.config.max_length
        );
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
    let usage = error.is::<ConfigErrors>()
        || error.is::<UsageError>()
        || matches!(error.downcast_ref(), Some(aflora_core::Error::Setting { .. }))
        || matches!(error.downcast_ref(), Some(DataError::NotFound { .. }))
        || matches!(
            error.downcast_ref(),
            Some(ModelError::Targets(_) | ModelError::UnknownBackbone { .. })
        );
    ExitCode::from(if usage { 2 } else { 1 })
}
