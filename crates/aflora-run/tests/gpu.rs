//! What needs a GPU. Without one, each test says on standard error that it was skipped.

use aflora_core::adapter::{normal, Aflora, AfloraConfig, PmTrainable};
use aflora_core::{AdaptedLinear, Block, Tuner, TunerConfig};
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
