//! `aflora experiment`: a grid of runs, from its file to its report.

use aflora_files::{printable, printable_line};
use aflora_report::report;
use aflora_run::experiment::collect::collect;
use aflora_run::experiment::grid::{Choice, Plan, Planned};
use aflora_run::experiment::runner::{self, Runner};
use aflora_run::experiment::slurm::{self, SlurmRequest};
use aflora_run::experiment::stored::Stored;
use aflora_run::interrupt::{self, Interrupted};
use aflora_run::ui::{counted, shown, Progress};
use aflora_run::{check_makeable, UsageError};
use anyhow::{bail, Context, Result};
use clap::Args;
use std::path::PathBuf;

/// What the command takes.
#[derive(Args)]
pub struct Experiment {
    /// The experiment file, such as experiments/table4.yaml.
    file: PathBuf,
    /// `seeds=[0]`, `tasks=[mrpc]`, `models=[…]`, `methods=[…]` choose cells; any other key=value
    /// is set in each.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Models, tasks, seeds and settings to put in place: a file of experiments/profiles, or
    /// `paper` for the file as it stands.
    #[arg(long, default_value = "paper")]
    profile: String,
    /// GPUs of each cell, which is one run over as many processes; with --nodes, on each machine.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    gpus: u16,
    /// Machines of each cell, in an array of Slurm's; srun starts its processes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    nodes: u16,
    /// Cells at once; as many as there are GPUs for if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Only cells whose name (task-model-method-seedN) this regular expression matches.
    #[arg(long, value_name = "REGEX")]
    filter: Option<String>,
    /// List the cells and what is done of them; run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print a script for Slurm's sbatch that runs the cells as an array; run nothing.
    #[arg(long)]
    slurm: bool,
    /// Run this cell alone, by its number in the list.
    #[arg(long, value_name = "N")]
    cell: Option<usize>,
    /// The folder that holds the cells' runs; experiments share it.
    #[arg(long, value_name = "FOLDER", default_value = "runs/cells")]
    runs: PathBuf,
    /// Where the results and their report are written, and cells of earlier results are found.
    #[arg(long, value_name = "FOLDER", default_value = "runs/results")]
    out: PathBuf,
}

/// Words for `--help`.
pub const HELP: &str = "\
Cells come from the experiment file; `seeds=[…]` and the like choose among them, and what is left
out or set otherwise writes its results under a name of its own (…-part). Finished cells are
skipped, broken ones go on; a cell that fails does not end the rest, and its reason is shown. Cells
are found by their settings, in the folder of runs and in the files of results, so experiments share
them, and results alone are enough to finish a grid elsewhere. To run cells again, name another
folder for both.

Examples:
  aflora experiment experiments/table4.yaml --dry-run
  aflora experiment experiments/table4.yaml --profile small data=../data --jobs 2
  aflora experiment experiments/table4.yaml --profile small seeds=[0] limit=256 epochs=4
  aflora experiment experiments/table1.yaml --slurm --jobs 16 > table1.sbatch

Exit codes: 0 all cells done, 1 some failed, 2 wrong usage, 130 or 143 interrupted.";

/// The signal that a cell reports which somebody else stopped.
const SIGINT: i32 = 2;

impl Experiment {
    /// The cells that were asked for.
    ///
    /// # Errors
    /// What is wrong with the file, the profile or a setting.
    pub fn plan(&self) -> Result<Plan> {
        let choice = Choice {
            profile: self.profile.clone(),
            filter: self.filter.clone(),
            overrides: self.overrides.clone(),
        };
        Plan::new(&self.file, &choice)
    }

    /// Runs the experiment's cells, or does what was asked for in their place.
    ///
    /// # Errors
    /// What was asked for is wrong, cells failed, or a signal came.
    pub fn run(self, progress: &mut dyn Progress) -> Result<()> {
        let mut plan = self.plan()?;
        let gpus = runner::gpus();
        let processes = usize::from(self.gpus);
        let jobs = self.jobs.map_or((gpus.len() / processes).max(1), usize::from);
        let program = std::env::current_exe().context("where this program lies")?;
        let (runs, nodes) = (runner::absolute(&self.runs), usize::from(self.nodes));
        if nodes > 1 && !self.slurm && self.cell.is_none() && !self.dry_run {
            let words =
                "--nodes: a cell of several machines is a job of Slurm's; print its script with \
                         --slurm";
            return Err(UsageError(words.into()).into());
        }
        plan.find(&runs);
        let stored = Stored::read(&self.out, &plan);
        let runner = Runner { runs, program, jobs, gpus, processes, nodes, stored };
        if self.slurm {
            let given: Vec<String> = self.filter.iter().map(|f| format!("--filter={f}")).collect();
            let given = [given, self.overrides.clone()].concat();
            let request = SlurmRequest {
                program: &runner.program,
                file: &self.file,
                runs: &self.runs,
                jobs: self.jobs,
                gpus: self.gpus,
                nodes: self.nodes,
                given: &given,
            };
            let script = slurm::script(&plan, &request)?;
            // Slurm makes no folder for what its tasks print, and a task that cannot open that file fails without a word.
            let made = std::fs::create_dir_all(&runner.runs);
            made.with_context(|| format!("{} cannot be made", runner.runs.display()))?;
            print!("{script}");
            return Ok(());
        }
        if let Some(number) = self.cell {
            let last = plan.cells.len() - 1;
            if number > last {
                return Err(UsageError(format!("--cell {number}: cells are 0 to {last}")).into());
            }
            plan.cells = vec![plan.cells.swap_remove(number)];
        }
        if self.dry_run {
            print!("{}", listed(&plan, &runner));
            return Ok(());
        }
        if self.cell.is_none() {
            check_makeable("the folder of results", &self.out)?;
        }
        let tally = runner::run(&plan, &runner, progress)?;
        // A cell of an array is no experiment: whoever started the array collects.
        if self.cell.is_none() {
            let results = collect(&plan, &runner.runs, &runner.stored, &tally.failures);
            let written = results.write(&self.out, plan.partial)?;
            println!("{}", shown(&written));
            report::command(std::slice::from_ref(&self.out), None)?;
        }
        if !tally.failures.is_empty() {
            let n = counted(tally.failures.len(), "cell");
            bail!("{n} failed\n{}", runner::failures(&tally));
        }
        interrupt::check()?;
        match tally.interrupted {
            true => Err(Interrupted(SIGINT).into()),
            false => Ok(()),
        }
    }
}

/// The cells with what is done of them; why those failed that did stands below them.
fn listed(plan: &Plan, runner: &Runner) -> String {
    let line = |(i, cell): (usize, &Planned)| {
        let folder = runner.runs.join(cell.folder());
        let failure = runner.failure(cell);
        let state = match (runner.is_done(cell), &failure, folder.exists()) {
            (true, ..) => "done",
            (false, Some(_), _) => "failed",
            (false, None, true) => "begun",
            (false, None, false) => "open",
        };
        let place = match (folder.exists(), runner.stored.file(cell)) {
            (false, Some(file)) => file.to_path_buf(),
            _ => folder,
        };
        let (name, folder) = (cell.name(), place.display().to_string());
        let (name, folder) = (printable_line(&name), printable_line(&folder));
        let why = match (state, failure) {
            ("failed", Some(why)) => {
                why.lines().map(|w| format!("      {}\n", printable(w))).collect()
            }
            _ => String::new(),
        };
        format!("{i:>4}  {state:<6}  {name:<60}  {folder}\n{why}")
    };
    let cells: String = plan.cells.iter().enumerate().map(line).collect();
    let title = printable_line(&plan.layout.title);
    let n = counted(plan.cells.len(), "cell");
    format!("{title}\n{n}, profile {}\n{cells}", printable_line(&plan.profile))
}
