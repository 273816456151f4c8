//! Values that PyTorch made; the scripts lie beside them in `fixtures/`.

use aflora_core::adapter::combine::{Combination, How, Majority, Part};
use aflora_core::adapter::{
    normal, AdaLora, AdaLoraConfig, Aflora, AfloraConfig, DoraConfig, Elora, EloraConfig, Init,
    Layer, Lora, LoraConfig, LowRank, MethodConfig, PmTrainable, Role,
};
use aflora_core::freeze::{Curve, FreezeConfig, FreezeController, Rule, Score};
use aflora_core::optim::{
    clip_global_norm, AdamW, AdamWConfig, Arena, GroupUpdate, LrSchedule, Parameter, Schedule,
};
use aflora_core::{flops, AdaptedLinear, Adapter, Block, Method, Site, Span, Tuner, TunerConfig};
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{nn, nn::Module, Device, Kind, Tensor};

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

/// ‖found - expected‖∞ / ‖expected‖∞.
fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let scale = expected.abs().max().double_value(&[]);
    (found - expected).abs().max().double_value(&[]) / scale.max(1e-30)
}

#[test]
fn the_module_is_equation_1_with_its_gradients_and_merges_exactly() {
    let t = tensors("module.safetensors");
    let float = |name: &str| t[name].to_kind(Kind::Float);
    let layer = Layer::shape_only(Site::new("m", 5, 7, Block::Ffn));
    for pm_trainable in [PmTrainable::Ffn, PmTrainable::None] {
        let config = AfloraConfig { rank: 3, pm_trainable, ..Default::default() };
        let adapter = Aflora::new(config)
            .unwrap()
            .attach(std::slice::from_ref(&layer), 0, Device::Cpu)
            .unwrap();
        let adapter = &adapter[0];
        let names = BTreeMap::from([
            ("lora_A", "a"),
            ("lora_B", "b"),
            ("aflora_d", "d"),
            ("aflora_b", "b_vec"),
        ]);
        for mut own in adapter.tensors() {
            tch::no_grad(|| own.tensor.copy_(&float(names[own.spec.name])));
        }
        let x = float("x").set_requires_grad(true);
        let y = adapter.forward(&x, &float("weight").into(), Some(&float("bias")));
        assert!(relative(&y, &t["y"]) < 1e-5, "{pm_trainable:?}");
        (y * float("upstream")).sum(Kind::Float).backward();
        assert!(relative(&x.grad(), &t["grad.x"]) < 1e-5);
        for own in adapter.tensors() {
            if own.trainable {
                let expected = &t[&format!("grad.{}", names[own.spec.name])];
                assert!(relative(&own.tensor.grad(), expected) < 1e-5, "{}", own.spec.name);
            } else {
                assert!(!own.tensor.grad().defined(), "{} is frozen", own.spec.name);
            }
        }
        let merged = adapter.merged(&float("weight"));
        assert!(relative(&merged, &t["merged"]) < 1e-5);
    }
}

#[test]
fn the_update_is_pytorchs_adamw_with_clipping_and_warm_up() {
    let t = tensors("adamw.safetensors");
    let groups = [
        ("projection", Role::Projection, 1e-2, 0.1),
        ("vector", Role::Vector, 2e-2, 0.1),
        ("head", Role::Head, 5e-2, 0.3),
    ];
    let parameters = groups.iter().map(|&(name, role, ..)| {
        let leaf = t[&format!("{name}.start")].copy().set_requires_grad(true);
        Parameter::of_model(name, role, leaf)
    });
    let mut arena = Arena::new(parameters.collect()).unwrap();
    let adamw = AdamW::new(AdamWConfig::default()).unwrap();
    let schedule = Schedule::linear(4, 30);
    let mut gradients = arena.buffer();
    for step in 0..30u64 {
        for (name, role, ..) in groups {
            let gradient = t[&format!("{name}.gradients")].get(step as i64);
            gradients.get(role).unwrap().shallow_clone().copy_(&gradient);
        }
        let _ = clip_global_norm(&mut gradients, Some(0.1));
        let updates = arena.groups_mut().map(|(role, group)| {
            let (.., lr, decay) = groups.into_iter().find(|(_, own, ..)| *own == role).unwrap();
            let (gradient, lr) = (gradients.get(role).unwrap(), lr * schedule.factor(step));
            GroupUpdate { group, gradient, lr, decay }
        });
        adamw.update(step + 1, updates);
        for (name, role, ..) in groups {
            let group = arena.group(role).unwrap();
            let expected = t[&format!("{name}.after")].get(step as i64);
            let error = relative(group.values(), &expected);
            assert!(error < 2e-6, "{name} after step {step}: {error:e}");
        }
    }
}

#[test]
fn every_schedule_is_the_one_of_its_name_in_transformers() {
    let cases: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(fixture("schedules.json")).unwrap()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for case in &cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let decay: LrSchedule = serde_json::from_value(case["schedule"].clone()).unwrap();
        seen.insert(decay.name());
        let schedule = Schedule {
            decay,
            warmup: number("warmup") as u64,
            total: number("total") as u64,
            power: number("power"),
            least: number("least"),
        };
        for (t, expected) in case["factors"].as_array().unwrap().iter().enumerate() {
            let (found, expected) = (schedule.factor(t as u64), expected.as_f64().unwrap());
            assert!((found - expected).abs() < 1e-14, "{case}: step {t} has {found}");
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

/// The adapter of `method` on the layer of lora_kin.safetensors, with the values of case `name`.
fn of_lora_s_kin(t: &BTreeMap<String, Tensor>, name: &str) -> Box<dyn Adapter> {
    let site = Site::new("one", 10, 14, Block::Ffn).into();
    let layer =
        Layer { site, weight: Some(t["weight"].copy().into()), bias: Some(t["bias"].copy()) };
    let init = match name {
        "dora" => Init::Standard,
        "olora" | "rsolora" => Init::Olora,
        _ => Init::Pissa,
    };
    let rslora = name.starts_with("rs");
    let config = LoraConfig { rank: 3, alpha: 6.0, rslora, init, ..Default::default() };
    let config = match name {
        "dora" => MethodConfig::Dora(DoraConfig(config)),
        _ => MethodConfig::Lora(config),
    };
    config.build().unwrap().attach(&[layer], 0, Device::Cpu).unwrap().remove(0)
}

#[test]
fn pissa_olora_and_dora_start_and_compute_as_in_peft() {
    let t = tensors("lora_kin.safetensors");
    for name in ["pissa", "rspissa", "olora", "rsolora", "dora"] {
        let adapter = of_lora_s_kin(&t, name);
        let parameters = adapter.parameters();
        let of = |p: &Parameter, what: &str| t[&format!("{name}.{what}{}", &p.name[4..])].copy();
        if name == "dora" {
            let magnitude = &parameters[2];
            assert!(relative(&magnitude.leaf, &of(magnitude, "start_")) < 1e-6);
        } else {
            // The sign of a pair of vectors is nobody's choice: the product counts.
            let [a, b] = [0, 1].map(|i| (&parameters[i].leaf, of(&parameters[i], "start_")));
            assert!(relative(&b.0.matmul(a.0), &b.1.matmul(&a.1)) < 1e-5, "{name}");
            assert!(relative(&b.0.abs(), &b.1.abs()) < 1e-5, "{name}");
        }
        for p in &parameters {
            tch::no_grad(|| p.leaf.shallow_clone().copy_(&of(p, "")));
        }
        let x = t["x"].copy().set_requires_grad(true);
        let y = adapter.forward(&x, &(&t["weight"]).into(), Some(&t["bias"]));
        assert!(relative(&y, &t[&format!("{name}.y")]) < 1e-5, "{name}");
        (y * &t["toward"]).sum(Kind::Float).backward();
        assert!(relative(&x.grad(), &t[&format!("{name}.x.gradient")]) < 1e-5, "{name}: x");
        for p in &parameters {
            let expected = &t[&format!("{name}.{}.gradient", &p.name[4..])];
            assert!(relative(&p.leaf.grad(), expected) < 1e-5, "{name}: {}", p.name);
        }
        let merged = tch::no_grad(|| adapter.merged(&t["weight"]));
        assert!(relative(&merged, &t[&format!("{name}.merged")]) < 1e-5, "{name}: merged");
    }
}

#[test]
fn rounds_of_pissa_come_near_the_exact_singular_values() {
    // Singular values that fall, as those of trained weights do.
    let falls = (Tensor::arange(40, (Kind::Float, Device::Cpu)) * -0.2).exp();
    let weight = normal(&[24, 40], 1.0, 3, "w") * falls;
    for weight in [weight.copy(), weight.tr().contiguous()] {
        let shape = weight.size();
        let start = |pissa_niter| {
            let site = Site::new("one", shape[1], shape[0], Block::Ffn).into();
            let layer = Layer { site, weight: Some(weight.copy().into()), bias: None };
            let init = Init::Pissa;
            let config = LoraConfig { rank: 4, init, pissa_niter, ..Default::default() };
            let method = Lora::new(config).unwrap();
            let adapter = method.attach(&[layer], 0, Device::Cpu).unwrap().remove(0);
            let tensors = adapter.tensors();
            tensors[1].tensor.matmul(&tensors[0].tensor)
        };
        let exact = start(None);
        let [few, many] = [0, 16].map(|niter| relative(&start(Some(niter)), &exact));
        assert!(many < 1e-3 && many < 0.1 * few, "{few}, then {many}");
    }
}

/// The adapters of combined.safetensors.
fn three() -> (BTreeMap<String, Tensor>, Vec<Part>) {
    let t = tensors("combined.safetensors");
    let parts = [(2.0, 0.7), (2.0 / 3.0, 0.4), (1.0, -0.5)].into_iter().enumerate();
    let parts = parts.map(|(i, (scale, weight))| {
        let [a, b] = ["A", "B"].map(|side| t[&format!("{i}.{side}")].copy());
        Part { a, b, scale, weight }
    });
    let parts = parts.collect();
    (t, parts)
}

fn combination(how: How, density: f64) -> Combination {
    Combination { how, density, majority: Majority::Total, rank: None, seed: 0 }
}

#[test]
fn adapters_are_combined_as_peft_combines_them() {
    let (t, parts) = three();
    for (name, how, majority) in [
        ("linear", How::Linear, Majority::Total),
        ("cat", How::Cat, Majority::Total),
        ("svd", How::Svd, Majority::Total),
        ("ties", How::Ties, Majority::Total),
        ("ties_by_frequency", How::Ties, Majority::Frequency),
        ("magnitude_prune", How::MagnitudePrune, Majority::Total),
        ("ties_svd", How::TiesSvd, Majority::Total),
        ("ties_svd_by_frequency", How::TiesSvd, Majority::Frequency),
        ("magnitude_prune_svd", How::MagnitudePruneSvd, Majority::Total),
        // What is dropped is drawn by other numbers: nothing is.
        ("dare_linear", How::DareLinear, Majority::Total),
        ("dare_ties", How::DareTies, Majority::Total),
        ("dare_linear_svd", How::DareLinearSvd, Majority::Total),
        ("dare_ties_svd", How::DareTiesSvd, Majority::Total),
    ] {
        let density = if name.starts_with("dare") { 1.0 } else { 0.6 };
        // PEFT was asked for this rank, where it can be asked for one that is not the adapters'.
        let rank = name.ends_with("_svd").then_some(5);
        let combination = Combination { majority, rank, ..combination(how, density) };
        let LowRank { down, up } = combination.of("one", &parts).unwrap();
        let [a, b] = ["A", "B"].map(|side| &t[&format!("{name}.{side}")]);
        assert!(relative(&up.matmul(&down), &b.matmul(a)) < 1e-5, "{name}");
        assert_eq!((down.size(), up.size()), (a.size(), b.size()), "{name}");
        if !how.is_of_a_rank() {
            assert!(relative(&down, a) < 1e-6 && relative(&up, b) < 1e-6, "{name}");
        }
    }
}

#[test]
fn dare_drops_its_share_scales_the_rest_and_is_right_on_average() {
    let (_, parts) = three();
    let whole = combination(How::Linear, 1.0).of("one", &parts).unwrap();
    let mean = |seeds: u64| {
        let one = |seed| Combination { seed, ..combination(How::DareLinear, 0.6) };
        let all: Vec<Tensor> =
            (0..seeds).map(|seed| one(seed).of("one", &parts).unwrap().up).collect();
        Tensor::stack(&all, 0).mean_dim(0, false, Kind::Float)
    };
    let [few, many] = [4, 1600].map(|seeds| relative(&mean(seeds), &whole.up));
    assert!(many < 0.06 && many < 0.3 * few, "{few}, then {many}");
    // Of one adapter, what is left is the adapter's, scaled by 1 / 0.6.
    let alone = &parts[..1];
    let whole = combination(How::Linear, 1.0).of("one", alone).unwrap().up;
    let added = |pair: &LowRank| pair.up.matmul(&pair.down);
    let full = added(&combination(How::Cat, 1.0).of("one", alone).unwrap());
    let dropped = Combination { rank: Some(10), ..combination(How::DareLinearSvd, 0.6) };
    let found = added(&dropped.of("one", alone).unwrap());
    let kept = found.abs().gt(1e-4).to_kind(Kind::Float);
    assert!(relative(&found, &(&full * &kept / 0.6)) < 1e-4);
    let share = kept.mean(Kind::Double).double_value(&[]);
    assert!((share - 0.6).abs() < 0.15, "{share}");
    for how in [How::DareLinear, How::DareTies] {
        let mut left = 0.0;
        for seed in 0..50 {
            let up = Combination { seed, ..combination(how, 0.6) }.of("one", alone).unwrap().up;
            let kept = up.ne(0.0);
            let expected = &whole * kept.to_kind(Kind::Float) / 0.6;
            assert!(how == How::DareTies || relative(&up, &expected) < 1e-6);
            left += kept.to_kind(Kind::Float).mean(Kind::Double).double_value(&[]) / 50.0;
        }
        // A single adapter agrees with itself, but for its zeros.
        assert!((left - 0.6).abs() < 0.03, "{how:?}: {left}");
    }
}

#[test]
fn what_cannot_be_combined_is_refused_in_words() {
    let (_, mut parts) = three();
    parts[1].a = parts[1].a.narrow(0, 0, 2);
    parts[1].b = parts[1].b.narrow(1, 0, 2);
    let refused = |how, density, parts: &[Part]| {
        combination(how, density).of("one", parts).unwrap_err().to_string()
    };
    let error = refused(How::Ties, 0.5, &parts);
    assert!(error.contains("the same of all (2 of another): `cat` and `…svd`"), "{error}");
    assert_eq!(combination(How::Cat, 1.0).of("one", &parts).unwrap().down.size(), [8, 10]);
    assert_eq!(combination(How::Svd, 1.0).of("one", &parts).unwrap().down.size(), [3, 10]);
    assert!(refused(How::Ties, 0.0, &parts).contains("`density` is 0"));
    let none = Combination { rank: Some(0), ..combination(How::Svd, 1.0) };
    assert!(none.of("one", &parts).unwrap_err().to_string().contains("`rank` is 0"));
    parts[0].weight = f64::NAN;
    assert!(refused(How::Cat, 1.0, &parts).contains("`weight` is NaN"));
    assert!(refused(How::Cat, 1.0, &[]).contains("at least one"));
    let error = "tie".parse::<How>().unwrap_err().to_string();
    assert!(error.contains("one of linear, cat, svd, ties, dare_linear, dare_ties"), "{error}");
}

#[test]
fn a_ratio_of_rates_is_peft_s_lora_plus() {
    let t = tensors("loraplus.safetensors");
    let config = LoraConfig { rank: 2, ..Default::default() };
    let method = Lora::new(config).unwrap();
    let sites = [Site::new("0", 6, 5, Block::Ffn), Site::new("1", 5, 4, Block::Ffn)];
    let layers = sites.map(Layer::shape_only);
    let adapters = method.attach(&layers, 0, Device::Cpu).unwrap();
    let parameters: Vec<Parameter> = adapters.iter().flat_map(|a| a.parameters()).collect();
    let leaves: Vec<(String, Tensor)> =
        parameters.iter().map(|p| (p.name.clone(), p.leaf.shallow_clone())).collect();
    for (name, leaf) in &leaves {
        tch::no_grad(|| leaf.shallow_clone().copy_(&t[&format!("{name}.start")]));
    }
    let config = TunerConfig {
        lr: 1e-2,
        lr_ratio: Some(16.0),
        weight_decay: 0.1,
        max_grad_norm: None,
        warmup: Span::Steps(0),
        lr_schedule: LrSchedule::Constant,
        ..Default::default()
    };
    let steps = t[&format!("{}.gradients", leaves[0].0)].size()[0];
    let mut tuner = Tuner::new(config, &method, parameters, 100, 100).unwrap();
    for step in 0..steps {
        let gradient = |name: &str| t[&format!("{name}.gradients")].get(step);
        let losses = leaves.iter().map(|(name, leaf)| (leaf * gradient(name)).sum(Kind::Float));
        let loss = Tensor::stack(&losses.collect::<Vec<_>>(), 0).sum(Kind::Float);
        tuner.step(loss).unwrap();
        for (name, leaf) in &leaves {
            let expected = t[&format!("{name}.after")].get(step);
            let error = relative(leaf, &expected);
            assert!(error < 2e-6, "{name} after step {step}: {error:e}");
        }
    }
}

/// Feeds the fixture's gradients; gives each matrix's freeze step and the tests made.
fn replay(rule: Rule, score: Score, expected: &Value) -> (Vec<Option<u64>>, Vec<Value>) {
    let t = tensors("freeze.safetensors");
    let number = |key: &str| expected[key].as_u64().unwrap();
    let total = number("total");
    let sizes: Vec<i64> = expected["shapes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s[0].as_i64().unwrap() * s[1].as_i64().unwrap())
        .collect();
    let values = t["values"].split_with_sizes(&sizes, 0);
    let parameters = values.iter().enumerate().map(|(i, value)| {
        let leaf = value.copy().set_requires_grad(true);
        Parameter::of_model(i.to_string(), Role::Projection, leaf)
    });
    let mut arena = Arena::new(parameters.collect()).unwrap();
    let config = FreezeConfig {
        rule,
        score,
        t_i: Span::Steps(number("t_i")),
        t_f: Span::Steps(number("t_f")),
        curve: Curve::EaseOut,
        ..Default::default()
    };
    let mut controller = FreezeController::new(&config, sizes.len(), 1, total).unwrap();
    let mut frozen_at = vec![None; sizes.len()];
    let mut gradients = arena.buffer();
    let mut tests = Vec::new();
    for step in 0..total {
        let group = arena.group_mut(Role::Projection).unwrap();
        if group.is_empty() {
            break;
        }
        let gradient = t["gradients"].get(step as i64).to_kind(Kind::Float);
        controller.observe(step, group, &gradient);
        let Some((check, standings)) = controller.test(step, group).unwrap() else { continue };
        for name in check.frozen() {
            assert_eq!(frozen_at[name.parse::<usize>().unwrap()].replace(step), None, "once each");
        }
        arena.settle(Role::Projection, &standings, &mut gradients);
        let means: Vec<f64> = check.matrices.iter().map(|m| m.score).collect();
        tests.push(serde_json::json!([check.step, check.ratio, check.threshold, means]));
    }
    (frozen_at, tests)
}

fn close(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b))
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 2e-5 * b.abs().max(1e-12)
        }
        (a, b) => a == b,
    }
}

#[test]
fn both_rules_freeze_what_the_reference_freezes_when_it_does() {
    let text = std::fs::read_to_string(fixture("freeze.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    for (rule_name, rule) in
        [("element_quantile", Rule::ElementQuantile), ("matrix_rank", Rule::MatrixRank)]
    {
        for (score_name, score) in [
            ("gradient", Score::Gradient),
            ("parameter_gradient", Score::ParameterGradient),
            ("relative_gradient", Score::RelativeGradient),
        ] {
            let golden = &expected["rules"][rule_name][score_name];
            let (frozen_at, tests) = replay(rule, score, &expected);
            let frozen_at = serde_json::to_value(frozen_at).unwrap();
            assert_eq!(frozen_at, golden["frozen_at"], "{rule_name} {score_name}");
            // Of a rule with a budget, those that freeze something: no other is made.
            let freezes = frozen_at.as_array().unwrap();
            let made = |test: &&Value| rule == Rule::ElementQuantile || freezes.contains(&test[0]);
            let golden = golden["tests"].as_array().unwrap().iter().filter(made);
            let golden: Vec<&Value> = golden.collect();
            assert_eq!(tests.len(), golden.len(), "{rule_name} {score_name}");
            for (found, expected) in tests.iter().zip(golden) {
                assert!(close(found, expected), "{rule_name} {score_name}: {found} {expected}");
            }
        }
    }
}

#[test]
fn the_shared_pair_of_elora_is_pefts_to_the_bit() {
    let golden = tensors("vera.safetensors");
    let config = EloraConfig { rank: 6, projection_seed: 7, ..Default::default() };
    let layer = |name, from, to| Layer::shape_only(Site::new(name, from, to, Block::Ffn));
    let layers = [layer("a", 20, 24), layer("b", 16, 8)];
    let adapters = Elora::new(config).unwrap().attach(&layers, 0, Device::Cpu).unwrap();
    for adapter in &adapters {
        for t in adapter.tensors().into_iter().filter(|t| t.spec.shared) {
            assert_eq!(t.tensor, golden[t.spec.name], "{}", t.spec.name);
        }
    }
}

#[test]
fn adalora_scores_allocates_and_updates_as_peft_does() {
    let golden = tensors("adalora.safetensors");
    let config = AdaLoraConfig {
        rank: 4,
        target_rank: 2,
        alpha: 8.0,
        dropout: 0.0,
        orthogonal: 0.3,
        t_i: Span::Steps(6),
        t_f: Span::Steps(12),
        interval: 3,
        beta1: 0.85,
        beta2: 0.9,
    };
    let method = AdaLora::new(config).unwrap();
    let layer = |name: &str| {
        let get = |what: &str| golden[&format!("{name}.{what}")].copy();
        (nn::Linear { ws: get("weight"), bs: Some(get("bias")) }, Block::Ffn)
    };
    let layers = ["one", "two"].map(|name| (name, layer(name).0, layer(name).1));
    let layers = AdaptedLinear::wrap_all(layers.into_iter().collect(), &method, 1).unwrap();
    let each = |visit: &mut dyn FnMut(String, Tensor)| {
        for layer in &layers {
            let adapter = layer.adapter();
            for t in adapter.tensors() {
                visit(format!("{}.{}", adapter.site().name, t.spec.name), t.tensor);
            }
        }
    };
    each(&mut |name, mut tensor| {
        tch::no_grad(|| tensor.copy_(&golden[&format!("step0.{name}")]));
    });
    let parameters = layers.iter().flat_map(|l| l.adapter().parameters()).collect();
    let config = TunerConfig {
        lr: 2e-2,
        weight_decay: 0.1,
        max_grad_norm: None,
        warmup: Span::Steps(0),
        ..Default::default()
    };
    let mut tuner = Tuner::new(config, &method, parameters, 10, 40).unwrap();
    let (mut compared, mut zeros) = (0, 0);
    for step in 1..=40 {
        let out = layers[1].forward(&layers[0].forward(&golden["x"]).tanh());
        tuner.step(out.mse_loss(&golden["y"], tch::Reduction::Mean)).unwrap();
        each(&mut |name, tensor| {
            let Some(expected) = golden.get(&format!("step{step}.{name}")) else { return };
            let error = relative(&tensor, expected);
            assert!(error < 1e-4, "step {step}: {name} {error:e}");
            if name.ends_with("lora_E") {
                assert_eq!(tensor.eq(0.0), expected.eq(0.0), "step {step}: {name}");
                zeros += expected.eq(0.0).sum(Kind::Int64).int64_value(&[]);
            }
            compared += 1;
        });
    }
    assert!(compared >= 60 && zeros > 10, "{compared} tensors, {zeros} zeroed values");
    assert_eq!(tuner.rank_in_use(), Some(4));
}

#[test]
fn operations_are_those_that_pytorch_counts() {
    let text = std::fs::read_to_string(fixture("flops.json")).unwrap();
    let golden: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(golden.len(), 24);
    for case in golden {
        let n = |key: &str| case[key].as_i64().unwrap();
        let flag = |key: &str| case[key].as_bool().unwrap();
        let products = flops::Products { down: flag("down"), up: flag("up") };
        let (shape, with_gradient) = ((n("in"), n("out")), flag("input_gradient"));
        let found = flops::frozen_weight(shape.0, shape.1, n("tokens"), with_gradient)
            + flops::path(shape, n("rank"), products, n("tokens"), with_gradient);
        assert_eq!((found.forward, found.backward), (n("forward"), n("backward")), "{case}");
    }
}
