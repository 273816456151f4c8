//! The commands in the documents, read as the command line reads them. Blocks that are marked `sh
//! run` are run (`tests/structure/commands.rs`); those that are marked `sh parse` need a GPU, the
//! network or hours, and are held to what there is: subcommands, options, settings,
//! configurations, targets of make, crates and files.

use super::inspect::Inspect;
use super::{Cli, Command};
use crate::documents::{self, Document};
use clap::error::ErrorKind;
use clap::Parser;
use std::path::{Path, PathBuf};

/// Programs of which only what they start is looked at.
const LAUNCHERS: [&str; 3] = ["torchrun", "srun", "mpirun"];

/// A shell's words by commands: quotes, comments, continued lines, pipes and redirections are
/// understood, and variables that are set for one command are left out.
fn commands(script: &str) -> Vec<Vec<String>> {
    let (mut all, mut command): (Vec<Vec<String>>, Vec<String>) = Default::default();
    let (mut word, mut quote): (Option<String>, Option<char>) = (None, None);
    let mut redirected = false;
    let script = script.replace("\\\n", " ") + "\n";
    let mut rest = script.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_with(String::new).push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_with(String::new);
            }
            (None, '#') if word.is_none() => {
                rest.by_ref().find(|&c| c == '\n');
                all.push(std::mem::take(&mut command));
            }
            (None, ' ' | '\t' | '\n' | '|' | ';' | '&' | '<' | '>') => {
                if let Some(word) = word.take() {
                    let set = command.is_empty() && word.split('=').count() == 2;
                    if !std::mem::take(&mut redirected) && !set {
                        command.push(word);
                    }
                }
                match c {
                    '<' | '>' => redirected = true,
                    ' ' | '\t' => {}
                    _ => all.push(std::mem::take(&mut command)),
                }
            }
            (None, c) => word.get_or_insert_with(String::new).push(c),
        }
    }
    all.retain(|command| !command.is_empty());
    all
}

/// Whether this command would be understood, in the folder `root`.
fn check(root: &Path, command: &[String]) -> Result<(), String> {
    let arguments = &command[1..];
    let is_file = |path: &String| match root.join(path).exists() {
        true => Ok(()),
        false => Err(format!("{path} is not there")),
    };
    match command[0].rsplit('/').next().unwrap() {
        _ if command[0].starts_with("scripts/") => is_file(&command[0]),
        "aflora" => aflora(&command[1..]),
        "make" => make(root, arguments),
        "cargo" => cargo(root, arguments),
        "python" | "python3" => arguments.first().map_or(Ok(()), is_file),
        name if LAUNCHERS.contains(&name) => launched(command),
        // What it starts stands behind the image, which has the program's name.
        "podman" if arguments[0] == "run" => launched(command),
        "podman" => is_file(&"Containerfile".into()),
        "install.sh" => is_file(&"scripts/release/install.sh".into()),
        "echo" | "cat" | "mkdir" | "tar" | "compute-sanitizer" => Ok(()),
        name => Err(format!("nobody knows how to check `{name}`")),
    }
}

/// Reads what a command has behind the program that it starts.
fn launched(command: &[String]) -> Result<(), String> {
    let at = command.iter().position(|word| word == "aflora");
    aflora(&command[at.ok_or("it starts no aflora")? + 1..])
}

/// Reads the arguments, and the configuration that they name.
fn aflora(arguments: &[String]) -> Result<(), String> {
    // Cells of other seeds would be read alike, and a grid has hundreds.
    let seed = arguments.first().filter(|first| *first == "experiment").map(|_| "seeds=[0]");
    let words = std::iter::once("aflora").chain(arguments.iter().map(String::as_str)).chain(seed);
    let command = match Cli::try_parse_from(words) {
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(()),
        parsed => parsed.map_err(|error| error.to_string())?.command,
    };
    match command {
        Command::Run(target)
        | Command::Validate(target)
        | Command::Inspect(Inspect { target, .. }) => {
            target.load().map(drop).map_err(|error| error.to_string())
        }
        Command::Launch(launch) => aflora(&launch.command),
        Command::Experiment(experiment) => {
            experiment.plan().map(drop).map_err(|error| format!("{error:#}"))
        }
        _ => Ok(()),
    }
}

/// Asks make what it would do, and checks the commands of ours among it.
fn make(root: &Path, arguments: &[String]) -> Result<(), String> {
    let mut make = std::process::Command::new("make");
    make.arg("--dry-run").args(arguments).current_dir(root).env_remove("MAKEFLAGS");
    let output = make.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let planned = commands(&String::from_utf8_lossy(&output.stdout));
    let mut ours = planned.iter().filter(|command| command[0] == "target/release/aflora");
    ours.try_for_each(|command| aflora(&command[1..]))
}

/// The crates, tests and benchmarks that it names are there.
fn cargo(root: &Path, arguments: &[String]) -> Result<(), String> {
    let after = |option: &str| {
        arguments.iter().position(|a| a == option).and_then(|at| arguments.get(at + 1))
    };
    let Some(package) = after("-p").or(after("--package")) else { return Ok(()) };
    let package = root.join("crates").join(package);
    let mut needed = vec![package.clone()];
    for (option, folder) in [("--test", "tests"), ("--bench", "benches"), ("--example", "examples")]
    {
        needed.extend(after(option).map(|name| {
            let file = package.join(folder).join(format!("{name}.rs"));
            if file.exists() {
                file
            } else {
                package.join(folder).join(name)
            }
        }));
    }
    match needed.into_iter().find(|path| !path.exists()) {
        Some(path) => Err(format!("{} is not there", path.display())),
        None => Ok(()),
    }
}

/// The project's folder, which becomes the one that paths in commands count from.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    std::env::set_current_dir(&root).unwrap();
    root
}

#[test]
fn commands_that_documents_only_show_are_understood() {
    let root = root();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for block in documents::all(&root).iter().flat_map(Document::blocks) {
        for command in commands(&block.text).iter().filter(|_| block.info == "sh parse") {
            checked += 1;
            if let Err(words) = check(&root, command) {
                wrong.push(format!("{}: {}: {words}", block.place, command.join(" ")));
            }
        }
    }
    assert!(checked > 30, "{checked}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Within a sentence a command may be a part of one, but says nothing that there is not.
#[test]
fn commands_within_sentences_are_understood() {
    use ErrorKind::{DisplayHelp, DisplayVersion, MissingRequiredArgument};
    let root = root();
    let code = regex::Regex::new("`(aflora [^`]+)`").unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for document in documents::all(&root) {
        for (at, line) in document.prose() {
            for found in code.captures_iter(line) {
                checked += 1;
                let first = commands(&found[1]).swap_remove(0);
                if let Err(error) = Cli::try_parse_from(first) {
                    let partial = [MissingRequiredArgument, DisplayHelp, DisplayVersion];
                    if !partial.contains(&error.kind()) {
                        wrong.push(format!("{}:{at}: {}: {error}", document.name, &found[1]));
                    }
                }
            }
        }
    }
    assert!(checked > 20, "{checked}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_is_wrong_in_any_word_is_found() {
    let root = root();
    for (script, words) in [
        ("aflora rnu configs/experiment.yaml", "rnu"),
        ("AFLORA_LOG=warn aflora ls --long  # what", "--long"),
        ("aflora run configs/none.yaml", "none.yaml"),
        ("aflora run configs/experiment.yaml method=afora", "afora"),
        ("aflora run configs/experiment.yaml 'lr=fast' < x", "lr"),
        ("aflora launch --nproc 2 run configs/experiment.yaml task=mrcp", "mrcp"),
        ("aflora experiment experiments/table4.yaml tasks=[mrcp]", "mrcp"),
        ("torchrun --no-python aflora run configs/experiment.yaml task=mrcp", "mrcp"),
        ("make experiment TASK=mrcp", "mrcp"),
        ("make experment", "experment"),
        ("cargo test -p aflora-ran", "aflora-ran"),
        ("cargo bench -p aflora-run --bench stop", "stop"),
        ("python bench/stop.py --help", "bench/stop.py"),
        ("podman run --rm aflora rnu train=reviews.csv", "rnu"),
        ("podman run --rm alpine", "aflora"),
        ("curl x | sh", "curl"),
    ] {
        let found = commands(script);
        let told = check(&root, &found[0]).expect_err(script);
        assert!(told.contains(words), "{script}: {told}");
    }
    let found = commands("echo 'a b' \\\n  \"c\" > d | X=1 aflora ls # e\nmake a; make b");
    let words: Vec<Vec<&str>> =
        found.iter().map(|c| c.iter().map(String::as_str).collect()).collect();
    assert_eq!(
        words,
        [vec!["echo", "a b", "c"], vec!["aflora", "ls"], vec!["make", "a"], vec!["make", "b"]]
    );
}
