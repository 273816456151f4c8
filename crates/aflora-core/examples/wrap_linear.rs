//! Puts AFLoRA on plain `nn::Linear` layers of one's own and trains.
//!
//! `cargo run -p aflora-core --example wrap_linear`

use aflora_core::adapter::{Aflora, AfloraConfig, PmTrainable};
use aflora_core::{AdaptedLinear, Block, Tuner, TunerConfig};
use tch::{nn, nn::Module, Device, Kind, Tensor};

fn main() -> aflora_core::Result<()> {
    tch::manual_seed(42);
    let vs = nn::VarStore::new(Device::Cpu);
    let method =
        Aflora::new(AfloraConfig { pm_trainable: PmTrainable::All, ..Default::default() })?;

    // Two "pretrained" layers: frozen, with a low-rank path beside each.
    let wrap = |name: &str, from, to| {
        let layer = nn::linear(vs.root() / name, from, to, Default::default());
        AdaptedLinear::wrap(name, layer, Block::Ffn, &method, 42)
    };
    let (up, down) = (wrap("up", 16, 64)?, wrap("down", 64, 2)?);
    let parameters =
        up.adapter().parameters().into_iter().chain(down.adapter().parameters()).collect();

    let x = Tensor::randn([256, 16], (Kind::Float, Device::Cpu));
    let labels = x.sum_dim_intlist(1, false, Kind::Float).gt(0.0).to_kind(Kind::Int64);
    let config = TunerConfig { lr: 2e-2, max_grad_norm: None, ..Default::default() };
    let mut tuner = Tuner::new(config, &method, parameters, 10, 200)?;
    for _ in 0..200 {
        let loss = down.forward(&up.forward(&x).relu()).cross_entropy_for_logits(&labels);
        let report = tuner.step(&loss)?;
        for name in report.check.iter().flat_map(|check| check.frozen()) {
            println!("step {:3}: loss {:.4}, {name} freezes", report.step, loss.double_value(&[]));
        }
    }
    let counts = tuner.accounting();
    println!("trained {} parameters at the start, {} at the end", counts.at_start, counts.at_end);
    Ok(())
}
