//! Layers of a model that read one input: which of them are computed together, and what they give then.

use super::{assert_close, gpu, GPU};
use aflora_core::adapter::{
    normal, Aflora, AfloraConfig, AfloraRank, AfloraRankConfig, DoraConfig, Lora, LoraConfig,
    MethodSettings, PmTrainable,
};
use aflora_core::kernels::GateActivation;
use aflora_core::nn::{self, Module, NamedLinear};
use aflora_core::weight::WeightFormat;
use aflora_core::{Block, Injection, Method};
use aflora_cuda::ops;
use tch::{Kind, Tensor};

const NAMES: [&str; 3] = ["query", "key", "value"];

/// Layers with adapters, of these numbers of features, their frozen weights in `format`.
fn adapted<const N: usize>(
    method: &dyn Method,
    format: Option<WeightFormat>,
    features: [(i64, i64); N],
) -> ([nn::Linear; N], Injection) {
    let vs = nn::VarStore::new(GPU);
    let (layers, handles) = nn::capture(|| {
        std::array::from_fn(|i| {
            let (path, (from, to)) = (vs.root() / NAMES[i], features[i]);
            match format {
                None => nn::linear(path, from, to, Default::default()),
                Some(format) => nn::quantised_linear(&path, (from, to), true, false, format),
            }
        })
    });
    for (handle, name) in handles.iter().zip(NAMES) {
        let weight = normal(&handle.ws.size(), 0.05, 1, name).to_device(GPU);
        match format {
            None => tch::no_grad(|| handle.ws.shallow_clone().copy_(&weight)),
            Some(_) => handle.put(&weight).unwrap(),
        }
    }
    let named = handles.into_iter().zip(NAMES);
    let named = named.map(|(handle, name)| NamedLinear::new(name, Block::Attention, handle));
    let none: [&str; 0] = [];
    let injection = Injection::new(&vs, named.collect(), method, &none, 5).unwrap();
    injection.cast_frozen(Kind::BFloat16).unwrap();
    for p in injection.parameters() {
        let values = normal(&p.leaf.size(), 0.3, 2, &p.name).to_device(GPU);
        tch::no_grad(|| p.leaf.shallow_clone().copy_(&values));
    }
    (layers, injection)
}

/// What is computed of `x`, and the gradients of `x` and of all that trains.
fn outputs_and_gradients<const N: usize>(
    injection: &Injection,
    x: &Tensor,
    toward: &[Tensor; N],
    compute: impl Fn(&Tensor) -> [Tensor; N],
) -> Vec<Tensor> {
    let x = x.copy().set_requires_grad(true);
    let made = compute(&x);
    let losses = made.iter().zip(toward).map(|(y, toward)| (y * toward).sum(Kind::Float));
    let total = losses.reduce(|sum, loss| sum + loss).unwrap();
    let parameters = injection.parameters();
    let leaves: Vec<&Tensor> =
        std::iter::once(&x).chain(parameters.iter().map(|p| &p.leaf)).collect();
    let found = Tensor::run_backward(&[total], &leaves, false, false);
    made.into_iter().chain(found).collect()
}

#[test]
fn adapted_layers_that_read_one_input_are_computed_together_where_that_is_built() {
    let Some(_turn) = gpu() else { return };
    let aflora = |rank, pm_trainable, dropout| {
        let config = AfloraConfig { rank, pm_trainable, dropout, ..Default::default() };
        Box::new(Aflora::new(config).unwrap()) as Box<dyn Method>
    };
    let lora =
        |rank| Box::new(Lora::new(LoraConfig { rank, ..Default::default() }).unwrap()) as Box<_>;
    let shrinking = AfloraRankConfig {
        rank: 4,
        target_rank: 2,
        pm_trainable: PmTrainable::All,
        ..Default::default()
    };
    let shrinking = Box::new(AfloraRank::new(shrinking).unwrap()) as Box<dyn Method>;
    let dora = DoraConfig(LoraConfig { rank: 4, ..Default::default() }).build().unwrap();
    let all = PmTrainable::All;
    for (what, method, format, joins) in [
        ("aflora", aflora(4, all, 0.0), None, true),
        ("aflora, frozen", aflora(4, PmTrainable::Ffn, 0.0), None, true),
        ("aflora, int8", aflora(4, all, 0.0), Some(WeightFormat::Int8), true),
        ("aflora, nf4", aflora(4, all, 0.0), Some(WeightFormat::Nf4Nested), true),
        ("aflora, fp8", aflora(4, all, 0.0), Some(WeightFormat::Fp8), true),
        ("aflora that drops", aflora(4, all, 0.1), None, false),
        ("aflora of eight ranks", aflora(8, all, 0.0), None, true),
        ("aflora of many ranks", aflora(9, all, 0.0), None, true),
        ("aflora whose ranks shrink", shrinking, None, true),
        ("lora", lora(4), None, true),
        ("lora of eight ranks", lora(8), None, true),
        ("lora of many ranks", lora(16), None, true),
        ("lora of many ranks, nf4", lora(16), Some(WeightFormat::Nf4Nested), true),
        ("dora", dora, None, false),
    ] {
        let (layers, injection) = adapted(method.as_ref(), format, [(64, 96); 3]);
        let x = normal(&[48, 64], 1.0, 3, "x").to_device(GPU).to_kind(Kind::BFloat16);
        let toward =
            NAMES.map(|n| normal(&[48, 96], 1.0, 4, n).to_device(GPU).to_kind(Kind::BFloat16));
        let of = layers.each_ref().map(|layer| (layer, None));
        injection.set_training(true);
        assert_eq!(nn::joined(of, &x).is_some(), joins, "{what}");
        injection.set_training(what == "aflora");
        let run = |compute: &dyn Fn(&Tensor) -> [Tensor; 3]| {
            outputs_and_gradients(&injection, &x, &toward, compute)
        };
        let found = run(&|x| nn::together(layers.each_ref(), x));
        let expected = run(&|x| layers.each_ref().map(|layer| layer.forward(x)));
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{what}: {i}"), found, expected, Kind::BFloat16);
        }
        assert!(ops::failure().is_none(), "{what}: {:?}", ops::failure());
        injection.remove();
        assert!(nn::joined(of, &x).is_none(), "{what}: bare layers");
    }
}

#[test]
fn adapted_layers_around_an_activation_are_computed_together_where_that_is_built() {
    let Some(_turn) = gpu() else { return };
    let lora =
        |rank, dropout| Lora::new(LoraConfig { rank, dropout, ..Default::default() }).unwrap();
    for (what, method, format, joins) in [
        ("lora", lora(8, 0.0), None, true),
        ("lora, int8", lora(4, 0.0), Some(WeightFormat::Int8), true),
        ("lora, fp8", lora(4, 0.0), Some(WeightFormat::Fp8), true),
        ("lora that drops", lora(8, 0.1), None, false),
        ("lora of many ranks", lora(16, 0.0), None, false),
    ] {
        let ([up, down], injection) = adapted(&method, format, [(64, 256), (256, 64)]);
        injection.set_training(true);
        let of =
            |seed, name| normal(&[48, 64], 1.0, seed, name).to_device(GPU).to_kind(Kind::BFloat16);
        let (x, toward) = (of(3, "x"), [of(4, "toward")]);
        let fed = |x: &Tensor| nn::feed_forward(&up, GateActivation::Gelu, &down, x);
        assert_eq!(fed(&x).is_some(), joins, "{what}");
        assert!(ops::failure().is_none(), "{what}: {:?}", ops::failure());
        if joins {
            let found = outputs_and_gradients(&injection, &x, &toward, |x| [fed(x).unwrap()]);
            let apart = |x: &Tensor| [down.forward(&up.forward(x).gelu("none"))];
            let expected = outputs_and_gradients(&injection, &x, &toward, apart);
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_close(&format!("{what}: {i}"), found, expected, Kind::BFloat16);
            }
        }
        injection.remove();
        assert!(fed(&x).is_none(), "{what}: bare layers");
    }
}
