//! What the benches of whole models share: methods by name, the layers that take adapters, random weights.

use aflora_core::adapter::{AfloraConfig, MethodConfig, PmTrainable};
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::Span;
use aflora_models::Backbone;
use std::collections::BTreeMap;
use tch::Tensor;

/// What a bench is asked for: words, and behind them KEY=VALUE.
pub struct Given {
    /// Those that came.
    pub words: Vec<String>,
    options: Vec<(String, String)>,
}

impl Given {
    /// `wanted` words, and options that are `known`. Cargo runs a bench in its package's folder: paths are from the
    /// workspace's, as of every other command.
    pub fn new(wanted: usize, known: &[&str]) -> anyhow::Result<Self> {
        if std::env::var_os("CARGO_MANIFEST_DIR").is_some() {
            std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))?;
        }
        // Cargo itself passes `--bench`.
        let mut words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
        let mut options: Vec<(String, String)> = Vec::new();
        for option in words.split_off(wanted.min(words.len())) {
            match option.split_once('=') {
                Some((key, _)) if options.iter().any(|(other, _)| other == key) => {
                    anyhow::bail!("`{key}=` is there twice")
                }
                Some((key, value)) if known.contains(&key) => {
                    options.push((key.into(), value.into()))
                }
                _ => anyhow::bail!("`{option}` is none of: {}", known.join("=, ") + "="),
            }
        }
        Ok(Given { words, options })
    }

    /// The value of a key.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// The same as a number from 1 on.
    pub fn count<T: TryFrom<u64>>(&self, key: &str) -> anyhow::Result<Option<T>> {
        self.option(key).map(|value| count(key, value)).transpose()
    }

    /// Whether a key that may only be `on` is there.
    pub fn is_on(&self, key: &str) -> anyhow::Result<bool> {
        let value = self.option(key);
        anyhow::ensure!(matches!(value, None | Some("on")), "{key}= is `on` or left out");
        Ok(value.is_some())
    }
}

/// A number from 1 on; `what` it is.
pub fn count<T: TryFrom<u64>>(what: &str, text: &str) -> anyhow::Result<T> {
    let number = text.parse().ok().filter(|number| *number > 0).and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| anyhow::anyhow!("{what} is `{text}`, no whole number from 1 on"))
}

/// A method by its name and rank, `lora:32`.
pub fn method(name: &str) -> anyhow::Result<MethodConfig> {
    let (name, rank) = match name.split_once(':') {
        Some((name, rank)) => (name, Some(rank.parse()?)),
        None => (name, None),
    };
    let aflora = |mode, pm_trainable, alpha| {
        let freeze = FreezeConfig { mode, ..Default::default() };
        MethodConfig::Aflora(AfloraConfig { freeze, pm_trainable, alpha, ..Default::default() })
    };
    let mut config = match name {
        "aflora" => aflora(FreezeMode::Adaptive, PmTrainable::Ffn, None),
        "aflora-gsm8k" => aflora(FreezeMode::Adaptive, PmTrainable::All, Some(64.0)),
        "aflora-frozen" => aflora(FreezeMode::Start, PmTrainable::Ffn, None),
        "aflora-tests" => {
            let freeze = FreezeConfig { t_i: Span::Steps(0), ..Default::default() };
            MethodConfig::Aflora(AfloraConfig { freeze, ..Default::default() })
        }
        "aflora-never" => aflora(FreezeMode::Never, PmTrainable::Ffn, None),
        other => MethodConfig::defaults(other)
            .ok_or_else(|| anyhow::anyhow!("there is no method `{other}`"))?,
    };
    match (&mut config, rank) {
        (_, None) => {}
        (MethodConfig::Aflora(config), Some(rank)) => config.rank = rank,
        (MethodConfig::Lora(config), Some(rank)) => config.rank = rank,
        (MethodConfig::Elora(config), Some(rank)) => config.rank = rank,
        (_, Some(_)) => anyhow::bail!("`{name}` takes no rank here"),
    }
    Ok(config)
}

/// All linear layers of a block, however the model names them; of LLaMA those of the paper.
pub fn modules(kind: &str) -> &'static str {
    match kind {
        "llama" => r".*\.(q_proj|k_proj|v_proj|up_proj|down_proj)",
        _ => ".*",
    }
}

/// Random weights, drawn where they lie: a large model's would take the host half a minute.
pub fn initialise(backbone: &dyn Backbone) -> anyhow::Result<()> {
    let elsewhere = backbone.elsewhere();
    tch::no_grad(|| {
        // By name, so that all processes draw the same.
        let weights: BTreeMap<_, _> = backbone.var_store().variables().into_iter().collect();
        for (name, mut weight) in weights {
            if let Some(layer) = elsewhere.get(&name) {
                let place = (weight.kind(), weight.device());
                layer.put(&Tensor::empty(weight.size(), place).normal_(0.0, 0.02))?;
                continue;
            }
            let _ = match weight.dim() > 1 {
                true => weight.normal_(0.0, 0.02),
                false => weight.fill_(if name.ends_with("weight") { 1.0 } else { 0.0 }),
            };
        }
        Ok(())
    })
}
