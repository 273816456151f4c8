//! Puts AFLoRA into rust-bert's BERT, trains it, saves and opens the adapter, and merges it.
//!
//! `cargo run -p tch@0.17.99 --example rust_bert`
//!
//! rust-bert asks for tch 0.17. In this workspace `[patch.crates-io]` gives it the facade of
//! `crates/tch`, which is tch 0.24 with the linear layers of `aflora_core::nn`: that is all that lets
//! its private layers take adapters. A model of one's own on `aflora_core::nn` needs no patch.

use aflora_core::adapter::{AfloraConfig, MethodConfig};
use aflora_core::nn::{capture_named, VarStore};
use aflora_core::{Injection, Tuner, TunerConfig};
use aflora_models::adapter_folder::{self, AdapterFolder, Description};
use aflora_models::{Pattern, Targets};
use rust_bert::bert::{BertConfig, BertForSequenceClassification};
use serde_json::json;
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::manual_seed(42);
    // A config.json, and weights: tiny and random ones here.
    let config: BertConfig = serde_json::from_value(json!({
        "hidden_act": "gelu", "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1,
        "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 64,
        "max_position_embeddings": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
        "type_vocab_size": 2, "vocab_size": 100, "id2label": { "0": "no", "1": "yes" },
    }))?;
    let build = |vs: &VarStore| BertForSequenceClassification::new(vs.root(), &config);
    let vs = VarStore::new(Device::Cpu);
    let (model, layers) = capture_named(&vs, || build(&vs));
    let model = model?;
    // Of pretrained weights: vs.load("model.safetensors")?;

    // Adapters on the attention's projections and the feed-forward layers; the head in full.
    let targets = Targets {
        target_modules: Pattern::Regex(r"bert\.encoder\.layer\.\d+\..*".into()),
        ..Default::default()
    };
    let settings = MethodConfig::Aflora(AfloraConfig::default());
    let method = settings.build()?;
    let chosen = targets.choose(&vs, &layers)?;
    let injection = Injection::new(&vs, chosen, method.as_ref(), &["classifier"], 42)?;

    // Whether a row's first token is an even number.
    let ids = Tensor::randint(100, [64, 12], (Kind::Int64, Device::Cpu));
    let labels = ids.select(1, 0).remainder(2);
    let steps = 100;
    let config = TunerConfig { head_lr: 1e-2, max_grad_norm: Some(1.0), ..Default::default() };
    let mut tuner = Tuner::new(config, method.as_ref(), injection.parameters(), 10, steps)?;
    injection.set_training(true);
    for _ in 0..steps {
        let logits = model.forward_t(Some(&ids), None, None, None, None, true).logits;
        let report = tuner.step(logits.cross_entropy_for_logits(&labels))?;
        if report.step % 20 == 0 {
            let loss = report.loss.double_value(&[]);
            println!("step {:3}: loss {loss:.4}, {} train", report.step, report.trainable);
        }
    }
    injection.set_training(false);

    // The adapter as a folder in PEFT's layout, opened again in a model of the same weights.
    let folder = std::env::temp_dir().join(format!("rust_bert_adapter_{}", std::process::id()));
    adapter_folder::save(&injection, &folder, &Description::new(settings, &injection))?;
    let mut other = VarStore::new(Device::Cpu);
    let (again, layers) = capture_named(&other, || build(&other));
    other.copy(&vs)?;
    let opened = AdapterFolder::open(&folder)?.inject(&other, &layers)?;
    std::fs::remove_dir_all(&folder)?;

    // One plain model, which computes the same.
    opened.merge()?;
    let logits = |model: &BertForSequenceClassification| {
        model.forward_t(Some(&ids), None, None, None, None, false).logits
    };
    let difference = (logits(&model) - logits(&again?)).abs().max().double_value(&[]);
    println!("merged and unmerged logits differ by {difference:.1e}");
    // other.save("merged.safetensors")?;
    Ok(())
}
