//! An experiment as a job array for Slurm: one task of the array a cell.

use super::grid::Plan;
use super::runner::Place;
use std::path::Path;

/// An sbatch script that runs the plan's cells. `file` is the experiment file, `given` what the
/// user gave beside it; `jobs` how many tasks may run at once, if that is limited.
pub fn script(
    plan: &Plan,
    place: &Place,
    file: &Path,
    jobs: Option<u16>,
    given: &[String],
) -> String {
    let last = plan.cells.len().saturating_sub(1);
    let Place { runs, program, .. } = place;
    let here = std::env::current_dir().unwrap_or_default();
    let limit = jobs.map_or(String::new(), |jobs| format!("%{jobs}"));
    let logs = runs.join("slurm-%A-%a.log");
    let quoted: Vec<String> = given.iter().map(|word| quote(word)).collect();
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    format!(
        "#!/bin/bash
# {title}: {n} cells.
# Submit with sbatch; submit again to go on: finished cells end at once, broken ones go on.
# When all are done, the same `aflora experiment` without --slurm collects them.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --output={logs}
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --signal=TERM@60
set -euo pipefail
cd {here}
exec {program} experiment {file} --profile {profile} --runs {runs} --cell \"$SLURM_ARRAY_TASK_ID\" {given}
",
        title = plan.layout.title,
        n = plan.cells.len(),
        name = plan.experiment,
        here = quote(&here.display().to_string()),
        logs = logs.display(),
        program = quote(&program.display().to_string()),
        file = quote(&file.display().to_string()),
        profile = quote(&plan.profile),
        runs = quote(&runs.display().to_string()),
        given = quoted.join(" "),
    )
}

/// A word that a shell reads as it is.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_were_given() {
        assert_eq!(quote("lr=1e-3"), "lr=1e-3");
        assert_eq!(quote("seeds=[0, 1]"), "'seeds=[0, 1]'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
