//! Where a model's files are: in a folder that the user named, at the model's own path, in the
//! hub's cache, on the hub.

use crate::config::{Resolved, WeightsFrom};
use crate::feed::Locator;
use crate::hub::{Hub, HubError, Repo};
use crate::installation;
use crate::ui::Progress;
use crate::usage;
use aflora_models::adapter_folder::BaseModel;
use aflora_models::generate::GENERATION_CONFIG;
use aflora_models::{model_file, tokenizer, ModelSource};
use anyhow::Result;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";

/// A model's files.
#[derive(Debug)]
pub struct ModelFiles {
    /// `config.json`.
    pub config: PathBuf,
    /// The folder that holds it, the tokenizer and the weights, or the GGUF file that does.
    pub folder: PathBuf,
    /// The folder of the tokenizer: the same, unless an adapter brought one.
    pub tokenizer: PathBuf,
    /// What others find it by: the repository that it came from, or the folder.
    pub base: BaseModel,
    /// Whether a run would fetch what is not there.
    pub on_hub: bool,
}

impl ModelFiles {
    /// Those of a folder that somebody named.
    fn of_folder(folder: PathBuf) -> Self {
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let base = BaseModel::from(whole.to_string_lossy().as_ref());
        let tokenizer = folder.clone();
        ModelFiles { config: folder.join(CONFIG), folder, tokenizer, base, on_hub: false }
    }

    /// The same, with the tokenizer of the adapter in the folder `adapter`, where it has one.
    pub fn with_tokenizer_of(mut self, adapter: &Path) -> Self {
        if tokenizer::VOCABULARIES.iter().any(|file| adapter.join(file).is_file()) {
            self.tokenizer = adapter.to_path_buf();
        }
        self
    }

    /// Where the model is from.
    pub fn source(&self) -> ModelSource<'_> {
        ModelSource { model: &self.folder, tokenizer: &self.tokenizer }
    }

    /// Whether these are the files of `other`, whatever each is found by.
    pub fn are(&self, other: &ModelFiles) -> bool {
        let place = |files: &ModelFiles| files.folder.canonicalize().ok();
        self.base == other.base || place(self).is_some_and(|own| Some(own) == place(other))
    }

    /// Whether anything of a tokenizer is there.
    pub fn have_tokenizer(&self) -> bool {
        tokenizer::FILES.iter().any(|file| model_file::is_there(&self.tokenizer.join(file)))
    }
}

/// The variable that names a folder as `data` does.
const VARIABLE: &str = "AFLORA_DATA";

/// The folder that the environment names, absolute: what is found there is written down.
pub fn environment_data() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(VARIABLE).filter(|v| !v.is_empty())?);
    Some(std::path::absolute(&folder).unwrap_or(folder))
}

/// The places where data and models are looked for.
pub fn locator(resolved: &Resolved) -> Locator {
    let environment = environment_data();
    let mut named = Vec::new();
    if let Some(folder) =
        resolved.run.data.as_ref().filter(|data| environment.as_ref() != Some(data))
    {
        named.push((format!("data={}", folder.display()), folder.clone()));
    }
    named.extend(environment.map(|folder| (VARIABLE.to_string(), folder)));
    Locator { named, projects: projects(resolved), hub: Hub::from_env() }
}

/// The folders with what comes with the project: the run's own, and the release that runs it.
fn projects(resolved: &Resolved) -> Vec<PathBuf> {
    let release = installation::folder().map(Path::to_path_buf);
    let release = release.filter(|folder| *folder != resolved.project);
    std::iter::once(resolved.project.clone()).chain(release).collect()
}

/// The model's files; only its config.json unless it `runs`. For its shapes, the one that ships with
/// the project will do. A folder that a run of it `used` is the last of those that are looked into.
///
/// # Errors
/// It is nowhere; everything tried is listed.
pub fn find(
    resolved: &Resolved,
    locator: &Locator,
    used: Option<&Path>,
    runs: bool,
    progress: &mut dyn Progress,
) -> Result<ModelFiles> {
    let model = &resolved.model;
    let mut tried = String::new();
    let mut places: Vec<PathBuf> = Vec::new();
    // One that was named whole is meant, whatever else has its name.
    places.extend(model.path.iter().filter(|path| path.is_absolute()).cloned());
    for (_, folder) in &locator.named {
        places.push(folder.join(&model.model));
        places.push(folder.join("models").join(&model.model));
    }
    let own = |project: &PathBuf| model.path.as_ref().map(|path| project.join(path));
    places.extend(locator.projects.iter().filter_map(own));
    places.extend(used.map(Path::to_path_buf));
    let shipped = shipped(resolved).filter(|_| !runs);
    places.extend(shipped.clone());
    let mut seen = HashSet::new();
    // An absolute path is the same below any folder.
    for folder in places.into_iter().filter(|folder| seen.insert(folder.clone())) {
        let config = folder.join(CONFIG);
        if model_file::is_there(&config) {
            // A run does not read those that ship with the project: it goes on to the hub.
            let on_hub = model.repo.is_some() && shipped.as_ref() == Some(&folder);
            return Ok(ModelFiles { on_hub, ..ModelFiles::of_folder(folder) });
        }
        tried.push_str(&format!("\n  {}", config.display()));
    }
    if let (Some(repo), Some(revision)) = (&model.repo, &model.revision) {
        let repo = Repo { repo: repo.clone(), revision: revision.clone(), dataset: false };
        tried.push_str(&format!("\n  {}", locator.hub.cached(&repo, CONFIG).display()));
        let weights = runs && model.weights == WeightsFrom::Pretrained;
        match fetch(&locator.hub, &repo, weights, runs, progress) {
            Ok(config) => {
                let folder = config.parent().unwrap_or(Path::new(".")).to_path_buf();
                let base = BaseModel { name: repo.repo, revision: Some(repo.revision) };
                let tokenizer = folder.clone();
                return Ok(ModelFiles { config, folder, tokenizer, base, on_hub: true });
            }
            Err(error) => tried.push_str(&format!("\n  {error}")),
        }
    }
    let name = &model.model;
    let asset = model.path.as_deref().and_then(installation::asset);
    let remedy = asset.map_or(String::new(), |asset| {
        format!("; {} fetches this one", installation::model_by(asset))
    });
    usage!(
        "the model `{name}` was not found. Tried:{tried}\nName a folder that holds {name}/config.json, \
         its weights and its tokenizer with data=folder or AFLORA_DATA{remedy}."
    )
}

/// The folder of the config.json that ships with the model's block, for its shapes alone: there are
/// no weights in it. None where other files were asked for than that block names.
fn shipped(resolved: &Resolved) -> Option<PathBuf> {
    let model = &resolved.model;
    let path = model.path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let named = [path, model.repo.clone(), model.revision.clone()];
    projects(resolved).iter().find_map(|project| {
        let folder = project.join("configs").join("models");
        let block = aflora_files::read_text(&folder.join(format!("{}.yaml", model.model))).ok()?;
        let same = named.iter().flatten().all(|name| block.contains(name));
        same.then(|| folder.join(&model.model))
    })
}

fn fetch(
    hub: &Hub,
    repo: &Repo,
    weights: bool,
    tokenizer: bool,
    progress: &mut dyn Progress,
) -> Result<PathBuf, HubError> {
    let config = hub.get(repo, CONFIG, &mut |_, _| {})?;
    if weights {
        fetch_weights(hub, repo, progress)?;
    }
    if tokenizer {
        hub.get_tokenizer(repo)?;
        hub.first_of(repo, &[GENERATION_CONFIG], &mut |_, _| {})?;
    }
    Ok(config)
}

fn fetch_weights(hub: &Hub, repo: &Repo, progress: &mut dyn Progress) -> Result<(), HubError> {
    let found = hub.first_of(
        repo,
        &aflora_models::weights::FILES,
        &mut byte_progress(progress, "weights"),
    )?;
    let Some(index) = found.filter(|path| path.extension().is_some_and(|e| e == "json")) else {
        return Ok(());
    };
    // A damaged index is told by the reader of the weights.
    for shard in aflora_models::weights::shards(&index).unwrap_or_default() {
        hub.get(repo, &shard, &mut byte_progress(progress, &shard))?;
    }
    Ok(())
}

/// Shows a download of `what`.
pub fn byte_progress<'a>(
    progress: &'a mut dyn Progress,
    what: &str,
) -> impl FnMut(u64, Option<u64>) + 'a {
    const UNIT: u64 = 1000;
    let mut begun = false;
    let what = format!("download {what} (kB)");
    move |done, total| {
        if !begun {
            progress.begin(&what, total.unwrap_or(0) / UNIT);
            begun = true;
        }
        progress.update(done / UNIT, "");
        if Some(done) == total {
            progress.end();
            begun = false;
        }
    }
}
