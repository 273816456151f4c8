//! An experiment as a job array for Slurm: one task of the array a cell.

use super::grid::Plan;
use super::runner::{absolute, PROCESSORS};
use crate::ui::counted;
use crate::usage;
use aflora_files::printable_line;
use anyhow::Result;
use std::path::Path;

/// What an sbatch script is asked to run, with the paths as the user typed them.
#[derive(Debug, Clone, Copy)]
pub struct SlurmRequest<'a> {
    /// The `aflora` program.
    pub program: &'a Path,
    /// The experiment file.
    pub file: &'a Path,
    /// The folder that holds the cells' folders.
    pub runs: &'a Path,
    /// How many tasks may run at once, if that is limited.
    pub jobs: Option<u16>,
    /// GPUs of each cell on each of its machines.
    pub gpus: u16,
    /// Machines of each cell.
    pub nodes: u16,
    /// What the user gave beside these.
    pub given: &'a [String],
}

/// An sbatch script that runs the plan's cells.
///
/// # Errors
/// Something that the script says holds a control character, with which a line could end and
/// another command begin, or a path that no script can hold.
pub fn script(plan: &Plan, request: &SlurmRequest) -> Result<String> {
    let SlurmRequest { program, file, runs, jobs, gpus, nodes, given } = *request;
    let last = plan.cells.len().saturating_sub(1);
    let limit = jobs.map_or(String::new(), |jobs| format!("%{jobs}"));
    let here = std::env::current_dir().unwrap_or_default();
    // First of all: paths that are not absolute begin with it.
    let here = path("the working folder", &here)?;
    let given: Vec<String> =
        given.iter().map(|word| quote("an argument", word)).collect::<Result<_>>()?;
    Ok(format!(
        "#!/bin/bash
# {title}: {n}.
# Submit with sbatch; submit again to go on: finished cells end at once, broken ones go on.
# When all are done, the same `aflora experiment` without --slurm collects them.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --output={logs}
#SBATCH --gres=gpu:{gpus}
{tasks}
set -euo pipefail
cd {here}
exec {program} experiment {file} --profile {profile} --runs {runs} --cell \"$SLURM_ARRAY_TASK_ID\"{each} {given}
",
        title = quote("the experiment's title", &plan.layout.title)?,
        n = counted(plan.cells.len(), "cell"),
        name = quote("the experiment's name", &plan.experiment)?,
        logs = logs(runs)?,
        program = path("the program's path", program)?,
        file = path("the experiment file's path", file)?,
        profile = quote("--profile", &plan.profile)?,
        runs = path("--runs", runs)?,
        tasks = tasks(gpus, nodes),
        each = each(gpus, nodes),
        given = given.join(" "),
    ))
}

/// What says how many processes a cell is, and whom Slurm tells before the time is over.
fn tasks(gpus: u16, nodes: u16) -> String {
    let lines = match nodes {
        // The command below is the script's own process, which is told only where that is asked for.
        1 => vec![
            format!("cpus-per-task={}", PROCESSORS * u32::from(gpus)),
            "signal=B:TERM@60".to_string(),
        ],
        // It starts the cell's processes by srun, and those are told.
        _ => vec![
            format!("nodes={nodes}"),
            format!("ntasks-per-node={gpus}"),
            format!("cpus-per-task={PROCESSORS}"),
            "signal=TERM@60".to_string(),
        ],
    };
    let lines: Vec<String> = lines.iter().map(|line| format!("#SBATCH --{line}")).collect();
    lines.join("\n")
}

fn each(gpus: u16, nodes: u16) -> String {
    let mut words = String::new();
    for (name, count) in [("gpus", gpus), ("nodes", nodes)] {
        if count > 1 {
            words += &format!(" --{name} {count}");
        }
    }
    words
}

/// The pattern of the logs' names. Slurm puts numbers in place of `%A` and `%a`, takes `%%` for a
/// percent sign, and leaves a pattern as it is in which a backslash stands.
fn logs(typed: &Path) -> Result<String> {
    let folder = whole("--runs", typed)?;
    if folder.contains('\\') {
        usage!(
            "--runs {}: a backslash in {folder}, with which Slurm names no logs",
            typed.display()
        );
    }
    quote("--runs", &format!("{}/slurm-%A-%a.log", folder.replace('%', "%%")))
}

fn path(what: &str, typed: &Path) -> Result<String> {
    quote(what, &whole(what, typed)?)
}

/// The absolute path, of one that a script can hold: refused is what was typed, not what is made
/// of it.
fn whole(what: &str, typed: &Path) -> Result<String> {
    refuse_control(what, text(what, typed)?)?;
    Ok(text(what, &absolute(typed))?.to_string())
}

fn text<'a>(what: &str, path: &'a Path) -> Result<&'a str> {
    match path.to_str() {
        Some(text) => Ok(text),
        None => usage!("{what} is not UTF-8 ({}), and cannot stand in a script", path.display()),
    }
}

/// A word that a shell, and sbatch in its own lines, read as it is: POSIX's single quotes, in which
/// nothing but their end means anything.
fn quote(what: &str, word: &str) -> Result<String> {
    refuse_control(what, word)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    Ok(match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    })
}

fn refuse_control(what: &str, word: &str) -> Result<()> {
    // Those that only change how a line looks would let it say something else than it does.
    let shown = printable_line(word);
    if shown != word {
        usage!("{what} holds a control character, which no script for Slurm can hold: {shown}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aflora_record::results::Layout;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::Command;

    fn plan(title: &str, experiment: &str, profile: &str) -> Plan {
        let layout = Layout { title: title.into(), ..Layout::default() };
        Plan {
            experiment: experiment.into(),
            profile: profile.into(),
            layout,
            partial: false,
            run_file: PathBuf::new(),
            cells: Vec::new(),
        }
    }

    #[test]
    fn words_reach_the_program_as_they_were_given() {
        let quote = |word| quote("a word", word).unwrap();
        assert_eq!(quote("lr=1e-3"), "lr=1e-3");
        assert_eq!(quote("seeds=[0, 1]"), "'seeds=[0, 1]'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }

    /// What means something to a shell, in a comment, in a word, in a path.
    const HOSTILE: &str = "a'b \"c\" $(touch pwned) `touch pwned` ; touch pwned & #x | ~ ! * \\ é";

    #[test]
    fn names_in_a_slurm_script_run_no_command() {
        let folder = tempfile::tempdir().unwrap();
        // A stand-in for the program, in a folder of such a name: it writes down its arguments.
        let bin = folder.path().join(HOSTILE);
        fs::create_dir(&bin).unwrap();
        let (stub, told) = (bin.join("aflora"), folder.path().join("told"));
        fs::write(&stub, "#!/bin/bash\nprintf '%s\\0' \"$@\" > \"$TOLD\"\n").unwrap();
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
        let runs = folder.path().join(HOSTILE.replace('\\', "100%"));
        let file = folder.path().join(format!("{HOSTILE}.yaml"));
        let given = [format!("--filter={HOSTILE}"), format!("data={HOSTILE}"), "lr='$x'".into()];
        let plan = plan(HOSTILE, HOSTILE, HOSTILE);
        let request = SlurmRequest {
            program: &stub,
            file: &file,
            runs: &runs,
            jobs: Some(2),
            gpus: 1,
            nodes: 1,
            given: &given,
        };
        let text = script(&plan, &request).unwrap();

        let path = folder.path().join("array.sh");
        fs::write(&path, &text).unwrap();
        let bash = |arguments: &[&str]| {
            let mut bash = Command::new("bash");
            bash.args(arguments).arg(&path).current_dir(folder.path());
            bash.env("TOLD", &told).env("SLURM_ARRAY_TASK_ID", "7").output().unwrap()
        };
        for output in [bash(&["-n"]), bash(&[])] {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && words.is_empty(), "{words}\n{text}");
        }
        let expected = [
            "experiment",
            file.to_str().unwrap(),
            "--profile",
            HOSTILE,
            "--runs",
            runs.to_str().unwrap(),
            "--cell",
            "7",
            &given[0],
            &given[1],
            &given[2],
        ];
        let told = fs::read_to_string(&told).unwrap();
        assert_eq!(told.split_terminator('\0').collect::<Vec<_>>(), expected);
        assert!(!folder.path().join("pwned").exists() && !Path::new("pwned").exists());
        // Slurm takes a doubled percent sign for one, in the name of the logs alone.
        let logs = text.lines().find(|line| line.contains("--output=")).unwrap();
        assert!(logs.contains("100%%") && logs.ends_with("/slurm-%A-%a.log'"), "{logs}");
    }

    #[test]
    fn a_cell_of_several_gpus_or_machines_asks_for_them() {
        let asked = |gpus, nodes| {
            let request = SlurmRequest {
                program: Path::new("/bin/aflora"),
                file: Path::new("/x.yaml"),
                runs: Path::new("/runs"),
                jobs: None,
                gpus,
                nodes,
                given: &[],
            };
            let text = script(&plan("x", "x", "x"), &request).unwrap();
            let lines = text.lines().filter_map(|line| line.strip_prefix("#SBATCH --"));
            let lines: Vec<String> = lines.skip(3).map(str::to_string).collect();
            let (_, each) = text.split_once("--cell \"$SLURM_ARRAY_TASK_ID\"").unwrap();
            (lines, each.trim().to_string())
        };
        for (gpus, nodes, lines, each) in [
            (1, 1, &["gres=gpu:1", "cpus-per-task=4", "signal=B:TERM@60"][..], ""),
            (4, 1, &["gres=gpu:4", "cpus-per-task=16", "signal=B:TERM@60"], "--gpus 4"),
            (
                8,
                2,
                &[
                    "gres=gpu:8",
                    "nodes=2",
                    "ntasks-per-node=8",
                    "cpus-per-task=4",
                    "signal=TERM@60",
                ],
                "--gpus 8 --nodes 2",
            ),
        ] {
            let lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
            assert_eq!(asked(gpus, nodes), (lines, each.to_string()));
        }
    }

    #[test]
    fn a_control_character_in_a_slurm_script_is_refused() {
        for c in ['\n', '\r', '\0', '\u{1b}', '\u{85}', '\u{2028}', '\u{202e}'] {
            let bad = format!("a{c}touch pwned");
            let (good, runs) = ("x".to_string(), PathBuf::from("/runs"));
            let shown = format!(": {bad}");
            let said = |plan: &Plan, runs: &Path, file: &Path, given: &[String]| {
                let program = Path::new("/bin/aflora");
                let (gpus, nodes) = (1, 1);
                let request = SlurmRequest { program, file, runs, jobs: None, gpus, nodes, given };
                let error = script(plan, &request).unwrap_err();
                assert!(error.is::<crate::UsageError>());
                error.to_string()
            };
            let file = PathBuf::from("/x.yaml");
            let all = [
                (said(&plan(&bad, "x", "x"), &runs, &file, &[]), "the experiment's title"),
                (said(&plan("x", &bad, "x"), &runs, &file, &[]), "the experiment's name"),
                (said(&plan("x", "x", &bad), &runs, &file, &[]), "--profile"),
                (said(&plan("x", "x", "x"), Path::new(&bad), &file, &[]), "--runs"),
                (said(&plan("x", "x", "x"), &runs, Path::new(&bad), &[]), "the experiment file"),
                (said(&plan("x", "x", "x"), &runs, &file, &[good, bad]), "an argument"),
            ];
            for (words, what) in all {
                assert!(words.starts_with(what), "{words}");
                assert!(words.contains("control character"), "{words}");
                assert!(!words.contains(c), "{words:?}");
                // What was typed, and nothing that was made of it.
                assert!(words.ends_with(&*printable_line(&shown)), "{words}");
            }
        }
    }
}
