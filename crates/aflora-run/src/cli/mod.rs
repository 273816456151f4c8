//! The commands of `aflora`: one file each, with what it takes and what it does.
//!
//! [`main`] begins with a call's arguments and ends with its exit code.
//! [`target`], [`saved`], [`finished`] and [`writing`] are what several of them take, [`output`] is
//! where they write to, and [`arguments`] answers what none of them takes.

pub mod arguments;
pub mod chat;
pub mod combine;
pub mod completions;
pub mod doctor;
#[cfg(test)]
mod documented;
pub mod evaluate;
pub mod experiment;
pub mod export;
pub mod finished;
pub mod generate;
pub mod inspect;
pub mod keys;
pub mod launch;
pub mod ls;
mod main;
pub mod man;
pub mod merge;
pub mod output;
pub mod predict;
pub mod replay;
pub mod report;
pub mod run;
pub mod saved;
pub mod target;
pub mod validate;
pub mod watch;
pub mod writing;

pub use main::main;

use aflora_run::config::keys::KEYS;
use aflora_run::ui::Progress;
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

/// Fine-tune pretrained models with adaptive freezing of low-rank adaptation (AFLoRA).
#[derive(Parser)]
#[command(name = "aflora", version, after_help = help())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The settings that most runs touch; what each takes is said by its declaration.
const COMMON: [&str; 19] = [
    "task",
    "train",
    "dev",
    "text",
    "label",
    "model",
    "method",
    "seed",
    "data",
    "run_dir",
    "epochs",
    "batch_size",
    "max_length",
    "lr",
    "head_lr",
    "limit",
    "eval_limit",
    "device",
    "precision",
];

fn help() -> String {
    let common = COMMON.iter().filter_map(|name| KEYS.iter().find(|key| key.name == *name));
    let lines: Vec<String> = common.map(|key| format!("  {:12} {}", key.name, key.takes)).collect();
    format!(
        "On data of your own, and predictions with what it came to:\n\
           \x20 aflora run train=reviews.csv text=body label=stars model=minilm run_dir=runs/mine\n\
           \x20 aflora predict runs/mine new.csv\n\n\
         Settings that most runs touch, written key=value:\n{}\n\
         Keys of blocks are dotted: method.rank=8  method.freeze.rule=matrix_rank  \
         model.layers='[0, 1]'\n\
         `aflora keys` lists all of them, and says what each does.\n\n\
         Exit codes: 0 done, 1 the run failed, 2 wrong usage, configuration, or data not found,\n\
         130 and 143 stopped by a signal: the same command goes on.\n\
         AFLORA_LOG=debug shows more, AFLORA_LOG=warn less.",
        lines.join("\n")
    )
}

/// What can be asked for.
#[derive(Subcommand)]
pub enum Command {
    /// Train and evaluate one configuration, and write a run folder.
    #[command(after_help = run::HELP)]
    Run(target::RunTarget),
    /// Train one configuration over several processes: as many GPUs, here or on several machines.
    #[command(after_help = launch::HELP)]
    Launch(launch::LaunchArguments),
    /// Check a configuration, its model and its data: all problems at once.
    #[command(after_help = validate::HELP)]
    Validate(target::RunTarget),
    /// Show which layers would get an adapter, how many parameters would train, and on what rows.
    #[command(after_help = inspect::HELP)]
    Inspect(inspect::Inspect),
    /// Predict with a finished run for the texts in a CSV, TSV, JSONL or text file.
    #[command(after_help = predict::HELP)]
    Predict(predict::Predict),
    /// Write on after a prompt with a finished run, token by token.
    #[command(after_help = generate::HELP)]
    Generate(generate::Generate),
    /// Talk with a finished run's model at a terminal.
    #[command(after_help = chat::HELP)]
    Chat(chat::Chat),
    /// Judge a finished run on the labelled rows of a file.
    #[command(after_help = evaluate::HELP)]
    Evaluate(evaluate::Evaluate),
    /// Write a finished run's model as a plain Hugging Face folder, the adapter merged into it.
    #[command(after_help = merge::HELP)]
    Merge(merge::Merge),
    /// Write a finished run's adapter for users of Hugging Face PEFT.
    #[command(after_help = export::HELP)]
    Export(export::Export),
    /// Make one adapter of those of several finished runs on one model.
    #[command(after_help = combine::HELP)]
    Combine(combine::Combine),
    /// Run an experiment: a grid of models, tasks, methods and seeds.
    #[command(after_help = experiment::HELP)]
    Experiment(experiment::Experiment),
    /// When matrices would have frozen by another rule, score or schedule: no training.
    #[command(after_help = replay::HELP)]
    Replay(replay::Replay),
    /// List every key that can be set, with what it takes, its default and what it does.
    Keys(keys::Keys),
    /// List runs with their results.
    Ls(ls::Ls),
    /// Make tables, charts and a page from what experiments found.
    #[command(after_help = report::HELP)]
    Report(report::Report),
    /// Tell what this machine has for runs, what is missing, and how to get it.
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::Doctor),
    /// Print a script by which a shell completes this program's arguments.
    #[command(after_help = completions::HELP)]
    Completions(completions::Completions),
    /// Print a manual page.
    #[command(after_help = man::HELP)]
    Man(man::Man),
    /// Watch a run under way, or look at one that has ended.
    #[command(after_help = watch::HELP)]
    Watch(watch::Watch),
}

impl Command {
    /// Whether libtorch will have work to do, here or in processes that this one starts.
    pub fn computes(&self) -> bool {
        use Command::{Chat, Combine, Evaluate, Experiment, Generate, Merge, Predict, Run};
        match self {
            Run(_) | Predict(_) | Evaluate(_) | Generate(_) | Chat(_) | Merge(_) => true,
            Command::Inspect(inspect) => inspect.computes(),
            _ => matches!(self, Experiment(_) | Combine(_)),
        }
    }

    /// Whether it is what several processes may do together.
    pub fn trains(&self) -> bool {
        matches!(self, Command::Run(_))
    }

    /// Whether all that it does is to print, so that it may end with who reads it. Others go on
    /// without: a run trains whether or not its log is read.
    pub fn only_prints(&self) -> bool {
        use Command::{
            Chat, Completions, Doctor, Evaluate, Generate, Inspect, Keys, Ls, Man, Predict, Replay,
            Validate,
        };
        match self {
            Predict(predict) => predict.prints(),
            Evaluate(_) => true,
            _ => matches!(
                self,
                Generate(_)
                    | Chat(_)
                    | Inspect(_)
                    | Validate(_)
                    | Keys(_)
                    | Ls(_)
                    | Replay(_)
                    | Doctor(_)
                    | Completions(_)
                    | Man(_)
            ),
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Those of each command.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        match self {
            Command::Run(target) => run::run(&target, progress),
            Command::Launch(launch) => launch.run(),
            Command::Validate(target) => validate::validate(&target, progress),
            Command::Inspect(inspect) => inspect.run(progress),
            Command::Predict(predict) => predict.run(progress),
            Command::Generate(generate) => generate.run(progress),
            Command::Chat(chat) => chat.run(progress),
            Command::Evaluate(evaluate) => evaluate.run(progress),
            Command::Merge(merge) => merge.run(progress),
            Command::Export(export) => export.run(progress),
            Command::Combine(combine) => combine.run(progress),
            Command::Experiment(experiment) => experiment.run(progress),
            Command::Replay(replay) => replay.run(),
            Command::Keys(keys) => {
                keys.run();
                Ok(())
            }
            Command::Ls(ls) => ls.run(),
            Command::Report(report) => report.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Completions(completions) => completions.run(Cli::command()),
            Command::Man(man) => man.run(Cli::command()),
            Command::Watch(watch) => watch.run(),
        }
    }
}
