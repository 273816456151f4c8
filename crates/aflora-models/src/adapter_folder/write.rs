//! Adapter folders, written.

use super::names::{key, BASE, ROOT, WEIGHTS};
use super::peft::{self, BaseModel, Description, TaskType};
use crate::adapted::AdaptedModel;
use crate::backbone::Backbone;
use crate::chat::ChatFormat;
use crate::companions::ModelSource;
use crate::generate::{write_config, GenerationSettings};
use crate::written::{write_safetensors, write_whole};
use crate::{companions, Error, Result};
use aflora_core::adapter::{AdapterTensor, LoraConfig, LowRank, MethodConfig};
use aflora_core::{Adapter, Injection};
use serde_json::{Map, Value};
use std::collections::btree_map::{BTreeMap, Entry};
use std::fs;
use std::path::Path;
use tch::Tensor;

/// What the two files of a folder hold.
struct Content {
    config: Map<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

impl Content {
    /// Adapters as their method has them, and the saved modules beside them.
    fn of(model: &Injection, description: &Description) -> Self {
        let mut tensors = BTreeMap::new();
        let mut ranks = Vec::new();
        for adapter in model.adapters() {
            let site = &adapter.site().name;
            let saved = adapter.saved();
            let left = saved.iter().find_map(AdapterTensor::components);
            ranks.push((site.clone(), left.unwrap_or(adapter.rank())));
            tensors.extend(saved.into_iter().map(|t| (key(site, &t.spec), t.tensor)));
        }
        Content::new(model, description, &ranks, tensors)
    }

    /// Adapters as plain LoRA, whatever their method: every vector, gate and scale folded into A
    /// and B.
    fn of_pairs(
        model: &Injection,
        description: Description,
        pairs: Vec<(String, LowRank)>,
    ) -> Self {
        let (rank, pairs) = of_one_rank(pairs);
        // A scale of alpha / rank = 1.
        let lora = LoraConfig { rank, alpha: rank as f64, ..LoraConfig::default() };
        let description = Description { method: MethodConfig::Lora(lora), ..description };
        let mut tensors = BTreeMap::new();
        let mut ranks = Vec::new();
        for (site, LowRank { down, up }) in pairs {
            tensors.insert(format!("{ROOT}{site}.lora_A.weight"), down);
            tensors.insert(format!("{ROOT}{site}.lora_B.weight"), up);
            ranks.push((site, rank));
        }
        Content::new(model, &description, &ranks, tensors)
    }

    /// The adapters' tensors, with the saved modules beside them.
    fn new(
        model: &Injection,
        description: &Description,
        ranks: &[(String, i64)],
        mut tensors: BTreeMap<String, Tensor>,
    ) -> Self {
        let mut config = description.to_json(ranks);
        mark_transposed(model, &mut config);
        if ranks.iter().any(|(site, _)| is_of_head(site)) {
            config.remove("task_type");
        }
        // PEFT puts no adapter on what it saves whole.
        let is_site = |name: &str| ranks.iter().any(|(site, _)| site == name);
        let modules = config.get_mut("modules_to_save").and_then(Value::as_array_mut);
        modules
            .into_iter()
            .for_each(|list| list.retain(|name| !name.as_str().is_some_and(is_site)));
        for (name, tensor) in model.saved_weights() {
            let key = match name.rsplit_once('.').filter(|(site, _)| is_site(site)) {
                Some((site, own)) => format!("{ROOT}{site}{BASE}{own}"),
                None => format!("{ROOT}{name}"),
            };
            tensors.insert(key, tensor);
        }
        Content { config, tensors }
    }

    /// Has every further name of a saved weight written down, too: PEFT holds the modules that it
    /// saves apart from all others.
    fn with_shared(mut self, backbone: &dyn Backbone) -> Self {
        for (one, others) in backbone.about().tied {
            let Some(shared) = self.tensors.get(&format!("{ROOT}{one}")) else { continue };
            let shared = shared.shallow_clone();
            for other in *others {
                let module = other.trim_end_matches(".weight");
                if self.tensors.contains_key(&format!("{ROOT}{module}{BASE}weight")) {
                    continue;
                }
                if let Entry::Vacant(place) = self.tensors.entry(format!("{ROOT}{other}")) {
                    place.insert(shared.copy());
                    let modules =
                        self.config.get_mut("modules_to_save").and_then(Value::as_array_mut);
                    modules.into_iter().for_each(|modules| modules.push(module.into()));
                }
            }
        }
        self
    }

    fn write(self, folder: &Path) -> Result<()> {
        let path = folder.join(peft::FILE);
        let text = serde_json::to_string_pretty(&self.config).unwrap_or_default();
        fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        write_safetensors(&folder.join(WEIGHTS[0]), self.tensors)
    }
}

/// Writes the adapters and the saved modules of `model` (an [`AdaptedModel`] is one, too) to
/// `folder`.
///
/// The folder appears whole or not at all; one that was there is replaced.
///
/// # Errors
/// It cannot be written.
pub fn save(model: &Injection, folder: &Path, description: &Description) -> Result<()> {
    let content = Content::of(model, description);
    write_whole(folder, |folder| content.write(folder))
}

/// [`save`] with the tokenizer in the folder `tokenizer`, for a model whose own is another.
///
/// # Errors
/// It cannot be read or written.
pub fn save_with_tokenizer(
    model: &Injection,
    folder: &Path,
    description: &Description,
    tokenizer: &Path,
) -> Result<()> {
    let content = Content::of(model, description);
    write_whole(folder, |folder| {
        content.write(folder)?;
        companions::copy_tokenizer(tokenizer, folder)
    })
}

/// Writes the adapters of `model`, which are of `method`, to `folder` so that PEFT opens them: as
/// plain LoRA, with every vector, gate and scale folded into A and B, or, where they are none, as
/// PEFT has the method. The tokenizer of `source`, the model's own folder, goes with them, and how it
/// writes and talks, where it does.
///
/// # Errors
/// The model has no adapters, they are neither, or the folder cannot be written.
pub fn export<'a>(
    model: &AdaptedModel,
    method: &MethodConfig,
    base_model: Option<BaseModel>,
    source: impl Into<ModelSource<'a>>,
    generation: &GenerationSettings,
    chat: &ChatFormat,
    folder: &Path,
) -> Result<()> {
    let description = described(model, method, base_model);
    let content = match pairs(model)? {
        Some(pairs) => Content::of_pairs(model, description, pairs),
        None if description.is_pefts() => Content::of(model, &description),
        None => {
            let name = method.name();
            let problem =
                format!("PEFT has no adapters of the method `{name}`; merge them instead");
            return Err(Error::Unbuilt(problem));
        }
    };
    write_with_companions(model, content, source.into(), generation, chat, folder)
}

/// Writes `pairs`, by the names of their layers in `model`, to `folder` as [`export`] writes plain
/// LoRA, with the saved modules of `model`.
///
/// # Errors
/// There are none, or the folder cannot be written.
pub fn export_pairs<'a>(
    model: &AdaptedModel,
    pairs: Vec<(String, LowRank)>,
    base_model: Option<BaseModel>,
    source: impl Into<ModelSource<'a>>,
    generation: &GenerationSettings,
    chat: &ChatFormat,
    folder: &Path,
) -> Result<()> {
    let description = described(model, &MethodConfig::Lora(LoraConfig::default()), base_model);
    let content = Content::of_pairs(model, description, pairs);
    write_with_companions(model, content, source.into(), generation, chat, folder)
}

fn described(
    model: &AdaptedModel,
    method: &MethodConfig,
    base_model: Option<BaseModel>,
) -> Description {
    Description {
        method: method.clone(),
        base_model,
        length: None,
        modules_to_save: model.saved_modules(),
        task_type: Some(TaskType::of(model.backbone())),
    }
}

fn write_with_companions(
    model: &AdaptedModel,
    content: Content,
    source: ModelSource,
    generation: &GenerationSettings,
    chat: &ChatFormat,
    folder: &Path,
) -> Result<()> {
    let content = content.with_shared(model.backbone());
    write_whole(folder, |folder| {
        content.write(folder)?;
        companions::copy_tokenizer_alone(source, folder)?;
        match model.backbone().text_generator() {
            Some(writer) => {
                companions::write_template(chat, folder)?;
                write_config(
                    source.model,
                    generation,
                    &writer.tokens().with_ends(&chat.ends),
                    folder,
                )
            }
            None => Ok(()),
        }
    })
}

/// The adapters of a model as plain LoRA, by their layers; none where they do not fold into that.
///
/// # Errors
/// There are no adapters.
pub(super) fn pairs(model: &Injection) -> Result<Option<Vec<(String, LowRank)>>> {
    if model.adapters().next().is_none() {
        let problem = "the model has no adapters: there is nothing to export";
        return Err(Error::Unbuilt(problem.into()));
    }
    let pair = |adapter: &dyn Adapter| Some((adapter.site().name.clone(), adapter.low_rank()?));
    Ok(tch::no_grad(|| model.adapters().map(|adapter| pair(adapter.as_ref())).collect()))
}

/// These pairs with one rank for all, as plain LoRA has, and none of 0: layers of lower rank are
/// filled up with components of zero.
pub(super) fn of_one_rank(pairs: Vec<(String, LowRank)>) -> (i64, Vec<(String, LowRank)>) {
    let ranks = pairs.iter().map(|(_, pair)| pair.down.size()[0]);
    let rank = ranks.max().unwrap_or(0).max(1);
    let fill = |(site, LowRank { down, up }): (String, LowRank)| {
        let missing = rank - down.size()[0];
        let down = down.constant_pad_nd([0, 0, 0, missing]);
        (site, LowRank { down, up: up.constant_pad_nd([0, missing]) })
    };
    (rank, pairs.into_iter().map(fill).collect())
}

/// Whether PEFT takes `site` for a part of a classifier's head. Where the task is one of classes it
/// trains that whole, and puts no adapter on it.
fn is_of_head(site: &str) -> bool {
    let heads = ["classifier", "score"];
    heads.iter().any(|head| site.ends_with(head) || site.split('.').any(|part| part == *head))
}

/// Tells PEFT that the weights lie transposed, as GPT-2's do.
fn mark_transposed(model: &Injection, config: &mut Map<String, Value>) {
    if model.injected().iter().any(|injected| injected.linear().layer.transposed) {
        config.insert("fan_in_fan_out".into(), true.into());
    }
}
