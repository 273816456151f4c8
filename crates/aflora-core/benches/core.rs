//! The parts of a step that are this crate's own, on the CPU, each beside the plain way: one
//! operation after the other, one tensor after the other.
//!
//!     cargo bench -p aflora-core
//!
//! The matrices and vectors are those of AFLoRA with r = 4 on all six linear layers of
//! DeBERTaV3-base's twelve blocks: 48 matrices and 144 vectors that train.

use aflora_core::adapter::{normal, Aflora, AfloraConfig, Role};
use aflora_core::freeze::{Curve, FreezeConfig, FreezeController, Schedule};
use aflora_core::optim::{
    clip_global_norm, AdamW, AdamWConfig, Arena, Gradients, GroupUpdate, Parameter,
};
use aflora_core::{AdaptedLinear, Block, Checkpoints, Span};
use criterion::{criterion_group, criterion_main, Criterion};
use std::hint::black_box;
use tch::{nn, nn::Module, Kind, Tensor};

const TOKENS: i64 = 512;

fn random(name: &str, shape: &[i64]) -> Tensor {
    normal(shape, 0.02, 1, name)
}

/// The layers of a block: their widths, and whether their matrices train.
const LAYERS: [(&str, i64, i64, Block); 6] = [
    ("query", 768, 768, Block::Attention),
    ("key", 768, 768, Block::Attention),
    ("value", 768, 768, Block::Attention),
    ("attention.output", 768, 768, Block::Attention),
    ("intermediate", 768, 3072, Block::Ffn),
    ("output", 3072, 768, Block::Ffn),
];

fn layer(name: &str, from: i64, to: i64, block: Block) -> AdaptedLinear {
    let linear = nn::Linear { ws: random(name, &[to, from]), bs: Some(random(name, &[to])) };
    let method = Aflora::new(AfloraConfig::default()).unwrap();
    AdaptedLinear::wrap(name, linear, block, &method, 1).unwrap()
}

/// All that trains, its gradient, and a controller that tests at every tenth step.
struct State {
    arena: Arena,
    gradients: Gradients,
    controller: FreezeController,
}

impl State {
    fn new() -> Self {
        let mut parameters: Vec<Parameter> = Vec::new();
        for i in 0..12 {
            for (name, from, to, block) in LAYERS {
                let layer = layer(&format!("{i}.{name}"), from, to, block);
                parameters.extend(layer.adapter().parameters());
            }
        }
        let losses: Vec<Tensor> = parameters
            .iter()
            .map(|p| (&p.leaf * random(&p.name, &p.leaf.size())).sum(Kind::Float))
            .collect();
        let loss = Tensor::stack(&losses, 0).sum(Kind::Float);
        let arena = Arena::new(parameters).unwrap();
        let mut gradients = arena.buffer();
        arena.add_gradients(&loss, Checkpoints::default(), &mut gradients).unwrap();
        let config = FreezeConfig { t_i: Span::Steps(0), ..Default::default() };
        let candidates = arena.group(Role::Projection).unwrap().len();
        let controller = FreezeController::new(&config, candidates, 1000, 100_000).unwrap();
        State { arena, gradients, controller }
    }

    /// The same parameters and gradients, a tensor each.
    fn apart(&self) -> Vec<(Tensor, Tensor)> {
        let mut all = Vec::new();
        for (role, group) in self.arena.groups() {
            let gradients = group.slices(self.gradients.get(role).unwrap());
            let leaves = group.parameters().map(|p| p.leaf.detach().copy());
            all.extend(leaves.zip(gradients).map(|(leaf, g)| {
                let g = g.copy().view_as(&leaf);
                (leaf, g)
            }));
        }
        all
    }
}

fn freezing(c: &mut Criterion) {
    let schedule = Schedule::new(100_000, 1_000, 70_000, Curve::EaseOut, 3.0).unwrap();
    c.bench_function("schedule: r(t)", |b| b.iter(|| schedule.ratio(black_box(20_000))));

    let mut state = State::new();
    let State { arena, gradients, controller } = &mut state;
    let gradient = gradients.get(Role::Projection).unwrap();
    let group = arena.group_mut(Role::Projection).unwrap();
    let mut scores = c.benchmark_group("scores");
    // Steps 1 to 9 of a window of ten only average; step 10 closes it, smooths, and tests.
    scores.bench_function("a step", |b| b.iter(|| controller.observe(1, group, gradient)));
    scores.bench_function("a step with a test", |b| {
        b.iter(|| {
            controller.observe(10, group, gradient);
            controller.test(10, group)
        })
    });
    let parts: Vec<Tensor> = group.slices(gradient).map(|g| g.copy()).collect();
    let mut windows: Vec<Tensor> = parts.iter().map(Tensor::zeros_like).collect();
    scores.bench_function("a step, plain", |b| {
        b.iter(|| {
            for (window, g) in windows.iter_mut().zip(&parts) {
                window.copy_(&(&*window + (g.abs() - &*window) / 2.0));
            }
        })
    });
}

fn update(c: &mut Criterion) {
    let mut state = State::new();
    let apart = state.apart();
    let State { arena, gradients, .. } = &mut state;
    let optimiser = AdamW::new(AdamWConfig::default()).unwrap();
    let mut adamw = c.benchmark_group("AdamW");
    adamw.bench_function("flat", |b| {
        b.iter(|| {
            let updates = arena.groups_mut().map(|(role, group)| {
                let gradient = gradients.get(role).unwrap();
                GroupUpdate { group, gradient, lr: 1e-9, decay: 0.1 }
            });
            optimiser.update(5, updates);
        })
    });
    let mut moments: Vec<(Tensor, Tensor)> =
        apart.iter().map(|(p, _)| (p.zeros_like(), p.zeros_like())).collect();
    adamw.bench_function("plain", |b| {
        b.iter(|| {
            for ((p, g), (m, v)) in apart.iter().zip(&mut moments) {
                let mut p = p.shallow_clone();
                p.copy_(&(&p * (1.0 - 1e-9 * 0.1)));
                m.copy_(&(&*m * 0.9 + g * 0.1));
                v.copy_(&(&*v * 0.999 + g * g * 0.001));
                let step = (&*m / 0.41) / ((&*v / 0.005).sqrt() + 1e-8) * 1e-9;
                p.copy_(&(&p - step));
            }
        })
    });
    adamw.finish();

    let mut clip = c.benchmark_group("clipping");
    clip.bench_function("flat", |b| b.iter(|| clip_global_norm(gradients, Some(0.1))));
    clip.bench_function("plain", |b| {
        b.iter(|| {
            let norms: Vec<Tensor> = apart.iter().map(|(_, g)| g.norm()).collect();
            let norm = Tensor::stack(&norms, 0).norm();
            let factor = ((&norm + 1e-6).reciprocal() * 0.1).clamp_max(1.0);
            for (_, g) in &apart {
                let _ = g.shallow_clone().g_mul_(&factor);
            }
        })
    });
}

fn adapter(c: &mut Criterion) {
    let wrapped = layer("layer", 768, 3072, Block::Ffn);
    let parameters = wrapped.adapter().parameters();
    let part = |name: &str| {
        let found = parameters.iter().find(|p| p.name.contains(name));
        found.unwrap_or_else(|| panic!("no {name}")).leaf.shallow_clone()
    };
    let (a, up, d, b) = (part("lora_A"), part("lora_B"), part("aflora_d"), part("aflora_b"));
    let (weight, bias) = (random("layer", &[3072, 768]), random("layer", &[3072]));
    let x = random("x", &[TOKENS, 768]).set_requires_grad(true);
    let toward = random("toward", &[TOKENS, 3072]);
    let plain = || {
        let h = x.matmul(&a.tr()) * &d;
        x.linear(&weight, Some(&bias)) + h.matmul(&up.tr()) * &b
    };
    let inputs = [&x, &a, &up, &d, &b];
    let backward =
        |y: Tensor| Tensor::run_backward(&[(y * &toward).sum(Kind::Float)], &inputs, false, false);
    let mut group = c.benchmark_group("adapter 768 → 3072, 512 tokens");
    group.sample_size(40);
    group.bench_function("forward", |b| b.iter(|| tch::no_grad(|| wrapped.forward(&x))));
    group.bench_function("forward, plain", |b| b.iter(|| tch::no_grad(plain)));
    group.bench_function("forward and backward", |b| b.iter(|| backward(wrapped.forward(&x))));
    group.bench_function("forward and backward, plain", |b| b.iter(|| backward(plain())));
}

criterion_group!(benches, freezing, update, adapter);
criterion_main!(benches);
