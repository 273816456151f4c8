//! Adapter folders, opened.

use super::beside::Beside;
use super::layers::Layers;
use super::names::{key, BASE, BIAS, ROOT, WEIGHTS};
use super::pairs::{Pairs, Scales};
use super::peft::{self, Description};
use super::tables::Tables;
use crate::adapted::AdaptedModel;
use crate::backbone::Backbone;
use crate::error::Listing;
use crate::weights::Checkpoint;
use crate::{json, Error, Result};
use aflora_core::adapter::{MethodConfig, TensorSpec};
use aflora_core::nn::{in_module, NamedLinear, VarStore};
use aflora_core::{Adapter, Injection, Method};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// An open adapter folder.
#[derive(Debug)]
pub struct AdapterFolder {
    path: PathBuf,
    file: Checkpoint,
    description: Description,
    layers: Layers,
    /// Where the layers' pairs are not as the method makes them.
    pairs: Option<Pairs>,
    beside: Beside,
    /// Whether a module that is saved whole shares no weights with others any more: so it is in
    /// PEFT, whose folders have this key. Here they train as the one weight that they are.
    apart: bool,
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
        let mut description = Description::from_keys(&keys).map_err(&problem)?;
        let layers = Layers::of(&keys);
        let found = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let path = found.ok_or_else(|| Error::NoWeights {
            path: folder.to_path_buf(),
            looked_for: WEIGHTS.join(", "),
        })?;
        let file = Checkpoint::open(&path)?;
        let method = &mut description.method;
        let scales = Scales::of(&keys, method).map_err(&problem)?;
        let beside = Beside::of(&keys, &file, scales.as_ref()).map_err(&problem)?;
        let pairs = Pairs::of(&keys, &file, scales, method).map_err(&problem)?;
        let apart = keys.contains_key("auto_mapping");
        let adapter = AdapterFolder { path, file, description, layers, pairs, beside, apart };
        let unread = adapter.file.unread();
        adapter.none(unread.map(|(name, what)| format!("`{name}` is {what}")).collect())?;
        Ok(adapter)
    }

    /// What describes the adapter.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The adapters as `method` trains them: the folder's own, with the freezing of a run that goes on
    /// from them. Which matrices train when they are attached is `method`'s to say.
    pub fn trained_as(mut self, method: MethodConfig) -> Self {
        self.description.method = method;
        self
    }

    /// The layers that have an adapter in the folder.
    ///
    /// # Errors
    /// A setting of the method is out of its range.
    pub fn layers(&self) -> Result<Vec<String>> {
        Ok(self.sites(self.description.method.build()?.as_ref(), &BTreeSet::new()))
    }

    /// The shape of the model's own weight `name`, where the folder has it.
    pub fn saved_shape(&self, name: &str) -> Option<&[i64]> {
        self.file.shape(&self.stored(name))
    }

    /// Puts the folder's adapters into `backbone`, whose weights are loaded.
    ///
    /// # Errors
    /// The folder is of another model: a layer or a shape differs. All that does is named.
    pub fn attach(&self, backbone: Box<dyn Backbone>, base: Kind) -> Result<AdaptedModel> {
        let method = self.description.method.build()?;
        let vs = backbone.var_store();
        let apart = if self.apart { self.modules(vs) } else { Vec::new() };
        let tables = Tables { vs, backbone: Some(backbone.as_ref()), apart: &apart };
        self.none(tables.take_words(&self.file)?)?;
        let parted = tables.part(&self.file, &self.sites(method.as_ref(), &own_names(tables.vs)));
        let layers = [backbone.linears(), &backbone.further_linears()].concat();
        let layers = self.chosen(method.as_ref(), tables.vs, &layers)?;
        let adapted = |module: &&str| layers.iter().any(|l| in_module(&l.site.name, module));
        // What an adapter sits on is the base model's, which must have it.
        let (new, held): (Vec<&str>, Vec<&str>) =
            backbone.new_modules().into_iter().partition(|module| !adapted(module));
        let lacks = |name: &String| {
            held.iter().any(|module| in_module(name, module)) && backbone.frame().lacks(name)
        };
        let lacked = tables.vs.variables().into_keys().filter(lacks).map(|name| {
            format!("`{name}` is not the folder's, but has an adapter, and the base model lacks it")
        });
        self.none(lacked.collect())?;
        let mut trained = backbone.about().head_modules.to_vec();
        trained.retain(|module| !adapted(module));
        let own = [trained.as_slice(), &new].concat();
        let mut modules = self.modules(tables.vs);
        modules.retain(|module| !own.iter().any(|own| in_module(module, own)));
        let mut kept = tables.saved_words(&self.file);
        kept.extend(parted);
        kept.extend(self.change(tables)?);
        trained.extend(modules.iter().map(String::as_str));
        let mut model =
            AdaptedModel::on(backbone, method.as_ref(), layers.clone(), &trained, base, 0)?;
        model.keep(&new)?;
        model.keep(&kept.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.fill(&model)?;
        Ok(model)
    }

    /// Puts the folder's adapters into a model of one's own, whose `layers` were captured while it
    /// was built in `vs` and whose weights are loaded. The modules that the folder names as saved
    /// train beside them.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn inject(&self, vs: &VarStore, layers: &[NamedLinear]) -> Result<Injection> {
        let modules = outermost(self.modules(vs));
        let method = self.description.method.build()?;
        let chosen = self.chosen(method.as_ref(), vs, layers)?;
        let changed = self.change(Tables { vs, backbone: None, apart: &[] })?;
        let injection = Injection::new(vs, chosen, method.as_ref(), &modules, 0)?;
        let mut injection = injection.with_elsewhere(layers)?;
        injection.keep(&changed.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.fill(&injection)?;
        Ok(injection)
    }

    /// Those of `layers`, in a model of `vs`, that have a tensor in the file.
    fn chosen(
        &self,
        method: &dyn Method,
        vs: &VarStore,
        layers: &[NamedLinear],
    ) -> Result<Vec<NamedLinear>> {
        let sites = self.sites(method, &own_names(vs));
        let unknown: Vec<String> = sites
            .iter()
            .filter(|site| !layers.iter().any(|l| l.site.name == **site))
            .map(|site| format!("the model has no adaptable layer `{site}`"))
            .collect();
        let left_out = sites.iter().filter_map(|site| {
            let key = self.layers.leave_out(site)?;
            Some(format!("`{site}` has tensors in it, but `{key}` of {} leaves it out", peft::FILE))
        });
        self.none(unknown.into_iter().chain(left_out).collect())?;
        self.check_rank()?;
        if sites.is_empty() && method.adapts() && self.beside.is_empty() {
            return Err(self.unfit(vec!["no layer has an adapter there".into()]));
        }
        let mut layers = layers.to_vec();
        layers.retain(|layer| sites.contains(&layer.site.name));
        Ok(layers)
    }

    /// Makes the folder's changes of the model's own weights; gives the modules that they are in.
    fn change(&self, tables: Tables<'_>) -> Result<Vec<String>> {
        self.beside.apply(&self.file, tables)?.map_err(|problems| self.unfit(problems))
    }

    /// Makes room for the ranks of the file and loads its tensors.
    fn fill(&self, model: &Injection) -> Result<()> {
        for mut adapter in model.adapters() {
            if self.pairs.is_some() {
                break;
            }
            let Some(rank) = self.rank_of(adapter.as_ref()) else { continue };
            let (site, made) = (adapter.site().name.clone(), adapter.rank());
            adapter.set_rank(rank).map_err(|_| {
                let file = peft::FILE;
                self.unfit(vec![format!("`{site}` has rank {rank} there, {made} by {file}")])
            })?;
        }
        self.load(model)
    }

    /// The rank of an adapter by the shapes in the file, where it is another.
    fn rank_of(&self, adapter: &dyn Adapter) -> Option<i64> {
        let tensors = adapter.tensors();
        let (t, dim) = tensors.iter().find_map(|t| Some((t, t.spec.rank_dim?)))?;
        let shape = self.file.shape(&key(&adapter.site().name, &t.spec))?;
        let rank = *shape.get(dim as usize).filter(|_| shape.len() == t.tensor.dim())?;
        (rank != adapter.rank()).then_some(rank)
    }

    /// Refuses a rank of which the file has no tensor: matrices of that size would be made before
    /// they are found to be missing.
    fn check_rank(&self) -> Result<()> {
        // Where layers have ranks of their own, each was held against its matrices.
        let rank = self.description.method.settings().rank().filter(|_| self.pairs.is_none());
        let Some(rank) = rank else { return Ok(()) };
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

    /// The model's modules that the folder's list means, by their whole names. PEFT takes a name
    /// for every module whose own ends with it, at a dot or not; its list also has names that only
    /// other models have, ours also those of what is saved without having trained.
    fn modules(&self, vs: &VarStore) -> Vec<String> {
        let variables = vs.variables();
        let modules: BTreeSet<&str> = variables
            .keys()
            .flat_map(|name| name.match_indices('.').map(|(dot, _)| &name[..dot]))
            .collect();
        let named = |module: &&str| {
            self.description.modules_to_save.iter().any(|name| module.ends_with(name.as_str()))
        };
        let mut named: Vec<String> = modules.into_iter().filter(named).map(String::from).collect();
        // A bias that trained by itself is a module of one weight.
        let alone = |bias: &&String| {
            bias.ends_with(BIAS)
                && self.file.shape(&self.stored(bias)).is_some()
                && !named.iter().any(|module| in_module(bias, module))
        };
        let biases: Vec<String> = variables.keys().filter(alone).cloned().collect();
        named.extend(biases);
        named
    }

    /// The name in the file of the model's own weight `name`.
    fn stored(&self, name: &str) -> String {
        let beside_an_adapter =
            name.rsplit_once('.').map(|(site, own)| format!("{ROOT}{site}{BASE}{own}"));
        let in_file = |wanted: &String| self.file.shape(wanted).is_some();
        beside_an_adapter.filter(in_file).unwrap_or_else(|| format!("{ROOT}{name}"))
    }

    /// The layers that have a tensor of an adapter in the file. All else is what the model has by
    /// that name, of `own`, or what an embedding learned.
    fn sites(&self, method: &dyn Method, own: &BTreeSet<String>) -> Vec<String> {
        let site = |name: &str| {
            let of_model = |name: &str| own.contains(name);
            let name = name.strip_prefix(ROOT).filter(|name| !of_model(name))?;
            let site = |spec: &TensorSpec| name.strip_suffix(spec.key)?.strip_suffix('.');
            let site = method.tensors().iter().filter(|spec| !spec.shared).find_map(site)?;
            Some(site.to_string())
        };
        let names = self.file.shapes().map(|(name, _)| name);
        let names: BTreeSet<String> =
            names.filter(|name| !self.beside.has(name)).filter_map(site).collect();
        names.into_iter().collect()
    }

    /// Loads the folder's tensors into `model`, whose adapters are of the same method, layers
    /// and ranks.
    ///
    /// # Errors
    /// A tensor is missing, unexpected or of another shape; nothing is changed then.
    pub fn load(&self, model: &Injection) -> Result<()> {
        let mut wanted = BTreeMap::new();
        let mut optional = BTreeSet::new();
        let mut in_pairs = BTreeSet::new();
        for adapter in model.adapters() {
            for t in adapter.tensors() {
                let site = &adapter.site().name;
                let name = key(site, &t.spec);
                // PEFT leaves the shared pair out if told to; its seed gives it back.
                if t.spec.shared {
                    optional.insert(name.clone());
                }
                let pair = self.pairs.as_ref().and_then(|pairs| pairs.shape(site, &t));
                if pair.is_some() {
                    in_pairs.insert(name.clone());
                }
                wanted.insert(name, (pair.unwrap_or_else(|| t.tensor.size()), t.tensor));
            }
        }
        let trained: BTreeSet<String> =
            model.trained_weights().into_iter().map(|(name, _)| name).collect();
        for (name, tensor) in model.saved_weights() {
            let stored = self.stored(&name);
            // A pooler that came with the model's own weights need not be here.
            if !trained.contains(&name) {
                optional.insert(stored.clone());
            }
            wanted.insert(stored, (tensor.size(), tensor));
        }
        let mut in_file: BTreeMap<&str, &[i64]> =
            self.file.shapes().filter(|(name, _)| !self.beside.has(name)).collect();
        let mut problems = Vec::new();
        let mut loads = Vec::new();
        for (name, (shape, tensor)) in wanted {
            match in_file.remove(name.as_str()) {
                None if optional.contains(&name) => {}
                None => problems.push(format!("`{name}` is missing from it")),
                Some(_) => match self.file.misfit(&name, &shape) {
                    Some(misfit) => problems.push(misfit),
                    None if in_pairs.contains(&name) => {}
                    None => loads.push((name, tensor)),
                },
            }
        }
        problems.extend(in_file.keys().map(|name| format!("`{name}` has no place in the model")));
        if !problems.is_empty() {
            return Err(self.unfit(problems));
        }
        let copy = |(name, mut t): (String, Tensor)| self.file.copy_to(&name, &mut t);
        tch::no_grad(|| {
            loads.into_iter().try_for_each(copy)?;
            let layers = self
                .pairs
                .iter()
                .flat_map(|pairs| model.injected().iter().map(move |l| (pairs, l)));
            layers.into_iter().try_for_each(|(pairs, layer)| pairs.fill(&self.file, layer))
        })
    }

    /// Refuses the folder where there are problems.
    fn none(&self, problems: Vec<String>) -> Result<()> {
        match problems.is_empty() {
            true => Ok(()),
            false => Err(self.unfit(problems)),
        }
    }

    fn unfit(&self, problems: Vec<String>) -> Error {
        Error::Weights { path: self.path.clone(), problems: Listing(problems) }
    }
}

/// The names of a model's weights.
fn own_names(vs: &VarStore) -> BTreeSet<String> {
    vs.variables().into_keys().collect()
}

/// Without the modules that lie in others of the list, which is sorted.
fn outermost(mut modules: Vec<String>) -> Vec<String> {
    let all = modules.clone();
    modules.retain(|module| !all.iter().any(|other| other != module && in_module(module, other)));
    modules
}
