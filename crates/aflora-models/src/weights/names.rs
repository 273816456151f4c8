//! The names of a checkpoint's tensors, as the model has them.
//!
//! They differ in three ways only. A checkpoint of the bare encoder leaves out the model's prefix
//! (`bert.`); early ones say `gamma` and `beta` for the weight and bias of a LayerNorm; and one
//! that was saved out of a wrapper bears the wrapper's name in front of every tensor but its own numbers.

use super::Checkpoint;
use crate::backbone::Backbone;
use crate::claims;
use crate::config_file::ConfigFile;
use aflora_core::nn::in_module;
use std::collections::BTreeMap;

/// What wrappers put in front of every name: data-parallel training, averaging, `torch.compile`, PEFT.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "base_model.model."];

/// Names that a message shows.
const SHOWN: usize = 6;

/// The tensors of a checkpoint that no part of the model has claimed yet.
pub(super) struct UnclaimedTensors<'a> {
    prefix: &'static str,
    /// Names in the model, or without its prefix, to names in the file.
    left: BTreeMap<String, &'a str>,
    unread: BTreeMap<String, &'a str>,
    all: Vec<&'a str>,
}

impl<'a> UnclaimedTensors<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, prefix: &'static str) -> Self {
        let all: Vec<&str> = checkpoint.shapes().map(|(name, _)| name).collect();
        // A wrapper's own tensors, such as the count of averaged models, are single numbers.
        let with_dimensions = checkpoint.shapes().filter(|(_, shape)| !shape.is_empty());
        let wrapper = wrapping(&with_dimensions.map(|(name, _)| name).collect::<Vec<_>>());
        let own = |name: &'a str| (modern(name.strip_prefix(wrapper).unwrap_or(name)), name);
        let left = all.iter().map(|name| own(name)).collect();
        let unread = checkpoint.unread().map(|(name, _)| own(name)).collect();
        UnclaimedTensors { prefix, left, unread, all }
    }

    /// The file's name of the tensor `name`, once.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a str> {
        let bare = name.strip_prefix(self.prefix).unwrap_or(name);
        self.left.remove(name).or_else(|| self.left.remove(bare))
    }

    /// The file's name of what stands there for `name` and cannot be read.
    pub(super) fn unread(&self, name: &str) -> Option<&'a str> {
        let bare = name.strip_prefix(self.prefix).unwrap_or(name);
        self.unread.get(name).or_else(|| self.unread.get(bare)).copied()
    }

    /// Whether something stands for `name`, read or not, that is not taken yet.
    pub(super) fn has(&self, name: &str) -> bool {
        let bare = name.strip_prefix(self.prefix).unwrap_or(name);
        let either =
            |names: &BTreeMap<String, &str>| names.contains_key(name) || names.contains_key(bare);
        either(&self.left) || either(&self.unread)
    }

    /// What the file has, where that is not what the model wants.
    pub(super) fn told(&self) -> String {
        let shown: Vec<String> =
            self.all.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        let more = match self.all.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let adapter = self.all.iter().any(|name| name.contains(".lora_"));
        let hint =
            if adapter { ": the weights of an adapter, which is no model by itself" } else { "" };
        format!("its tensors have other names: it has {}{more}{hint}", shown.join(", "))
    }

    /// What is left, other than what follows from the config.
    pub(super) fn left(&self) -> Vec<String> {
        self.left.keys().filter(|name| !is_buffer(name)).cloned().collect()
    }

    /// Weights within the model itself (not of another task's head) that config.json describes no
    /// place for: it is of a smaller model.
    pub(super) fn beyond(
        &self,
        known: &[&str],
        backbone: &dyn Backbone,
        config: Option<&ConfigFile>,
    ) -> Vec<String> {
        let bare = |name: &'a str| name.strip_prefix(self.prefix).unwrap_or(name);
        let part = |name: &str| name.split('.').next().unwrap_or_default().to_string();
        let strip = |name: &str| name.strip_prefix(self.prefix).unwrap_or(name).to_string();
        let parts: Vec<String> = known.iter().map(|name| part(&strip(name))).collect();
        let left = self.left.iter().filter(|(name, _)| {
            let head = backbone.about().new_modules.iter().any(|module| in_module(name, module));
            !head && !is_buffer(name) && !is_ignored(name) && parts.contains(&part(&strip(name)))
        });
        // One word for each reason, with the number of weights that it holds for.
        let mut reasons: BTreeMap<String, (&str, usize)> = BTreeMap::new();
        for (name, stored) in left {
            let reason = reason(bare(stored), name, known, config);
            reasons.entry(reason).or_insert((stored, 0)).1 += 1;
        }
        let words = |(reason, (name, n)): (String, (&str, usize))| match n {
            1 => format!("`{name}` of the weights has no place in the model: {reason}"),
            n => format!(
                "{n} tensors of the weights, such as `{name}`, have no place in the model: {reason}"
            ),
        };
        reasons.into_iter().map(words).collect()
    }
}

/// Why the model has no weight `name`.
fn reason(bare: &str, name: &str, known: &[&str], config: Option<&ConfigFile>) -> String {
    if let Some(layers) = layers_below(name, bare, known) {
        let key = config.and_then(|config| claims::layers_key(config, name, layers));
        return match key {
            Some(key) => format!("config.json has fewer layers (`{key}` is {layers})"),
            None => format!("config.json has fewer layers ({layers})"),
        };
    }
    if name.ends_with(".bias") {
        let key = [(".self_attn.", "attention_bias"), (".mlp.", "mlp_bias")]
            .into_iter()
            .find_map(|(part, key)| name.contains(part).then(|| format!(" (`{key}`)")));
        return format!("config.json describes no bias there{}", key.unwrap_or_default());
    }
    "config.json describes no such weight".into()
}

/// How many layers the model has where `name` is of one that it has not.
fn layers_below(name: &str, bare: &str, known: &[&str]) -> Option<usize> {
    [name, bare].into_iter().find_map(|name| {
        let number = name.split('.').find(|part| part.parse::<u32>().is_ok())?;
        let (stem, _) = name.split_once(&format!(".{number}."))?;
        let mut numbers: Vec<&str> = known
            .iter()
            .filter_map(|known| {
                let at = known.find(&format!("{stem}."))?;
                known[at + stem.len() + 1..].split('.').next()
            })
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        (!numbers.is_empty() && !numbers.contains(&number)).then_some(numbers.len())
    })
}

/// The wrappers' names that all of these begin with.
fn wrapping<'a>(names: &[&'a str]) -> &'a str {
    let mut length = 0;
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| {
        !names.is_empty() && names.iter().all(|name| name[length..].starts_with(**wrapper))
    }) {
        length += wrapper.len();
    }
    names.first().map_or("", |name| &name[..length])
}

/// Whether `name` is no weight but something that follows from the config, which some versions
/// of transformers saved: position ids, causal masks, rotary frequencies.
fn is_buffer(name: &str) -> bool {
    const ENDS: [&str; 6] = [
        "position_ids",
        ".attn.bias",
        ".attn.masked_bias",
        ".attention.bias",
        ".attention.masked_bias",
        ".rotary_emb.inv_freq",
    ];
    ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether transformers passes over `name` without a word: DeBERTa's checkpoints hold absolute
/// positions that their configs do not use, early BARTs a version, early T5s distances between the
/// tokens of two texts.
fn is_ignored(name: &str) -> bool {
    name.contains("position_embeddings")
        || name.ends_with("coder.version")
        || name.contains("EncDecAttention.relative_attention_bias")
}

/// The name that newer checkpoints have for `name`.
fn modern(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, "gamma")) => format!("{stem}.weight"),
        Some((stem, "beta")) => format!("{stem}.bias"),
        _ => name.to_string(),
    }
}
