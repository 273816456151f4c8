//! The disks of runs and of the cache, and the hub. Nothing is asked of a network.

use super::finding::{bytes, path, Finding};
use crate::hub::Hub;
use aflora_files::write::check_makeable;
use std::path::Path;

/// Bytes that a run of a small model leaves at the most: adapter, checkpoints, logs.
const LEAST: u64 = 100_000_000;

/// Bytes that hold a model of common size, or the checkpoints of a large one.
const ENOUGH: u64 = 2_000_000_000;

/// The disk that runs are written to.
pub(super) fn runs(folder: &Path) -> Finding {
    disk("run folder", folder, "name another folder: run_dir=…", Finding::missing)
}

/// The disk that the hub's files are kept on; runs on files of one's own do without.
pub(super) fn cache(hub: &Hub) -> Finding {
    disk("hub cache", hub.cache_folder(), "set HF_HUB_CACHE to another folder", Finding::less)
}

/// A disk; where nothing can be written it is what `bad` makes of it.
fn disk(
    of: &'static str,
    folder: &Path,
    remedy: &'static str,
    bad: impl Fn(&'static str, String, &'static str) -> Finding,
) -> Finding {
    let shown = folder.display();
    let finding = match (check_makeable(folder), free(folder)) {
        (Err(error), _) => bad(of, format!("{shown} cannot be written: {error}"), remedy),
        (Ok(()), None) => Finding::good(of, format!("{shown} can be written")),
        (Ok(()), Some(free)) => {
            let found = format!("{shown}, {} free", bytes(free));
            match free {
                ..LEAST => bad(of, found, remedy),
                LEAST..ENOUGH => Finding::less(of, found, remedy),
                _ => Finding::good(of, found),
            }
        }
    };
    finding.with("folder", path(folder)).with("free", free(folder))
}

/// Bytes that are free for this user where `folder` lies, or would lie.
fn free(folder: &Path) -> Option<u64> {
    let here = |part| if part == Path::new("") { Path::new(".") } else { part };
    let there = folder.ancestors().map(here).find(|part| part.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(there).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The hub, as the environment names it.
pub(super) fn hub(hub: &Hub) -> Finding {
    let token = if hub.has_token() { "a token is set" } else { "no token" };
    let finding = match (hub.address(), hub.forbidden_by()) {
        (None, _) => Finding::less(
            "hub",
            "HF_ENDPOINT is no address (it may hold a password, so it is not shown)",
            "set it to one such as https://huggingface.co, or unset it",
        ),
        (Some(address), Some(variable)) => Finding::less(
            "hub",
            format!("{address}, not to be asked: {variable} is set; {token}"),
            format!("unset {variable}, if models and data should be fetched"),
        ),
        (Some(address), None) => Finding::good("hub", format!("{address}, {token}, not asked now")),
    };
    let finding = finding.with("address", hub.address()).with("token", hub.has_token());
    finding.with("offline", hub.is_offline())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn a_run_folder_that_cannot_be_made_ends_all_and_a_cache_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(runs(&file.join("runs")).state, State::Missing);
        let at = |cache: &Path| cache_state(cache);
        assert_eq!(at(&file.join("hub")), State::Less);
        // HF_HOME does not move a cache that HF_HUB_CACHE names.
        let finding = cache(&Hub::at("https://huggingface.co", &file.join("hub")));
        assert!(finding.remedy.unwrap().contains("HF_HUB_CACHE"));
        assert_ne!(runs(&folder.path().join("a/b")).state, State::Missing);
        assert!(!folder.path().join("a").exists(), "nothing is left");
    }

    fn cache_state(folder: &Path) -> State {
        cache(&Hub::at("https://huggingface.co", folder)).state
    }

    #[test]
    fn the_hub_s_address_is_shown_without_its_password() {
        let folder = tempfile::tempdir().unwrap();
        let finding = hub(&Hub::at("https://me:secret@mirror.example/hub/", folder.path()));
        assert!(finding.found.starts_with("https://mirror.example/hub, "), "{}", finding.found);
        assert!(!serde_json::to_string(&finding).unwrap().contains("secret"));
        let offline = Hub::at("https://mirror.example", folder.path()).without_network();
        assert_eq!(hub(&offline).state, State::Less);
        assert_eq!(hub(&Hub::at("no address", folder.path())).state, State::Less);
    }
}
