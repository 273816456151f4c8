//! A kernel's source as NVRTC is given it, which knows no files: in place of an include stands what it names, once.

use std::path::Path;
use std::{fs, io};

/// `file` of the folder `kernels`, with all that it includes.
pub fn source(kernels: &Path, file: &str) -> io::Result<String> {
    let mut made = String::new();
    add(&mut made, &mut Vec::new(), kernels, file)?;
    Ok(made)
}

fn add(
    made: &mut String,
    included: &mut Vec<String>,
    kernels: &Path,
    file: &str,
) -> io::Result<()> {
    for line in fs::read_to_string(kernels.join(file))?.lines() {
        let name = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        match name {
            None => made.extend([line, "\n"]),
            Some(name) if included.iter().any(|known| known == name) => {}
            Some(name) => {
                included.push(name.to_owned());
                add(made, included, kernels, name)?;
            }
        }
    }
    Ok(())
}
