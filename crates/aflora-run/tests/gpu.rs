//! What needs a GPU. Without one, each test says on standard error that it was skipped.

use aflora_core::adapter::{normal, Aflora, AfloraConfig, Lora, LoraConfig, PmTrainable};
use aflora_core::{kernels, AdaptedLinear, Block, Tuner, TunerConfig};
use aflora_models::{build, AdaptedModel, Batch, Head, Options, Pattern, Targets};
use std::io::Write;
use tch::{nn, nn::Module, Device, Kind, Tensor};

/// The first GPU. Must come before the process makes its first tensor.
fn gpu() -> Option<Device> {
    match aflora_run::device::choose(
        aflora_run::config::DeviceChoice::Cuda(None),
        &Default::default(),
    ) {
        Ok(device) => Some(device),
        Err(why) => {
            // Written past the test runner, which shows nothing of a test that passes.
            let _ = writeln!(std::io::stderr(), "skipped, it needs a GPU: {why:#}");
            None
        }
    }
}

/// Trains two adapted layers on fixed data; the losses, and what froze when.
fn train(device: Device) -> (Vec<f64>, Vec<(String, u64)>) {
    let config = AfloraConfig { pm_trainable: PmTrainable::All, ..Default::default() };
    let method = Aflora::new(config).unwrap();
    let fixed = |shape: &[i64], name: &str| normal(shape, 0.3, 1, name).to_device(device);
    let wrap = |name: &str, from, to| {
        let bs = Some(fixed(&[to], &format!("{name}.bias")));
        let layer = nn::Linear { ws: fixed(&[to, from], name), bs };
        AdaptedLinear::wrap(name, layer, Block::Ffn, &method, 5).unwrap()
    };
    let (up, down) = (wrap("up", 24, 64), wrap("down", 64, 3));
    let x = fixed(&[128, 24], "x");
    let labels = Tensor::arange(128, (Kind::Int64, device)).remainder(3);
    let parameters = [up.adapter().parameters(), down.adapter().parameters()];
    let parameters = parameters.into_iter().flatten().collect();
    let config = TunerConfig { max_grad_norm: Some(1.0), ..Default::default() };
    let mut tuner = Tuner::new(config, &method, parameters, 10, 100).unwrap();
    let losses = (0..100).map(|_| {
        let loss = down.forward(&up.forward(&x).relu()).cross_entropy_for_logits(&labels);
        tuner.step(&loss).unwrap();
        loss.double_value(&[])
    });
    let losses = losses.collect();
    (losses, tuner.accounting().frozen_at.clone())
}

#[test]
fn training_on_a_gpu_agrees_with_training_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let ((on_gpu, froze_gpu), (on_cpu, froze_cpu)) = (train(gpu), train(Device::Cpu));
    for (step, (a, b)) in on_gpu.iter().zip(&on_cpu).enumerate() {
        assert!((a - b).abs() < 1e-3 * b.abs(), "step {step}: {a} on the GPU, {b} on the CPU");
    }
    assert_eq!(froze_gpu, froze_cpu);
    assert!(on_gpu[99] < 0.9 * on_gpu[0], "{on_gpu:?}");
}

/// Both paths round to bf16, so what they give differs by some hundredths of its length.
#[test]
fn deberta_by_tiles_is_deberta_and_learns_the_same() {
    let Some(gpu) = gpu() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (kinds, share) in [("c2p|p2c", true), ("c2p|p2c", false), ("p2c", true)] {
        let config = folder.path().join("config.json");
        let text = serde_json::json!({
            "model_type": "deberta-v2", "hidden_size": 128, "num_attention_heads": 2,
            "num_hidden_layers": 2, "intermediate_size": 256, "vocab_size": 100, "type_vocab_size": 0,
            "hidden_act": "gelu", "relative_attention": true, "position_buckets": 32,
            "max_position_embeddings": 64, "max_relative_positions": -1, "pos_att_type": kinds,
            "share_att_key": share, "norm_rel_ebd": "layer_norm", "position_biased_input": false,
            "layer_norm_eps": 1e-7, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        });
        std::fs::write(&config, text.to_string()).unwrap();
        let options = Options { base: Kind::BFloat16, ..Options::new(gpu) };
        let backbone = build("deberta-v2", &config, Head::Classes(2), &options).unwrap();
        for (name, mut weight) in backbone.var_store().variables() {
            let drawn = normal(&weight.size(), 0.05, 1, &name).to_device(gpu);
            tch::no_grad(|| weight.copy_(&drawn));
        }
        let method = Lora::new(LoraConfig { rank: 4, ..Default::default() }).unwrap();
        let targets = Targets { target_modules: Pattern::Regex(".*".into()), ..Default::default() };
        let model = AdaptedModel::new(backbone, &method, &targets, &[], Kind::BFloat16, 1).unwrap();
        let leaves: Vec<Tensor> = model.parameters().into_iter().map(|p| p.leaf).collect();
        for (i, leaf) in leaves.iter().enumerate() {
            let drawn = normal(&leaf.size(), 0.05, 2, &format!("leaf {i}")).to_device(gpu);
            tch::no_grad(|| leaf.shallow_clone().copy_(&drawn));
        }
        let ids = Tensor::arange(3 * 150, (Kind::Int64, gpu)).remainder(97).view([3, 150]);
        let mask = ids.ones_like();
        let _ = mask.get(1).narrow(0, 100, 50).fill_(0);
        let run = |from| {
            kernels::tile_from(from);
            let x = Tensor::zeros([1], (Kind::BFloat16, gpu));
            assert_eq!(kernels::tiles(&x, 64, 150), from == 0, "{:?}", aflora_cuda::ops::failure());
            let batch = Batch::new(ids.shallow_clone(), mask.shallow_clone());
            let logits = model.forward(&batch, true).unwrap().logits.to_kind(Kind::Float);
            let loss =
                (&logits * Tensor::from_slice(&[1f32, -1.0]).to_device(gpu)).sum(Kind::Float);
            let mut all = Tensor::run_backward(&[loss], &leaves, false, false);
            all.push(logits.detach());
            all
        };
        let (by_tiles, without) = (run(0), run(i64::MAX));
        for (i, (found, expected)) in by_tiles.iter().zip(&without).enumerate() {
            let far = (found - expected).norm().double_value(&[]);
            let length = expected.norm().double_value(&[]);
            assert!(far < 0.05 * length + 1e-6, "{kinds}, {share}, tensor {i}: {far} of {length}");
        }
    }
}
