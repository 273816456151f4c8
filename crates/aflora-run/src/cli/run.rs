//! `aflora run`: one configuration, from its data and model to a run folder.

use super::target::RunTarget;
use aflora_core::sharded::ShardedBytes;
use aflora_cuda::World;
use aflora_files::printable_line;
use aflora_record::summary::{EarlyStop, Test};
use aflora_record::Summary;
use aflora_run::config::Resolved;
use aflora_run::feed::TRAIN;
use aflora_run::launch;
use aflora_run::run::location::RunLocation;
use aflora_run::run::model_files::environment_data;
use aflora_run::run::{memory, prepare, rows::HOLDOUT, train};
use aflora_run::ui::{self, counted, thousands, Progress};
use anyhow::Result;
use std::path::{Path, PathBuf};
use tch::Device;

/// Words for `--help`.
pub const HELP: &str = "\
Files of your own are a task: `train=FILE` with the columns `text` and `label` (`text=[a, b]` for
pairs; `input` and `target` to write text). Whether classes or a score are asked for, and which
classes, is found from the rows and told; `kind=` and `labels=` say it outright. Without `dev=` a
tenth of each class is held out to evaluate on (`dev=20%` for another share). Read are .csv with any
delimiter, .tsv, .jsonl, .json and .parquet, all but the last with .gz or .bz2 behind; several as
`train='[a.csv, b.csv]'`. `train=hub:owner/name[@revision][/configuration[/split]]` takes a data set of
the hub, and its validation split to evaluate on.

Examples:
  aflora run train=reviews.csv dev=dev.csv text=body label=stars model=minilm run_dir=runs/mine
  aflora run configs/experiment.yaml task=mrpc model=minilm data=../data lr=5e-3";

/// Trains, evaluates, and prints the result.
///
/// # Errors
/// The configuration, the data or the model are wrong, the run failed, or a signal came.
pub fn run(target: &RunTarget, progress: &mut dyn Progress) -> Result<()> {
    let world = launch::join()?;
    let result = train_among(&world, target, progress);
    launch::leave(&world, result)
}

/// Trains as one of these processes. The first has the folder, prints, and tells the others where the
/// run stands.
fn train_among(world: &World, target: &RunTarget, progress: &mut dyn Progress) -> Result<()> {
    let mut resolved = target.load()?;
    // The run writes down what it was, and the environment is not written down.
    resolved.run.data = resolved.run.data.take().or_else(environment_data);
    // Before anything is read: whether there is something to do.
    let location = match world.leads() {
        true => Some(RunLocation::find(&mut resolved)?),
        false => None,
    };
    let finished = matches!(location, Some(RunLocation::Finished(..)));
    if !agree(world, finished, &mut resolved)? {
        if let Some(RunLocation::Finished(path, summary)) = &location {
            tracing::info!("this run is finished already");
            print_result(path, summary);
        }
        return Ok(());
    }
    tracing::info!("{}: reading data and model", resolved.name());
    if !world.is_alone() {
        tracing::info!("{} processes train together", world.size());
    }
    let mut prepared = prepare::prepare_among(&resolved, world.clone(), progress)?;
    describe(&prepared);
    if let Device::Cuda(index) = prepared.device {
        world.use_gpu(index)?;
    }
    let mut tuner = prepared.tuner()?;
    memory::fit(&mut resolved, &mut prepared, &mut tuner)?;
    let folder = location.map(RunLocation::open).transpose()?;
    let summary = train::train(&resolved, prepared, tuner, folder.as_ref(), progress)?;
    if let Some(folder) = &folder {
        print_result(folder.path(), &summary);
    }
    Ok(())
}

/// What the first process found of the run's folder is what all go by; whether there is anything to do.
fn agree(world: &World, finished: bool, resolved: &mut Resolved) -> Result<bool> {
    let run = &resolved.run;
    let found = (finished, run.batch_size, run.accumulate, run.fit_batch);
    let found = world.broadcast_bytes(serde_json::to_vec(&found)?, 0)?;
    let (finished, batch_size, accumulate, fit_batch) = serde_json::from_slice(&found)?;
    let run = &mut resolved.run;
    (run.batch_size, run.accumulate, run.fit_batch) = (batch_size, accumulate, fit_batch);
    let finished: bool = finished;
    Ok(!finished)
}

fn print_result(folder: &Path, summary: &Summary) {
    let best = &summary.best;
    println!("{}", ui::shown(folder));
    for (name, value) in &best.metrics {
        let name = printable_line(name);
        let value = value.map_or("undefined".into(), |v| format!("{v:.4}"));
        println!(
            "  {name:<12} {value}  (best epoch {} of {})",
            best.epochs(),
            summary.last.epochs()
        );
    }
    if let Some(Test { split, evaluation, .. }) = &summary.test {
        for (name, value) in &evaluation.metrics {
            let name = format!("{}_{}", printable_line(split), printable_line(name));
            let value = value.map_or("undefined".into(), |v| format!("{v:.4}"));
            println!("  {name:<12} {value}  (judged once, with that adapter)");
        }
    }
    if let Some(EarlyStop { patience, total_steps }) = summary.early_stop {
        let evaluations = counted(patience as usize, "evaluation");
        let steps = summary.steps;
        println!("  stopped      {evaluations} no better, at step {steps} of {total_steps}");
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
        printable_line(&summary.device)
    );
    let memory = summary.peak_memory.map_or(String::new(), |bytes| {
        format!(", {:.1} GB of memory at the most", bytes as f64 / 1e9)
    });
    println!("  speed        {} tokens/s{memory}", thousands(summary.tokens_per_second as i64));
    if summary.skipped_steps > 0 {
        println!("  skipped      {} steps without a finite gradient", summary.skipped_steps);
    }
}

/// A file that only the environment leads to, and the folder that it names.
fn undeclared(run: &prepare::Prepared) -> Option<(&Path, PathBuf)> {
    let folder = environment_data()?;
    let below = |path: &Path, folder: &Path| path.starts_with(folder);
    let declared = |path: &Path| run.config.data.as_ref().is_some_and(|data| below(path, data));
    let data = run.data.iter().map(|source| &source.path);
    let mut files = data.chain(run.weights.iter().map(|(path, _)| path)).map(PathBuf::as_path);
    let found = files.find(|path| below(path, &folder) && !declared(path))?;
    Some((found, folder))
}

fn describe(run: &prepare::Prepared) {
    let used = |split: &str| run.config.holdout.is_none() || split == TRAIN;
    let sources: Vec<_> = run.data.iter().filter(|source| used(&source.split)).collect();
    // A split's files stand together.
    for files in sources.chunk_by(|a, b| a.split == b.split) {
        let (split, path) = (&files[0].split, files[0].path.display());
        let (rows, skipped) =
            files.iter().fold((0, 0), |(rows, skipped), f| (rows + f.rows, skipped + f.skipped));
        let skipped = match skipped {
            0 => String::new(),
            n => format!(" ({n} broken rows passed over, of {})", rows + n),
        };
        let others = match files.len() - 1 {
            0 => String::new(),
            n => format!(" and {}", counted(n, "further file")),
        };
        let used = run.objective.rows(split);
        let packs = match run.objective.packs().filter(|_| split == TRAIN) {
            Some(packs) => format!(", in {}", counted(packs, "pack")),
            None => String::new(),
        };
        tracing::info!("{split}: {used} of {rows} rows of {path}{others}{skipped}{packs}");
    }
    if run.config.holdout.is_some() {
        let rows = run.objective.rows(HOLDOUT);
        tracing::info!("evaluating on {rows} rows held out of the training split");
    }
    if let Some((path, folder)) = undeclared(run) {
        tracing::warn!(
            "{} was found in AFLORA_DATA={}, which the run's config.yaml does not name, for `data` \
             is another folder: set the variable whenever you run it again",
            path.display(),
            folder.display()
        );
    }
    match run.model.backbone().sharded().map(|sharded| sharded.bytes()) {
        Some(Ok(ShardedBytes { own, rooms, whole })) => tracing::info!(
            "the blocks' frozen weights are spread over {} processes: {} of {} bytes are held here, and {} for \
             those that are whole at once",
            run.world.size(),
            thousands(own),
            thousands(whole),
            thousands(rooms)
        ),
        _ if run.config.shard_base => {
            tracing::info!("shard_base: one process holds the frozen weights whole");
        }
        _ => {}
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
