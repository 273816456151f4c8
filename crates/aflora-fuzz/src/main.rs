//! `aflora-fuzz seeds FOLDER` writes the seeds, a folder a target; `aflora-fuzz names` lists the
//! targets; `aflora-fuzz replay TARGET FILE` runs one input.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["names"] => {
            aflora_fuzz::TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(())
        }
        ["seeds", folder] => write_seeds(Path::new(folder)),
        ["replay", name, file] => std::fs::read(file).map(|bytes| {
            if let Some(target) = aflora_fuzz::find(name) {
                (target.run)(&bytes);
            }
        }),
        _ => {
            eprintln!("aflora-fuzz names | seeds FOLDER | replay TARGET FILE");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    for target in aflora_fuzz::TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
