//! Settings and layers that a method does not take, and what it says then.

use super::{configs, fixed, layers, linear, methods, parameters, starts_within, SHAPES};
use aflora_core::adapter::{Layer, LoraConfig, MethodConfig};
use aflora_core::freeze::{FreezeConfig, FreezeMode};
use aflora_core::{AdaptedLinear, Block, Site, Tuner, TunerConfig};
use tch::{nn::Module, Device, Kind};

#[test]
fn settings_of_freezing_that_nothing_reads_are_refused() {
    for (freeze, expected) in [
        (FreezeConfig { mode: FreezeMode::Start, ..Default::default() }, "adaptive or never: B"),
        (FreezeConfig { interval: 3, ..FreezeConfig::never() }, "adaptive, for its other settings"),
    ] {
        let config = MethodConfig::Lora(LoraConfig { freeze, ..Default::default() });
        let error = config.build().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_adapter_that_the_model_goes_around_is_named() {
    for (name, method) in methods() {
        let layers = layers(method.as_ref());
        let config = TunerConfig { max_grad_norm: None, ..Default::default() };
        let mut tuner = Tuner::new(config, method.as_ref(), parameters(&layers), 10, 60).unwrap();
        for _ in 0..10 {
            // The last layer takes no part.
            let mut x = fixed(&[8, 12], "x");
            for layer in &layers[..3] {
                x = layer.forward(&x).tanh();
            }
            tuner.step(x.square().mean(Kind::Float)).unwrap();
        }
        let unmoved = tuner.unmoved().unwrap();
        let penalised = ["adalora", "sora"].contains(&name);
        // Their penalties move A, B or the gate even there; the rest stands still.
        assert!(!unmoved.is_empty() || penalised, "{name}");
        assert!(unmoved.iter().all(|n| n.starts_with("layer3.")), "{name}: {unmoved:?}");
    }
}

/// `rank=100000` took 23 GB, and then the process was killed.
#[test]
fn a_rank_beyond_what_the_layers_have_is_refused_before_anything_is_drawn() {
    let layers = [(12, 20), (20, 12)].map(|(from, to)| {
        Layer::shape_only(Site::new(format!("layer{from}"), from, to, Block::Ffn))
    });
    for (name, config) in configs() {
        let with = |rank: i64| {
            let mut settings = serde_json::to_value(&config).unwrap();
            settings["rank"] = rank.into();
            let method = serde_json::from_value::<MethodConfig>(settings).unwrap().build().unwrap();
            method.attach(&layers, 0, Device::Cpu).map(|_| ())
        };
        let most = match name {
            "elora" | "elora, own pairs" => 16 * 20,
            // Of the narrower side.
            name if starts_within(name) => 12,
            _ => 20,
        };
        with(most).unwrap();
        for rank in [most + 1, 100_000, i64::MAX] {
            let error = with(rank).unwrap_err().to_string();
            // Where both bounds are crossed, that of all methods is told.
            let expected = match starts_within(name) && rank <= 20 {
                true => format!("`rank` is {rank}, but must be at most {most} with `init: "),
                false => format!(
                    "`rank` is {rank}, but must be at most {}: its layers have",
                    most.max(20)
                ),
            };
            assert!(error.starts_with(&expected), "{name}: {error}");
        }
    }
}

#[test]
fn methods_without_adapters_say_so() {
    for (name, weight, bias) in
        [("full", true, true), ("bitfit", false, true), ("head", false, false)]
    {
        let method = MethodConfig::defaults(name).unwrap().build().unwrap();
        assert_eq!((method.trains("a.weight"), method.trains("a.bias")), (weight, bias));
        let error = AdaptedLinear::wrap("l", linear(SHAPES[0]), Block::Ffn, method.as_ref(), 1);
        assert!(error.unwrap_err().to_string().contains("puts no adapters on layers"));
    }
}
