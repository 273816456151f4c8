//! One suite over every method that puts adapters on layers, on every shape of layer.

mod refused;
mod training;

use aflora_core::adapter::{
    normal, AdaLoraConfig, AfloraConfig, AfloraRankConfig, DoraConfig, EloraConfig, Init, Layer,
    LoraConfig, MethodConfig, PmTrainable, SoraConfig, TensorSpec,
};
use aflora_core::freeze::FreezeConfig;
use aflora_core::nn::{capture_named, quantised_linear};
use aflora_core::optim::Parameter;
use aflora_core::weight::WeightFormat;
use aflora_core::{shapes_only, AdaptedLinear, Block, Injection, Method, Site, Span};
use tch::{nn, nn::Module, nn::VarStore, Device, Kind, Tensor};

/// In features, out features, bias.
const SHAPES: [(i64, i64, bool); 4] =
    [(12, 12, true), (12, 20, true), (20, 12, false), (12, 12, false)];

/// A name and a method's settings, of small rank, for a run of 60 steps.
fn configs() -> Vec<(&'static str, MethodConfig)> {
    let freeze = FreezeConfig { t_i: Span::Steps(10), t_f: Span::Steps(20), ..Default::default() };
    let aflora = |rank, pm_trainable| {
        let freeze = freeze.clone();
        MethodConfig::Aflora(AfloraConfig { rank, pm_trainable, freeze, ..Default::default() })
    };
    let lora = |rslora| LoraConfig { rank: 3, alpha: 6.0, rslora, ..Default::default() };
    let elora = |shared| EloraConfig { rank: 6, shared, ..Default::default() };
    vec![
        ("aflora", aflora(4, PmTrainable::Ffn)),
        ("aflora, all trainable", aflora(3, PmTrainable::All)),
        ("aflora, vectors only", aflora(3, PmTrainable::None)),
        (
            "aflora with alpha",
            MethodConfig::Aflora(AfloraConfig { alpha: Some(8.0), ..Default::default() }),
        ),
        ("lora", MethodConfig::Lora(lora(false))),
        ("rslora", MethodConfig::Lora(lora(true))),
        ("dora", MethodConfig::Dora(DoraConfig(lora(false)))),
        ("lora that freezes", MethodConfig::Lora(freezing_lora())),
        ("dora that freezes", MethodConfig::Dora(DoraConfig(freezing_lora()))),
        ("lora of frozen A", MethodConfig::Lora(LoraConfig { train_a: false, ..lora(false) })),
        ("pissa", MethodConfig::Lora(LoraConfig { init: Init::Pissa, ..lora(false) })),
        (
            "pissa of few rounds",
            MethodConfig::Lora(LoraConfig {
                init: Init::Pissa,
                pissa_niter: Some(4),
                ..lora(true)
            }),
        ),
        ("olora", MethodConfig::Lora(LoraConfig { init: Init::Olora, ..lora(false) })),
        ("elora", MethodConfig::Elora(elora(true))),
        ("elora, own pairs", MethodConfig::Elora(elora(false))),
        (
            "adalora",
            MethodConfig::AdaLora(AdaLoraConfig {
                rank: 4,
                target_rank: 2,
                alpha: 8.0,
                ..Default::default()
            }),
        ),
        ("sora", MethodConfig::Sora(SoraConfig { rank: 4, threshold: 1e-2, ..Default::default() })),
        (
            "aflora_rank",
            MethodConfig::AfloraRank(AfloraRankConfig {
                rank: 4,
                target_rank: 2,
                freeze: FreezeConfig { interval: 3, ..freeze.clone() },
                ..Default::default()
            }),
        ),
    ]
}

/// Of a run of 60 steps, the last 20 with all frozen.
fn freezing_lora() -> LoraConfig {
    let freeze = FreezeConfig {
        t_i: Span::Steps(10),
        t_f: Span::Steps(20),
        interval: 3,
        ..Default::default()
    };
    LoraConfig { rank: 3, alpha: 6.0, freeze, ..Default::default() }
}

fn methods() -> Vec<(&'static str, Box<dyn Method>)> {
    configs().into_iter().map(|(name, config)| (name, config.build().unwrap())).collect()
}

fn fixed(shape: &[i64], name: &str) -> Tensor {
    normal(shape, 0.5, 9, name)
}

fn linear((from, to, bias): (i64, i64, bool)) -> nn::Linear {
    nn::Linear { ws: fixed(&[to, from], "weight"), bs: bias.then(|| fixed(&[to], "bias")) }
}

/// Every shape with an adapter of `method`; square layers are attention, others feed-forward.
fn layers(method: &dyn Method) -> Vec<AdaptedLinear> {
    let names: Vec<String> = (0..SHAPES.len()).map(|i| format!("layer{i}")).collect();
    let block = |from, to| if from == to { Block::Attention } else { Block::Ffn };
    let plain = names
        .iter()
        .zip(SHAPES)
        .map(|(name, shape)| (name.as_str(), linear(shape), block(shape.0, shape.1)))
        .collect();
    AdaptedLinear::wrap_all(plain, method, 5).unwrap()
}

/// Gives every tensor of the adapters values other than those of the start.
fn disturb(layers: &[AdaptedLinear]) {
    for layer in layers {
        let adapter = layer.adapter();
        for mut t in adapter.tensors() {
            let name = format!("{}.{}", adapter.site().name, t.spec.name);
            tch::no_grad(|| t.tensor.copy_(&fixed(&t.tensor.size(), &name)));
        }
    }
}

/// Whether A and B are part of the weight at the start.
fn starts_within(name: &str) -> bool {
    name.starts_with("pissa") || name == "olora"
}

fn close(a: &Tensor, b: &Tensor, limit: f64) -> bool {
    let scale = b.abs().max().double_value(&[]).max(1e-12);
    (a - b).abs().max().double_value(&[]) / scale < limit
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    for (name, method) in methods() {
        for (layer, shape) in layers(method.as_ref()).iter().zip(SHAPES) {
            let x = fixed(&[2, 5, shape.0], "x");
            let (found, expected) = (layer.forward(&x), linear(shape).forward(&x));
            match starts_within(name) {
                // What it adds is what it takes away, but for the order of sums.
                true => assert!(close(&found, &expected, 1e-6), "{name} {shape:?}"),
                false => assert_eq!(found, expected, "{name} {shape:?}"),
            }
        }
    }
}

#[test]
fn merged_equals_unmerged_and_unmerging_is_the_identity() {
    for (name, method) in methods() {
        let layers = layers(method.as_ref());
        disturb(&layers);
        for (layer, shape) in layers.iter().zip(SHAPES) {
            let x = fixed(&[7, shape.0], "x");
            let apart = layer.forward(&x);
            assert!(!close(&apart, &linear(shape).forward(&x), 1e-3), "{name}: disturbed");
            layer.merge();
            assert!(close(&layer.forward(&x), &apart, 1e-5), "{name} {shape:?}");
            assert!(close(&layer.to_linear().forward(&x), &apart, 1e-5), "{name} {shape:?}");
            layer.unmerge();
            assert_eq!(layer.forward(&x), apart, "{name} {shape:?}: to the bit");
        }
    }
}

#[test]
fn a_bf16_base_merges_within_its_rounding() {
    for (name, method) in methods() {
        for shape in SHAPES {
            let exact = linear(shape);
            let half = nn::Linear {
                ws: exact.ws.to_kind(Kind::BFloat16),
                bs: exact.bs.as_ref().map(|b| b.to_kind(Kind::BFloat16)),
            };
            let layer = AdaptedLinear::wrap("l", half, Block::Ffn, method.as_ref(), 5).unwrap();
            disturb(std::slice::from_ref(&layer));
            let x = fixed(&[7, shape.0], "x").to_kind(Kind::BFloat16);
            let apart = layer.forward(&x).to_kind(Kind::Float);
            layer.merge();
            // One rounding of the weights and a few of the activations, 2⁻⁹ each.
            assert!(
                close(&layer.forward(&x).to_kind(Kind::Float), &apart, 0.03),
                "{name} {shape:?}"
            );
        }
    }
}

#[test]
fn the_folded_pair_is_what_merging_adds() {
    for (name, method) in methods() {
        let layers = layers(method.as_ref());
        disturb(&layers);
        for (layer, (from, to, _)) in layers.iter().zip(SHAPES) {
            let adapter = layer.adapter();
            let Some(pair) = adapter.low_rank() else {
                assert!(name.starts_with("dora"), "what it makes of a weight is no sum");
                continue;
            };
            let rank = adapter.rank() * if starts_within(name) { 2 } else { 1 };
            assert_eq!(pair.down.size(), [rank, from], "{name}");
            assert_eq!(pair.up.size(), [to, rank], "{name}");
            let weight = fixed(&[to, from], "weight");
            let sum = &weight + pair.up.matmul(&pair.down);
            assert!(close(&adapter.merged(&weight), &sum, 1e-6), "{name}");
        }
    }
}

#[test]
fn only_what_is_declared_has_a_gradient_and_its_count_is_the_closed_formula() {
    for (name, method) in methods() {
        let layers = layers(method.as_ref());
        disturb(&layers);
        for (layer, shape) in layers.iter().zip(SHAPES) {
            let adapter_parameters: i64 =
                layer.adapter().parameters().iter().map(|p| p.leaf.numel() as i64).sum();
            assert_eq!(
                adapter_parameters,
                method.trainable_count(layer.adapter().site()),
                "{name}"
            );
            layer.forward(&fixed(&[7, shape.0], "x")).square().sum(Kind::Float).backward();
            for t in layer.adapter().tensors() {
                let has = t.tensor.grad().defined();
                assert_eq!(has, t.trainable, "{name} {shape:?}: {}", t.spec.name);
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-6;
    for (name, method) in methods() {
        let layers = layers(method.as_ref());
        disturb(&layers);
        for (layer, shape) in layers.iter().zip(SHAPES) {
            let adapter = layer.adapter();
            for t in adapter.tensors() {
                let mut tensor = t.tensor;
                tensor.set_data(&tensor.to_kind(Kind::Double));
            }
            let weight = linear(shape);
            let double = |t: &Tensor| t.to_kind(Kind::Double);
            let (ws, bs) = (double(&weight.ws), weight.bs.as_ref().map(double));
            let x = double(&fixed(&[3, shape.0], "x"));
            let toward = double(&fixed(&[3, shape.1], "toward"));
            let loss =
                || (adapter.forward(&x, &(&ws).into(), bs.as_ref()) * &toward).sum(Kind::Double);
            let leaves: Vec<_> = adapter.parameters();
            let gradients = Tensor::run_backward(
                &[loss()],
                &leaves.iter().map(|p| &p.leaf).collect::<Vec<_>>(),
                false,
                false,
            );
            for (parameter, gradient) in leaves.iter().zip(gradients) {
                // DoRA takes the norm for a constant, which moving A or B would change.
                if name.starts_with("dora") && parameter.components().is_some() {
                    continue;
                }
                let direction = double(&fixed(&parameter.leaf.size(), "direction"));
                let moved = |sign: f64| {
                    tch::no_grad(|| {
                        let kept = parameter.leaf.copy();
                        parameter.leaf.shallow_clone().copy_(&(&kept + &direction * (sign * STEP)));
                        let value = loss().double_value(&[]);
                        parameter.leaf.shallow_clone().copy_(&kept);
                        value
                    })
                };
                let slope = (moved(1.0) - moved(-1.0)) / (2.0 * STEP);
                let expected = (gradient * &direction).sum(Kind::Double).double_value(&[]);
                let error = (slope - expected).abs() / expected.abs().max(1.0);
                assert!(error < 1e-6, "{name} {shape:?} {}: {error:e}", parameter.name);
            }
        }
    }
}

/// A network of every shape, one after the other, and its loss on fixed data.
fn loss(layers: &[AdaptedLinear]) -> Tensor {
    let mut x = fixed(&[32, 12], "x");
    for layer in layers {
        x = layer.forward(&x).tanh();
    }
    let labels = Tensor::arange(32, (Kind::Int64, Device::Cpu)).remainder(4);
    (x.narrow(1, 0, 4) * 4.0).cross_entropy_for_logits(&labels)
}

fn parameters(layers: &[AdaptedLinear]) -> Vec<Parameter> {
    layers.iter().flat_map(|l| l.adapter().parameters()).collect()
}

#[test]
fn every_method_reads_back_as_it_is_written() {
    for (name, config) in configs() {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<MethodConfig>(&text).unwrap(), config, "{name}");
    }
    for name in MethodConfig::NAMES {
        let config = MethodConfig::defaults(name).unwrap();
        assert_eq!((config.name(), config.build().unwrap().name()), (*name, *name));
        assert_eq!(serde_json::to_value(&config).unwrap()["method"], *name);
    }
    let vera: MethodConfig = serde_json::from_str(r#"{"method": "vera", "rank": 2}"#).unwrap();
    assert_eq!(vera.build().unwrap().name(), "elora");
}

#[test]
fn adapters_of_shapes_alone_are_those_that_are_drawn_and_take_no_memory() {
    type About = Vec<(TensorSpec, Vec<i64>, bool)>;
    let about = |method: &dyn Method, site: Site| -> About {
        let adapters = method.attach(&[Layer::shape_only(site)], 1, Device::Cpu).unwrap();
        let tensors = adapters[0].tensors();
        tensors.into_iter().map(|t| (t.spec, t.tensor.size(), t.trainable)).collect()
    };
    let site = |from, to| Site::new("layer", from, to, Block::Ffn);
    for (name, method) in methods() {
        let method = method.as_ref();
        let drawn = about(method, site(12, 20));
        assert_eq!(shapes_only(|| about(method, site(12, 20))), drawn, "{name}");
        // More numbers than any machine holds.
        let wide = shapes_only(|| about(method, site(1 << 44, 1 << 45)));
        assert_eq!(wide.len(), drawn.len(), "{name}");
        assert!(wide.iter().any(|(_, shape, _)| shape.contains(&(1 << 45))), "{name}: {wide:?}");
    }
    // And no longer than that, even where the making panics.
    let panicked = std::panic::catch_unwind(|| shapes_only(|| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_ne!(normal(&[4], 1.0, 1, "w").abs().sum(Kind::Float).double_value(&[]), 0.0);
}

#[test]
fn on_a_quantised_weight_every_method_computes_what_it_does_on_the_restored_one() {
    let (from, to) = (64, 32);
    let x = || fixed(&[7, from], "x").set_requires_grad(true);
    let toward = fixed(&[7, to], "toward");
    for (name, method) in methods() {
        for transposed in [false, true] {
            let vs = VarStore::new(Device::Cpu);
            let format = WeightFormat::Nf4;
            let made =
                || quantised_linear(&(vs.root() / "l"), (from, to), true, transposed, format);
            let (layer, captured) = capture_named(&vs, made);
            let stored = if transposed { [from, to] } else { [to, from] };
            captured[0].layer.put(&fixed(&stored, "weight")).unwrap();
            assert!(layer.ws.isnan().all().int64_value(&[]) == 1, "its place holds no numbers");
            let restored = captured[0].layer.weight().numbers();
            let dense = nn::Linear {
                ws: restored,
                bs: Some(Tensor::zeros([to], (Kind::Float, Device::Cpu))),
            };
            let dense = AdaptedLinear::wrap("l", dense, Block::Ffn, method.as_ref(), 5).unwrap();
            let injection = Injection::new(&vs, captured, method.as_ref(), &[] as &[&str], 5);
            let injection = injection.unwrap();
            disturb(std::slice::from_ref(&dense));
            let other = dense.adapter().tensors();
            tch::no_grad(|| {
                for t in injection.injected()[0].adapter().tensors() {
                    let same = other.iter().find(|o| o.spec.name == t.spec.name).unwrap();
                    t.tensor.shallow_clone().copy_(&same.tensor);
                }
            });
            let run = |forward: &dyn Fn(&Tensor) -> Tensor| {
                let x = x();
                let loss = (forward(&x) * &toward).sum(Kind::Float);
                let gradient = Tensor::run_backward(&[&loss], &[&x], false, false).remove(0);
                (loss, gradient)
            };
            let (loss, gradient) = run(&|x| layer.forward(x));
            let (expected, expected_gradient) = run(&|x| dense.forward(x));
            assert!(close(&loss, &expected, 1e-5), "{name}");
            assert!(close(&gradient, &expected_gradient, 1e-5), "{name}");

            let y = layer.forward(&x());
            let merged = &injection.merged_weights()["l.weight"];
            let merged = if transposed { merged.tr() } else { merged.shallow_clone() };
            assert!(close(&x().linear(&merged, None::<Tensor>), &y, 1e-5), "{name}");
            injection.merge().unwrap();
            assert!(close(&layer.forward(&x()), &y, 1e-5), "{name}: merged");
            assert_eq!(layer.ws.size(), stored, "{name}: a plain layer again");
            assert_eq!(layer.ws.isnan().any().int64_value(&[]), 0, "{name}");
        }
    }
}
