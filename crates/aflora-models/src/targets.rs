//! Which linear layers get an adapter, with PEFT's meaning of `target_modules`.
//!
//! A string is a regular expression that must match the whole name. A list holds names, each
//! matching a layer of that name or one that ends in `.name`. Every pattern must match
//! something, so that a slip does not quietly train half a model.

use crate::{Error, Result};
use aflora_core::nn::{NamedLinear, VarStore};
use aflora_core::{Block, Site};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// A choice of modules: a regular expression, or names and suffixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pattern {
    /// Must match the whole name.
    Regex(String),
    /// Whole names or dotted suffixes.
    Names(Vec<String>),
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Pattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "oneOf": [
                { "type": "string", "format": "regex" },
                { "type": "array", "items": { "type": "string" } },
            ],
            "takes": "regex, [names]",
        })
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Pattern::Names(Vec::new())
    }
}

/// Target modules, minus excluded ones, in chosen layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Targets {
    /// What gets an adapter.
    pub target_modules: Pattern,
    /// What does not, although it is a target.
    pub exclude_modules: Pattern,
    /// Only layers with these numbers; all where not given.
    pub layers: Option<Vec<i64>>,
}

impl Targets {
    /// The chosen ones of the `layers` that were captured while a model was built in `vs`
    /// ([`capture_named`](aflora_core::nn::capture_named)).
    ///
    /// # Errors
    /// As [`select`](Self::select); or a pattern means a matrix that no `nn::Linear` holds.
    pub fn choose(&self, vs: &VarStore, layers: &[NamedLinear]) -> Result<Vec<NamedLinear>> {
        self.chosen_of(layers).map_err(|error| {
            let sites: Vec<&Site> = layers.iter().map(|layer| layer.site.as_ref()).collect();
            self.without_a_slot(vs, &sites).unwrap_or(error)
        })
    }

    /// The chosen ones of `layers`.
    pub(crate) fn chosen_of(&self, layers: &[NamedLinear]) -> Result<Vec<NamedLinear>> {
        let sites: Vec<&Site> = layers.iter().map(|layer| layer.site.as_ref()).collect();
        Ok(self.select(&sites)?.into_iter().map(|i| layers[i].clone()).collect())
    }

    /// That the choice means matrices of the model, but of layers that take no adapter.
    fn without_a_slot(&self, vs: &VarStore, layers: &[&Site]) -> Option<Error> {
        let matrices = vs.variables().into_iter().filter(|(_, weight)| weight.dim() == 2);
        let matrices = matrices.filter_map(|(name, weight)| {
            let name = name.strip_suffix(".weight")?;
            let size = weight.size();
            Some(Site::new(name, size[1], size[0], Block::of_name(name)))
        });
        let mut matrices: Vec<Site> = matrices.collect();
        matrices.retain(|site| !layers.iter().any(|layer| layer.name == site.name));
        matrices.sort_by(|a, b| a.name.cmp(&b.name));
        let all: Vec<&Site> = layers.iter().copied().chain(&matrices).collect();
        let chosen = self.select(&all).ok()?;
        let without = chosen.into_iter().find(|&i| i >= layers.len())?;
        let name = &all[without].name;
        Some(Error::Targets(format!(
            "`{name}` is a weight of the model, but of none of its captured nn::Linear: a layer of a \
             type of its own (as rust-bert's GPTConv1D, or an embedding) has no slot for an adapter"
        )))
    }

    /// The indices of the chosen sites.
    ///
    /// # Errors
    /// A pattern is malformed or matches nothing (the nearest names are told), a layer number
    /// does not occur, or nothing is left.
    pub fn select(&self, sites: &[&Site]) -> Result<Vec<usize>> {
        let mut chosen = matches(&self.target_modules, sites, "target_modules")?;
        for (choice, out) in
            chosen.iter_mut().zip(matches(&self.exclude_modules, sites, "exclude_modules")?)
        {
            *choice &= !out;
        }
        if let Some(layers) = &self.layers {
            if let Some(absent) =
                layers.iter().find(|&&l| !sites.iter().any(|site| site.layer == Some(l)))
            {
                let last = sites.iter().filter_map(|site| site.layer).max().unwrap_or(-1);
                return Err(Error::Targets(format!(
                    "there is no layer {absent}; the layers are 0 to {last}"
                )));
            }
            for (choice, site) in chosen.iter_mut().zip(sites) {
                *choice &= site.layer.is_some_and(|l| layers.contains(&l));
            }
        }
        let picked: Vec<usize> = (0..sites.len()).filter(|&i| chosen[i]).collect();
        if picked.is_empty() {
            return Err(Error::Targets(format!(
                "nothing is left to adapt: targets {}, excludes {}, layers {:?}",
                describe(&self.target_modules),
                describe(&self.exclude_modules),
                self.layers
            )));
        }
        Ok(picked)
    }
}

fn describe(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Regex(regex) => format!("/{regex}/"),
        Pattern::Names(names) => format!("{names:?}"),
    }
}

fn matches(pattern: &Pattern, sites: &[&Site], key: &str) -> Result<Vec<bool>> {
    match pattern {
        Pattern::Regex(text) => {
            // By itself first: `a)|(b` is one only between brackets that are not its own.
            let regex = Regex::new(text)
                .and_then(|_| Regex::new(&format!("^(?:{text})$")))
                .map_err(|e| Error::Targets(format!("{key} is no regular expression: {e}")))?;
            let hits: Vec<bool> = sites.iter().map(|site| regex.is_match(&site.name)).collect();
            if !hits.contains(&true) {
                return Err(nothing(key, text, sites));
            }
            Ok(hits)
        }
        Pattern::Names(list) => {
            let mut hits = vec![false; sites.len()];
            for want in list {
                let suffix = format!(".{want}");
                let mut any = false;
                for (hit, site) in hits.iter_mut().zip(sites) {
                    if site.name == *want || site.name.ends_with(&suffix) {
                        *hit = true;
                        any = true;
                    }
                }
                if !any {
                    return Err(nothing(key, want, sites));
                }
            }
            Ok(hits)
        }
    }
}

fn nothing(key: &str, pattern: &str, sites: &[&Site]) -> Error {
    // Blocks repeat: compare with the names within them, each once.
    let mut modules: Vec<&str> = sites.iter().map(|site| site.module.as_str()).collect();
    modules.sort_unstable();
    modules.dedup();
    let near = |module: &str| (strsim::jaro_winkler(pattern, module) * -1e6) as i64;
    modules.sort_by_key(|module| near(module));
    modules.truncate(6);
    Error::Targets(format!(
        "`{pattern}` in {key} matches no linear layer; the nearest are: {}",
        modules.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aflora_core::Block;

    fn sites() -> Vec<Site> {
        let mut sites = Vec::new();
        for layer in 0..3 {
            for (tail, block) in [
                ("attention.self.query", Block::Attention),
                ("attention.self.key", Block::Attention),
                ("attention.output.dense", Block::Attention),
                ("intermediate.dense", Block::Ffn),
                ("output.dense", Block::Ffn),
            ] {
                sites.push(Site::new(format!("bert.encoder.layer.{layer}.{tail}"), 4, 4, block));
            }
        }
        sites
    }

    fn select(targets: Targets) -> Result<Vec<String>> {
        let sites = sites();
        let all: Vec<&Site> = sites.iter().collect();
        Ok(targets.select(&all)?.into_iter().map(|i| sites[i].name.clone()).collect())
    }

    fn names(list: &[&str]) -> Pattern {
        Pattern::Names(list.iter().map(|s| s.to_string()).collect())
    }

    #[test]
    fn a_suffix_matches_every_layer_that_ends_in_it() {
        let target_modules = names(&["output.dense"]);
        let picked = select(Targets { target_modules, ..Default::default() }).unwrap();
        assert_eq!(picked.len(), 6, "{picked:?}");
    }

    #[test]
    fn a_suffix_ends_at_a_dot() {
        let target_modules = names(&["ense"]);
        assert!(select(Targets { target_modules, ..Default::default() }).is_err());
    }

    #[test]
    fn a_regex_matches_the_whole_name() {
        let target_modules = Pattern::Regex(r"bert\.encoder\.layer\.\d+\.output\.dense".into());
        let picked = select(Targets { target_modules, ..Default::default() }).unwrap();
        assert_eq!(picked.len(), 3);
        let target_modules = Pattern::Regex("output".into());
        assert!(select(Targets { target_modules, ..Default::default() }).is_err());
    }

    #[test]
    fn excludes_and_layers_narrow_the_choice() {
        let picked = select(Targets {
            target_modules: names(&["output.dense", "query"]),
            exclude_modules: names(&["attention.output.dense"]),
            layers: Some(vec![2]),
        });
        assert_eq!(
            picked.unwrap(),
            ["bert.encoder.layer.2.attention.self.query", "bert.encoder.layer.2.output.dense"]
        );
    }

    #[test]
    fn a_pattern_that_matches_nothing_names_the_nearest() {
        let error = select(Targets {
            target_modules: names(&["query", "atention.self.key"]),
            ..Default::default()
        });
        let text = error.unwrap_err().to_string();
        assert!(text.contains("`atention.self.key`"), "{text}");
        assert!(text.contains("are: attention.self.key,"), "{text}");
    }

    #[test]
    fn wrong_layers_wrong_regexes_and_empty_choices_are_refused() {
        let query = names(&["query"]);
        let text = |t: Targets| select(t).unwrap_err().to_string();
        let layers = Some(vec![7]);
        let wrong_layer = Targets { target_modules: query.clone(), layers, ..Default::default() };
        assert!(text(wrong_layer).contains("no layer 7; the layers are 0 to 2"));
        let regex = Pattern::Regex("(".into());
        assert!(text(Targets { target_modules: regex, ..Default::default() }).contains("regular"));
        assert!(text(Targets::default()).contains("nothing is left"));
        let regex = Pattern::Regex("a)|(?:b".into());
        assert!(text(Targets { target_modules: regex, ..Default::default() }).contains("regular"));
        let both =
            Targets { target_modules: query.clone(), exclude_modules: query, ..Default::default() };
        assert!(text(both).contains("nothing is left"));
    }
}
