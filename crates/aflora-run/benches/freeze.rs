//! A training step before and after all projection matrices froze, beside LoRA and ELoRA.
//!
//!     cargo bench -p aflora-run --bench freeze -- [cpu|cuda] [tokens] [steps]
//!
//! The layers are the two feed-forward ones of six DeBERTaV3-base blocks (768 → 3072 → 768), one
//! after the other, with AFLoRA r = 4; a step is forward, backward and update. Systems take turns
//! step by step, so that whatever else the machine does hits all of them; medians are given.

use aflora_core::adapter::{AfloraConfig, EloraConfig, LoraConfig, MethodConfig, PmTrainable};
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::{AdaptedLinear, Block, Tuner, TunerConfig};
use aflora_run::device::{choose, synchronize};
use std::time::Instant;
use tch::{nn, nn::Module, Device, Kind, Tensor};

const BLOCKS: usize = 6;

struct System {
    name: &'static str,
    layers: Vec<AdaptedLinear>,
    tuner: Tuner,
    x: Tensor,
    milliseconds: Vec<f64>,
}

impl System {
    fn new(name: &'static str, method: &MethodConfig, tokens: i64, device: Device) -> Self {
        let kind = if device == Device::Cpu { Kind::Float } else { Kind::BFloat16 };
        let random =
            |shape: &[i64]| (Tensor::randn(shape, (Kind::Float, device)) * 0.02).to_kind(kind);
        let method = method.build().expect("settings in range");
        let names: Vec<String> = (0..2 * BLOCKS).map(|i| i.to_string()).collect();
        let plain = names.iter().enumerate().map(|(i, name)| {
            let (from, to) = if i % 2 == 0 { (768, 3072) } else { (3072, 768) };
            let layer = nn::Linear { ws: random(&[to, from]), bs: Some(random(&[to])) };
            (name.as_str(), layer, Block::Ffn)
        });
        let layers = AdaptedLinear::wrap_all(plain.collect(), method.as_ref(), 1).expect("layers");
        let parameters = layers.iter().flat_map(|l| l.adapter().parameters()).collect();
        let config = TunerConfig { lr: 1e-4, ..Default::default() };
        let tuner = Tuner::new(config, method.as_ref(), parameters, 1000, 100_000).expect("tuner");
        let x = random(&[tokens, 768]).set_requires_grad(true);
        System { name, layers, tuner, x, milliseconds: Vec::new() }
    }

    fn step(&mut self, device: Device) {
        let started = Instant::now();
        let mut x = self.x.shallow_clone();
        for pair in self.layers.chunks(2) {
            x = &x + pair[1].forward(&pair[0].forward(&x).gelu("none"));
        }
        let loss = x.to_kind(Kind::Float).square().mean(Kind::Float);
        self.tuner.step(&loss).expect("step");
        synchronize(device);
        self.milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
}

fn main() {
    // Cargo itself passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let argument = |i: usize, default: &str| arguments.get(i).cloned().unwrap_or(default.into());
    let device = choose(argument(0, "auto").parse().expect("device"), &aflora_cuda::World::alone())
        .expect("device");
    let tokens = argument(1, if device == Device::Cpu { "512" } else { "8192" });
    let tokens: i64 = tokens.parse().expect("tokens");
    let steps: usize = argument(2, "30").parse().expect("steps");
    let aflora = |mode| {
        let freeze = FreezeConfig { mode, ..Default::default() };
        let pm_trainable = PmTrainable::All;
        MethodConfig::Aflora(AfloraConfig { freeze, pm_trainable, ..Default::default() })
    };
    let mut systems: Vec<System> = [
        ("AFLoRA r=4, all matrices train", aflora(FreezeMode::Never)),
        ("AFLoRA r=4, all matrices frozen", aflora(FreezeMode::Start)),
        ("LoRA r=8", MethodConfig::Lora(LoraConfig::default())),
        ("ELoRA r=1024", MethodConfig::Elora(EloraConfig::default())),
    ]
    .iter()
    .map(|(name, method)| System::new(name, method, tokens, device))
    .collect();
    for _ in 0..steps + 3 {
        for system in &mut systems {
            system.step(device);
        }
    }
    println!("{device:?}, {tokens} tokens, {steps} steps, medians in ms");
    for system in &mut systems {
        let times = &mut system.milliseconds.split_off(3);
        times.sort_by(f64::total_cmp);
        println!("{:32} {:8.2}", system.name, times[times.len() / 2]);
    }
}
