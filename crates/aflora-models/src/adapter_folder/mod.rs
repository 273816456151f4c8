//! Adapters on disk, in the layout of Hugging Face PEFT: `adapter_config.json` and
//! `adapter_model.safetensors`, keys `base_model.model.<layer>.lora_A.weight`, the head beside
//! them under its own name.
//!
//! Folders of LoRA, VeRA and AdaLoRA go both ways: PEFT opens ours, we open PEFT's.

mod allowed;
mod layers;
mod peft;

pub use peft::{BaseModel, Description, TaskType};

use crate::adapted::AdaptedModel;
use crate::backbone::Backbone;
use crate::companions;
use crate::error::Lines;
use crate::targets::{Pattern, Targets};
use crate::weights::{in_module, Checkpoint};
use crate::{json, Error, Result};
use aflora_core::adapter::{AdapterTensor, LoraConfig, LowRank, MethodConfig};
use layers::Layers;
use safetensors::{Dtype, View};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The weights' file; older folders have a PyTorch file instead.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
const ROOT: &str = "base_model.model.";

fn key(site: &str, t: &AdapterTensor) -> String {
    match t.shared {
        true => format!("base_model.{}", t.key),
        false => format!("{ROOT}{site}.{}", t.key),
    }
}

/// Writes the adapters and the saved modules of `model` to `folder`.
///
/// The folder appears whole or not at all; one that was there is replaced.
pub fn save(model: &AdaptedModel, folder: &Path, description: &Description) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let (mut sites, mut ranks) = (Vec::new(), Vec::new());
    for adapter in model.adapters() {
        let site = &adapter.site().name;
        let saved = adapter.saved();
        let down = saved.iter().find(|t| t.name == "lora_A");
        ranks.push(down.map_or(adapter.rank(), |t| t.tensor.size()[0]));
        sites.push(site.clone());
        tensors.extend(saved.into_iter().map(|t| (key(site, &t), t.tensor)));
    }
    let mut config = description.to_json(&sites, &ranks);
    mark_transposed(model, &mut config);
    for (name, tensor) in model.saved_weights() {
        tensors.insert(format!("{ROOT}{name}"), tensor);
    }
    write_whole(folder, |folder| write(folder, &config, tensors))
}

/// Writes the adapters of `model` to `folder` as plain LoRA, whatever their method: every
/// vector, gate and scale folded into A and B. The tokenizer goes with them, from the model's own
/// folder `source`.
///
/// # Errors
/// The model has no adapters, or the folder cannot be written.
pub fn export_lora(
    model: &AdaptedModel,
    base_model: Option<BaseModel>,
    source: &Path,
    folder: &Path,
) -> Result<()> {
    let folded: Vec<(String, LowRank)> =
        tch::no_grad(|| model.adapters().map(|a| (a.site().name.clone(), a.folded())).collect());
    let rank = folded
        .iter()
        .map(|(_, pair)| pair.down.size()[0])
        .max()
        .ok_or_else(|| Error::Export("the model has no adapters".into()))?;
    // Plain LoRA has no rank of 0.
    let rank = rank.max(1);
    let mut tensors = BTreeMap::new();
    for (site, LowRank { down, up }) in &folded {
        // Layers of lower rank are filled up with components of zero.
        let missing = rank - down.size()[0];
        tensors.insert(
            format!("{ROOT}{site}.lora_A.weight"),
            down.constant_pad_nd([0, 0, 0, missing]),
        );
        tensors.insert(format!("{ROOT}{site}.lora_B.weight"), up.constant_pad_nd([0, missing]));
    }
    for (name, tensor) in model.saved_weights() {
        tensors.insert(format!("{ROOT}{name}"), tensor);
    }
    // A scale of alpha / rank = 1.
    let lora = LoraConfig { rank, alpha: rank as f64, ..LoraConfig::default() };
    let description = Description {
        method: MethodConfig::Lora(lora),
        base_model,
        length: None,
        modules_to_save: model.saved_modules(),
        task_type: TaskType::of(model.backbone()),
    };
    let sites: Vec<String> = folded.into_iter().map(|(site, _)| site).collect();
    let mut config = description.to_json(&sites, &[]);
    mark_transposed(model, &mut config);
    write_whole(folder, |folder| {
        write(folder, &config, tensors)?;
        companions::copy_tokenizer(source, folder)
    })
}

/// Tells PEFT that the weights lie transposed, as GPT-2's do.
fn mark_transposed(model: &AdaptedModel, config: &mut Map<String, Value>) {
    let linears = model.backbone().linears();
    if linears.iter().any(|linear| linear.layer.transposed) {
        config.insert("fan_in_fan_out".into(), true.into());
    }
}

/// Makes `folder` by `write`, whole or not at all.
pub(crate) fn write_whole(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let replaced = aflora_files::replace_folder(folder, |folder| {
        write(folder).map_err(|error| {
            failed = Some(error);
            std::io::Error::other("the folder's content cannot be written")
        })
    });
    match failed {
        Some(error) => Err(error),
        None => replaced.map_err(Error::io(folder)),
    }
}

fn write(
    folder: &Path,
    config: &Map<String, Value>,
    tensors: BTreeMap<String, Tensor>,
) -> Result<()> {
    let path = folder.join(peft::FILE);
    let text = serde_json::to_string_pretty(config).unwrap_or_default();
    fs::write(&path, text + "\n").map_err(Error::io(&path))?;
    write_safetensors(&folder.join(WEIGHTS[0]), tensors)
}

/// Writes tensors, in single precision, to a safetensors file.
pub(crate) fn write_safetensors(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<()> {
    let views = tensors.into_iter().map(|(name, t)| Ok((name, HostTensor::new(&t)?)));
    let views: Vec<(String, HostTensor)> = views.collect::<Result<_>>()?;
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(about), path)
        .map_err(|e| Error::Io { path: path.into(), source: std::io::Error::other(e.to_string()) })
}

/// An open adapter folder.
#[derive(Debug)]
pub struct AdapterFolder {
    path: PathBuf,
    file: Checkpoint,
    description: Description,
    layers: Layers,
}

impl AdapterFolder {
    /// Opens a folder of ours or of PEFT's.
    ///
    /// # Errors
    /// A file is missing or damaged, or the adapter is of a kind that is not built.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(peft::FILE);
        let problem = |problem: String| Error::Config { path: path.clone(), problem };
        let keys = json::read_tidy(&path, "an adapter's configuration")?;
        let description = Description::from_keys(&keys).map_err(problem)?;
        let layers = Layers::of(&keys);
        let found = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let path = found.ok_or_else(|| Error::NoWeights {
            path: folder.to_path_buf(),
            looked_for: WEIGHTS.join(", "),
        })?;
        let file = Checkpoint::open(&path)?;
        let adapter = AdapterFolder { path, file, description, layers };
        let unread = adapter.file.unread();
        let unread: Vec<String> =
            unread.map(|(name, what)| format!("`{name}` is {what}")).collect();
        match unread.is_empty() {
            true => Ok(adapter),
            false => Err(adapter.unfit(unread)),
        }
    }

    /// What describes the adapter.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Puts the folder's adapters into `backbone`, whose weights are loaded.
    ///
    /// # Errors
    /// The folder is of another model: a layer or a shape differs. All that does is named.
    pub fn attach(&self, backbone: Box<dyn Backbone>, base: Kind) -> Result<AdaptedModel> {
        let method = self.description.method.build()?;
        let sites = self.sites(backbone.as_ref());
        let unknown: Vec<String> = sites
            .iter()
            .filter(|site| !backbone.linears().iter().any(|l| l.site.name == **site))
            .map(|site| format!("the model has no adaptable layer `{site}`"))
            .collect();
        let left_out = sites.iter().filter_map(|site| {
            let key = self.layers.leave_out(site)?;
            Some(format!("`{site}` has tensors in it, but `{key}` of {} leaves it out", peft::FILE))
        });
        let problems: Vec<String> = unknown.into_iter().chain(left_out).collect();
        if !problems.is_empty() {
            return Err(self.unfit(problems));
        }
        self.check_rank()?;
        let targets = Targets { target_modules: Pattern::Names(sites), ..Default::default() };
        let modules = self.trained_modules(backbone.as_ref());
        let model = AdaptedModel::new(backbone, method.as_ref(), &targets, &modules, base, 0)?;
        for mut adapter in model.adapters() {
            let site = adapter.site().name.clone();
            let tensors = adapter.tensors();
            let Some(down) = tensors.iter().find(|t| t.name == "lora_A") else { continue };
            let shape = self.file.shapes().find(|(name, _)| *name == key(&site, down));
            if let Some((_, &[rank, _])) = shape {
                if rank != adapter.rank() {
                    adapter.set_rank(rank).map_err(|_| {
                        self.unfit(vec![format!(
                            "`{site}` has rank {rank} there, {} by {}",
                            down.tensor.size()[0],
                            peft::FILE
                        )])
                    })?;
                }
            }
        }
        self.load(&model)?;
        Ok(model)
    }

    /// Refuses a rank of which the file has no tensor: matrices of that size would be made before
    /// they are found to be missing.
    fn check_rank(&self) -> Result<()> {
        let Some(rank) = self.description.rank() else { return Ok(()) };
        let sizes = self.file.shapes().flat_map(|(_, shape)| shape.iter().copied());
        match sizes.max() {
            Some(largest) if largest >= rank => Ok(()),
            largest => Err(self.unfit(vec![format!(
                "{} gives the rank {rank}, but no size there is above {}",
                peft::FILE,
                largest.unwrap_or(0)
            )])),
        }
    }

    /// The modules that trained in full beside the head, by their whole names. PEFT takes a name
    /// for every module whose own ends with it, at a dot or not; its list also has names that only
    /// other models have, ours also those of what is saved without having trained.
    fn trained_modules(&self, backbone: &dyn Backbone) -> Vec<String> {
        let variables = backbone.var_store().variables();
        let modules: BTreeSet<&str> = variables
            .keys()
            .flat_map(|name| name.match_indices('.').map(|(dot, _)| &name[..dot]))
            .collect();
        let own = [backbone.about().head_modules, backbone.about().new_modules].concat();
        let named = |module: &&str| {
            self.description.modules_to_save.iter().any(|name| module.ends_with(name.as_str()))
        };
        let new = |module: &&str| !own.iter().any(|own| in_module(module, own));
        modules.into_iter().filter(named).filter(new).map(String::from).collect()
    }

    /// The layers that have a tensor in the file.
    fn sites(&self, backbone: &dyn Backbone) -> Vec<String> {
        let heads = backbone.about().new_modules;
        let names: BTreeSet<String> = self
            .file
            .shapes()
            .filter_map(|(name, _)| {
                let name = name.strip_prefix(ROOT)?;
                let name = name.strip_suffix(".weight").unwrap_or(name);
                let (site, last) = name.rsplit_once('.')?;
                // The adapters' own names; all else is a module that was saved whole.
                let own = ["lora_", "vera_", "aflora_"].iter().any(|p| last.starts_with(p));
                let own = own || last == "gate";
                (own && !heads.contains(&site)).then(|| site.to_string())
            })
            .collect();
        names.into_iter().collect()
    }

    /// Loads the folder's tensors into `model`, whose adapters are of the same method, layers
    /// and ranks.
    ///
    /// # Errors
    /// A tensor is missing, unexpected or of another shape; nothing is changed then.
    pub fn load(&self, model: &AdaptedModel) -> Result<()> {
        let mut wanted = BTreeMap::new();
        let mut optional = BTreeSet::new();
        for adapter in model.adapters() {
            for t in adapter.tensors() {
                let name = key(&adapter.site().name, &t);
                // PEFT leaves the shared pair out if told to; its seed gives it back.
                if t.shared {
                    optional.insert(name.clone());
                }
                wanted.insert(name, t.tensor);
            }
        }
        let bare = model.saved_weights();
        for (name, tensor) in &bare {
            wanted.insert(format!("{ROOT}{name}"), tensor.shallow_clone());
            // A pooler that came with the model's own weights need not be here.
            if !model.trained_weights().iter().any(|(trained, _)| trained == name) {
                optional.insert(format!("{ROOT}{name}"));
            }
        }
        let mut in_file: BTreeMap<&str, &[i64]> = self.file.shapes().collect();
        let mut problems = Vec::new();
        let mut loads = Vec::new();
        for (name, tensor) in wanted {
            match in_file.remove(name.as_str()) {
                None if optional.contains(&name) => {}
                None => problems.push(format!("`{name}` is missing from it")),
                Some(_) => match self.file.misfit(&name, &tensor.size()) {
                    Some(misfit) => problems.push(misfit),
                    None => loads.push((name, tensor)),
                },
            }
        }
        problems.extend(in_file.keys().map(|name| format!("`{name}` has no place in the model")));
        if !problems.is_empty() {
            return Err(self.unfit(problems));
        }
        let copy = |(name, mut t): (String, Tensor)| self.file.copy_to(&name, &mut t);
        tch::no_grad(|| loads.into_iter().try_for_each(copy))
    }

    fn unfit(&self, problems: Vec<String>) -> Error {
        Error::Weights { path: self.path.clone(), problems: Lines(problems) }
    }
}

/// A tensor's bytes on the host.
struct HostTensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl HostTensor {
    fn new(tensor: &Tensor) -> Result<Self> {
        let host = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let mut bytes = vec![0; host.numel() * size_of::<f32>()];
        host.f_copy_data_u8(&mut bytes, host.numel())?;
        Ok(HostTensor { shape: host.size().iter().map(|&n| n as usize).collect(), bytes })
    }
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
