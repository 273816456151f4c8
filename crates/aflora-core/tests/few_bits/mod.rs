//! Frozen weights of few bits, and in GGUF's blocks, on a GPU: restored, multiplied by, beside paths and in
//! recordings, held to those of the CPU.

use super::{assert_close, gpu, gradients, GPU};
use aflora_core::adapter::{normal, Aflora, AfloraConfig, Layer, Lora, LoraConfig, PmTrainable};
use aflora_core::weight::{BlockFormat, Coding, FrozenWeight, QuantisedWeight, WeightFormat};
use aflora_core::{Block, Method, Site};
use aflora_cuda::{ops, Graph, Pool};
use tch::{Device, Kind, Tensor};

const FORMATS: [WeightFormat; 3] = [WeightFormat::Nf4, WeightFormat::Nf4Nested, WeightFormat::Int8];

fn quantised(shape: &[i64], format: WeightFormat) -> (QuantisedWeight, QuantisedWeight) {
    let on_cpu = QuantisedWeight::quantise(&normal(shape, 0.05, 1, "w"), format).unwrap();
    let on_gpu = on_cpu.to_device(GPU);
    (on_cpu, on_gpu)
}

#[test]
fn a_quantised_weight_is_restored_to_the_bit_of_the_cpu_and_multiplied_by_exactly() {
    let Some(_turn) = gpu() else { return };
    for format in FORMATS {
        for (to, from) in [(96, 64), (264, 768), (3072, 320)] {
            let (on_cpu, on_gpu) = quantised(&[to, from], format);
            for kind in [Kind::Float, Kind::BFloat16] {
                let what = format!("{format:?} {to} × {from} {kind:?}");
                let restored = on_gpu.restore(kind);
                assert_eq!(restored.device(), GPU);
                assert!(restored.to_device(Device::Cpu).equal(&on_cpu.restore(kind)), "{what}");
                let weight = FrozenWeight::Quantised(on_gpu.shallow_clone());
                let whole = restored.to_kind(Kind::Double);
                for rows in [1, 3, 8, 9, 300] {
                    let fixed = |shape: &[i64], name: &str| {
                        normal(shape, 0.5, 2, name).to_device(GPU).to_kind(kind)
                    };
                    let bias = fixed(&[to], "bias");
                    let x = fixed(&[rows, from], "x").set_requires_grad(true);
                    let toward = fixed(&[rows, to], "toward");
                    let y = weight.linear(&x, Some(&bias));
                    let found = gradients(&y, &toward, &[&x]).remove(0);
                    let exact = x.detach().to_kind(Kind::Double).set_requires_grad(true);
                    let z = exact.linear(&whole, Some(&bias.to_kind(Kind::Double)));
                    let expected = gradients(&z, &toward.to_kind(Kind::Double), &[&exact]);
                    assert_close(&format!("{what}, {rows} rows"), &y, &z, kind);
                    assert_close(&format!("{what}, {rows} rows: x"), &found, &expected[0], kind);
                    assert_eq!(weight.linear(&x, Some(&bias)), y, "{what}: not to the bit again");
                }
            }
        }
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}

#[test]
fn products_in_fp8_are_those_of_the_cpu_from_the_same_rounded_operands() {
    let Some(_turn) = gpu() else { return };
    for (to, from) in [(96, 64), (264, 768), (3072, 320), (24, 40), (4096, 4096)] {
        let (on_cpu, on_gpu) = quantised(&[to, from], WeightFormat::Fp8);
        for kind in [Kind::Float, Kind::BFloat16] {
            let restored = on_gpu.restore(kind).to_device(Device::Cpu);
            assert!(restored.equal(&on_cpu.restore(kind)), "{to} × {from} {kind:?}");
            for rows in [1, 8, 9, 300] {
                let run = |weight: &QuantisedWeight, device: Device, kind: Kind| {
                    let fixed = |shape: &[i64], name: &str| {
                        let drawn = normal(shape, 0.5, 2, name).to_kind(Kind::BFloat16);
                        drawn.to_device(device).to_kind(kind)
                    };
                    let x = fixed(&[rows, from], "x").set_requires_grad(true);
                    let y = weight.linear(&x, Some(&fixed(&[to], "bias")));
                    let gradient = gradients(&y, &fixed(&[rows, to], "toward"), &[&x]).remove(0);
                    [y, gradient]
                };
                let found = run(&on_gpu, GPU, kind);
                let expected = run(&on_cpu, Device::Cpu, Kind::Float);
                for (found, expected) in found.iter().zip(&expected) {
                    let found = found.detach().to_device(Device::Cpu).to_kind(Kind::Double);
                    let apart = (found - expected.detach()).norm() / expected.detach().norm();
                    let apart = apart.double_value(&[]);
                    // Operands that were not rounded are 0.026 off.
                    let most = if kind == Kind::Float { 1e-5 } else { 4e-3 };
                    assert!(apart < most, "{rows} × {from} → {to}, {kind:?}: {apart:e}");
                }
                let again = run(&on_gpu, GPU, kind);
                assert!(found.iter().zip(&again).all(|(a, b)| a == b), "not to the bit again");
            }
        }
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}

#[test]
fn blocks_of_a_gguf_file_are_restored_to_the_bit_of_the_cpu_and_multiplied_by() {
    let Some(_turn) = gpu() else { return };
    let [rows, columns] = [24i64, 512];
    for format in BlockFormat::ALL {
        let bytes = rows * columns / format.numbers() as i64 * format.bytes() as i64;
        // Below 60 no scale is infinite, whatever bytes it lies in.
        let bytes = Tensor::randint(60, [bytes], (Kind::Int64, Device::Cpu)).to_kind(Kind::Uint8);
        let coding = Coding::Blocks(format);
        let on_cpu = QuantisedWeight::new(bytes, coding, [rows, columns]).unwrap();
        let on_gpu = on_cpu.to_device(GPU);
        for kind in [Kind::Float, Kind::BFloat16] {
            let restored = on_gpu.restore(kind);
            let right = on_cpu.restore(kind);
            assert!(restored.to_device(Device::Cpu).equal(&right), "{format:?} {kind:?}");
            for n in [1, 300] {
                let x = normal(&[n, columns], 0.5, 2, "x").to_device(GPU).to_kind(kind);
                let y = FrozenWeight::Quantised(on_gpu.shallow_clone()).linear(&x, None);
                let whole = restored.to_kind(Kind::Double);
                let expected = x.to_kind(Kind::Double).linear(&whole, None::<Tensor>);
                assert_close(&format!("{format:?}, {n} rows"), &y, &expected, kind);
            }
        }
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}

#[test]
fn between_the_passes_a_quantised_weight_is_held_in_codes_alone() {
    let Some(_turn) = gpu() else { return };
    let size = 4096;
    for format in [WeightFormat::Nf4Nested, WeightFormat::Fp8] {
        let (_, weight) = quantised(&[size, size], format);
        let weight = FrozenWeight::Quantised(weight);
        let options = (Kind::BFloat16, GPU);
        let x = Tensor::randn([16, size], options).set_requires_grad(true);
        let held = || aflora_cuda::memory(0).unwrap().allocated;
        drop(weight.linear(&x, None));
        let before = held();
        let y = weight.linear(&x, None);
        let kept = held() - before;
        let whole = 2 * size * size;
        assert!(kept < 4 * 16 * size as u64, "{format:?}: {kept} bytes; a weight has {whole}");
        drop(y);
    }
}

#[test]
fn paths_beside_quantised_weights_and_their_gradients() {
    let Some(_turn) = gpu() else { return };
    let config = AfloraConfig { rank: 4, pm_trainable: PmTrainable::All, ..Default::default() };
    let lora = |rank| Lora::new(LoraConfig { rank, ..Default::default() }).unwrap();
    let aflora = Aflora::new(config).unwrap();
    let methods: [(&str, &dyn Method); 3] =
        [("aflora 4", &aflora), ("lora 8", &lora(8)), ("lora 32", &lora(32))];
    for (name, method) in methods {
        for format in FORMATS.into_iter().chain([WeightFormat::Fp8]) {
            for (kind, rows, from, to) in [
                (Kind::Float, 37, 64, 96),
                (Kind::BFloat16, 5, 768, 768),
                (Kind::BFloat16, 2051, 256, 3072),
            ] {
                let what = format!("{name}, {format:?}, {kind:?} {rows} × {from} → {to}");
                let (on_cpu, on_gpu) = quantised(&[to, from], format);
                let run = |weight: FrozenWeight, device: Device, kind: Kind| {
                    let fixed = |shape: &[i64], name: &str| {
                        let drawn = normal(shape, 0.1, 1, name).to_kind(Kind::BFloat16);
                        drawn.to_device(device).to_kind(kind)
                    };
                    let site = Site::new("layer", from, to, Block::Ffn);
                    let adapters = method.attach(&[Layer::shape_only(site)], 5, device).unwrap();
                    let parameters = adapters[0].parameters();
                    for p in &parameters {
                        let values = normal(&p.leaf.size(), 0.3, 2, &p.name).to_device(device);
                        tch::no_grad(|| p.leaf.shallow_clone().copy_(&values));
                    }
                    let x = fixed(&[rows, from], "x").set_requires_grad(true);
                    let y = adapters[0].forward(&x, &weight, Some(&fixed(&[to], "bias")));
                    let mut leaves = vec![&x];
                    leaves.extend(parameters.iter().map(|p| &p.leaf));
                    let mut made = vec![y.shallow_clone()];
                    made.extend(gradients(&y, &fixed(&[rows, to], "toward"), &leaves));
                    made
                };
                let found = run(FrozenWeight::Quantised(on_gpu), GPU, kind);
                let exact = match format {
                    // On a CPU, too, what it multiplies is rounded.
                    WeightFormat::Fp8 => FrozenWeight::Quantised(on_cpu),
                    _ => FrozenWeight::Dense(on_cpu.restore(kind).to_kind(Kind::Float)),
                };
                let expected = run(exact, Device::Cpu, Kind::Float);
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let found = found.to_device(Device::Cpu);
                    assert_close(&format!("{what}: {i}"), &found, expected, kind);
                }
            }
        }
    }
    assert!(ops::failure().is_none(), "{:?}", ops::failure());
}

#[test]
fn a_recorded_product_with_a_quantised_weight_computes_with_new_inputs() {
    let Some(_turn) = gpu() else { return };
    for (rows, format) in [
        (4, WeightFormat::Nf4Nested),
        (64, WeightFormat::Nf4Nested),
        (4, WeightFormat::Fp8),
        (64, WeightFormat::Fp8),
    ] {
        let (_, weight) = quantised(&[256, 128], format);
        let weight = FrozenWeight::Quantised(weight);
        let options = (Kind::BFloat16, GPU);
        let x = Tensor::randn([rows, 128], options).set_requires_grad(true);
        let toward = Tensor::randn([rows, 256], options);
        let work = || {
            let y = weight.linear(&x, None);
            let gradient = gradients(&y, &toward, &[&x]).remove(0);
            (y, gradient)
        };
        let _ = work();
        let (graph, (y, gradient)) = Graph::capture(&Pool::new().unwrap(), work).unwrap();
        for _ in 0..2 {
            tch::no_grad(|| x.shallow_clone().copy_(&Tensor::randn([rows, 128], options)));
            graph.replay().unwrap();
            let (expected, expected_gradient) = work();
            assert_eq!(y, expected, "{rows} rows");
            assert_eq!(gradient, expected_gradient, "{rows} rows");
        }
    }
}
