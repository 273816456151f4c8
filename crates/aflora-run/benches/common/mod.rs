//! What the benches of whole models share: methods by name, the layers that take adapters, random weights.

use aflora_core::adapter::{AfloraConfig, MethodConfig, PmTrainable};
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::Span;
use aflora_models::Backbone;
use std::collections::BTreeMap;
use tch::Tensor;

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
