//! What needs a GPU. Without one, each test says on standard error that it was skipped.

use aflora_core::adapter::{normal, Aflora, AfloraConfig, Lora, LoraConfig, PmTrainable};
use aflora_core::{kernels, AdaptedLinear, Block, Tuner, TunerConfig};
use aflora_models::generate::{ContinuousWriter, GenerationConfig, Pace, Written};
use aflora_models::{build, AdaptedModel, Backbone, Batch, Documents, Head, Inference};
use aflora_models::{Options, Pattern, Targets};
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard};
use tch::{nn, nn::Module, Device, Kind, Tensor};

/// The first GPU, for one test at a time: a capture would record, and libtorch's generator serve,
/// another's work. Must come before the process makes its first tensor.
fn gpu() -> Option<(Device, MutexGuard<'static, ()>)> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    match aflora_run::device::choose(
        aflora_run::config::DeviceChoice::Cuda(None),
        &Default::default(),
    ) {
        Ok(device) => Some((device, turn)),
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
    let Some((gpu, _turn)) = gpu() else { return };
    let ((on_gpu, froze_gpu), (on_cpu, froze_cpu)) = (train(gpu), train(Device::Cpu));
    for (step, (a, b)) in on_gpu.iter().zip(&on_cpu).enumerate() {
        assert!((a - b).abs() < 1e-3 * b.abs(), "step {step}: {a} on the GPU, {b} on the CPU");
    }
    assert_eq!(froze_gpu, froze_cpu);
    assert!(on_gpu[99] < 0.9 * on_gpu[0], "{on_gpu:?}");
}

/// The model of a configuration, two classes, with random weights, in `kind`, and adapters that do something.
fn drawn_model(gpu: Device, config: &serde_json::Value, kind: Kind) -> AdaptedModel {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let options = Options { base: kind, ..Options::new(gpu) };
    let of = config["model_type"].as_str().unwrap();
    let backbone = build(of, &file, Head::Classes(2), &options).unwrap();
    for (name, mut weight) in backbone.var_store().variables() {
        let drawn = normal(&weight.size(), 0.05, 1, &name).to_device(gpu);
        tch::no_grad(|| weight.copy_(&drawn));
    }
    let method = Lora::new(LoraConfig { rank: 4, ..Default::default() }).unwrap();
    let targets = Targets { target_modules: Pattern::Regex(".*".into()), ..Default::default() };
    let model = AdaptedModel::new(backbone, &method, &targets, &[], kind, 1).unwrap();
    for (i, parameter) in model.parameters().into_iter().enumerate() {
        let drawn = normal(&parameter.leaf.size(), 0.05, 2, &format!("leaf {i}")).to_device(gpu);
        tch::no_grad(|| parameter.leaf.shallow_clone().copy_(&drawn));
    }
    model
}

/// A BERT with random weights, without dropout.
fn small_bert(gpu: Device, kind: Kind, heads: i64) -> AdaptedModel {
    let config = serde_json::json!({
        "model_type": "bert", "hidden_size": 128, "num_attention_heads": heads, "num_hidden_layers": 2,
        "intermediate_size": 256, "vocab_size": 100, "type_vocab_size": 2, "hidden_act": "gelu",
        "max_position_embeddings": 160, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    });
    drawn_model(gpu, &config, kind)
}

/// Computes what a model gives and what its parameters learn of a padded batch: by tiles, for heads of so many numbers, and
/// without. Both ways round to bf16, so what they give differs by some hundredths of its length; and by something, or it was
/// one way.
fn learns_the_same_by_tiles(gpu: Device, model: &AdaptedModel, head: i64, what: &str) {
    let leaves: Vec<Tensor> = model.parameters().into_iter().map(|p| p.leaf).collect();
    let ids = Tensor::arange(3 * 150, (Kind::Int64, gpu)).remainder(97).view([3, 150]);
    let mask = ids.ones_like();
    let _ = mask.get(1).narrow(0, 100, 50).fill_(0);
    let _ = mask.get(2).narrow(0, 7, 143).fill_(0);
    let run = |from| {
        kernels::tile_from(from);
        let x = Tensor::zeros([1], (Kind::BFloat16, gpu));
        let tiles = kernels::tiles(&x, head, 150);
        assert_eq!(tiles, from == 0, "{what}: {:?}", aflora_cuda::ops::failure());
        let batch = Batch::new(ids.shallow_clone(), mask.shallow_clone());
        let logits = model.forward(&batch, true).unwrap().logits.to_kind(Kind::Float);
        let loss = (&logits * Tensor::from_slice(&[1f32, -1.0]).to_device(gpu)).sum(Kind::Float);
        let mut all = Tensor::run_backward(&[loss], &leaves, false, false);
        all.push(logits.detach());
        all
    };
    let (by_tiles, without) = (run(0), run(i64::MAX));
    kernels::tile_from(0);
    for (i, (found, expected)) in by_tiles.iter().zip(&without).enumerate() {
        let far = (found - expected).norm().double_value(&[]);
        let length = expected.norm().double_value(&[]);
        assert!(far < 0.05 * length + 1e-6, "{what}, tensor {i}: {far} of {length}");
    }
    assert!(by_tiles.iter().zip(&without).any(|(a, b)| a != b), "{what}: one way, not two");
}

#[test]
fn deberta_by_tiles_is_deberta_and_learns_the_same() {
    let Some((gpu, _turn)) = gpu() else { return };
    for (kinds, share) in [("c2p|p2c", true), ("c2p|p2c", false), ("p2c", true)] {
        let config = serde_json::json!({
            "model_type": "deberta-v2", "hidden_size": 128, "num_attention_heads": 2,
            "num_hidden_layers": 2, "intermediate_size": 256, "vocab_size": 100, "type_vocab_size": 0,
            "hidden_act": "gelu", "relative_attention": true, "position_buckets": 32,
            "max_position_embeddings": 64, "max_relative_positions": -1, "pos_att_type": kinds,
            "share_att_key": share, "norm_rel_ebd": "layer_norm", "position_biased_input": false,
            "layer_norm_eps": 1e-7, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        });
        let model = drawn_model(gpu, &config, Kind::BFloat16);
        learns_the_same_by_tiles(gpu, &model, 64, &format!("{kinds}, {share}"));
    }
}

#[test]
fn bert_by_tiles_is_bert_and_learns_the_same() {
    let Some((gpu, _turn)) = gpu() else { return };
    for heads in [2, 4] {
        let model = small_bert(gpu, Kind::BFloat16, heads);
        learns_the_same_by_tiles(gpu, &model, 128 / heads, &format!("{heads} heads"));
    }
}

#[test]
fn recorded_inference_gives_the_logits_of_operation_by_operation() {
    let Some((gpu, _turn)) = gpu() else { return };
    for kind in [Kind::Float, Kind::BFloat16] {
        let model = small_bert(gpu, kind, 2);
        let mut inference = Inference::new(&model, gpu, true);
        for (rows, length) in [(3, 40), (2, 40), (3, 24)] {
            for first in 0..4 {
                let count = rows * length;
                let ids = Tensor::arange_start(first, first + count, (Kind::Int64, Device::Cpu));
                let ids = ids.remainder(97).view([rows, length]);
                let mask = ids.ones_like();
                let _ = mask.get(1).narrow(0, length / 2, first).fill_(0);
                let batch = Batch::new(ids, mask);
                let found = inference.logits(&batch).unwrap().copy();
                let expected = model.forward(&batch.map(|t| t.to_device(gpu)), false).unwrap();
                assert_eq!(found, expected.logits, "{kind:?}, {rows} × {length}, from {first}");
            }
        }
        assert_eq!(inference.recordings(), 3, "{:?}", inference.remark());
        // What is learnt meanwhile is seen.
        for parameter in model.parameters() {
            let _ = tch::no_grad(|| parameter.leaf.shallow_clone().fill_(0.02));
        }
        let ids = Tensor::arange(120, (Kind::Int64, Device::Cpu)).remainder(97).view([3, 40]);
        let batch = Batch::new(ids.shallow_clone(), ids.ones_like());
        let found = inference.logits(&batch).unwrap().copy();
        let expected = model.forward(&batch.map(|t| t.to_device(gpu)), false).unwrap();
        assert_eq!(found, expected.logits);
        assert_eq!(inference.recordings(), 3);
        // Whose batch lies on the GPU already keeps it.
        let own = Tensor::arange(60, (Kind::Int64, gpu)).view([3, 20]);
        for first in 0..4 {
            let ids = if first == 1 { own.shallow_clone() } else { &own + first };
            let _ = inference.logits(&Batch::new(ids, own.ones_like())).unwrap();
        }
        assert_eq!(own, Tensor::arange(60, (Kind::Int64, gpu)).view([3, 20]));
    }
}

/// A LLaMA with random weights on `gpu`, that shares keys among heads and looks back through a window.
fn small_llama(gpu: Device, kind: Kind) -> Box<dyn Backbone> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let text = serde_json::json!({
        "model_type": "mistral", "hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 2,
        "num_hidden_layers": 3, "intermediate_size": 256, "vocab_size": 512, "hidden_act": "silu",
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
        "sliding_window": 48, "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::write(&config, text.to_string()).unwrap();
    let options = Options { base: kind, ..Options::new(gpu) };
    let backbone = build("mistral", &config, Head::Language, &options).unwrap();
    for (name, mut weight) in backbone.var_store().variables() {
        let drawn = match weight.dim() {
            1 => weight.ones_like(),
            _ => normal(&weight.size(), 0.15, 1, &name).to_device(gpu),
        };
        tch::no_grad(|| weight.copy_(&drawn));
    }
    backbone
}

#[test]
fn documents_in_one_row_have_on_a_gpu_the_logits_that_each_has_alone() {
    let Some((gpu, _turn)) = gpu() else { return };
    let _no_grad = tch::no_grad_guard();
    for (kind, allowed) in [(Kind::Float, 1e-5), (Kind::BFloat16, 3e-2)] {
        let model = small_llama(gpu, kind);
        let lengths = [70i64, 1, 57];
        let ids = (Tensor::arange(128, (Kind::Int64, gpu)) * 29).remainder(509) + 3;
        let numbers = lengths.iter().zip(0..).flat_map(|(&n, number)| vec![number; n as usize]);
        let numbers =
            Tensor::from_slice(&numbers.collect::<Vec<i64>>()).unsqueeze(0).to_device(gpu);
        let row = |ids: &Tensor| Batch::new(ids.unsqueeze(0), ids.unsqueeze(0).ones_like());
        let documents = Documents::new(numbers);
        // In bf16 the bounds alone say where documents end; positions are relative ones. A mask would let the first see
        // all others.
        let documents = match kind {
            Kind::BFloat16 => documents.map(|t| match t.kind() {
                Kind::Int64 => t.zeros_like(),
                _ => t.shallow_clone(),
            }),
            _ => documents,
        };
        let packed = Batch { documents: Some(documents), ..row(&ids) };
        let found = model.forward(&packed, true).unwrap().logits.to_kind(Kind::Double);
        let mut begin = 0;
        let alone = lengths.map(|length| {
            begin += length;
            let batch = row(&ids.narrow(0, begin - length, length));
            model.forward(&batch, true).unwrap().logits.to_kind(Kind::Double)
        });
        let expected = Tensor::cat(&alone, 1);
        let far = (found - &expected).norm() / expected.norm();
        let far = far.double_value(&[]);
        assert!(far < allowed, "{kind:?}: {far:e}");
    }
}

// What is recorded is what runs operation by operation: the same texts, token by token, whatever is read
// into a slot between two replays and however many looks the host takes.
#[test]
fn texts_that_are_written_by_recordings_are_those_written_operation_by_operation() {
    let Some((gpu, _turn)) = gpu() else { return };
    for kind in [Kind::Float, Kind::BFloat16] {
        let backbone = small_llama(gpu, kind);
        let generator = backbone.text_generator().unwrap();
        // Of 1 to 70 tokens, so that steps look at one, two and three times 64 keys.
        let prompts: Vec<Vec<i64>> = (0..23)
            .map(|n| (0..1 + n * 3).map(|i| 3 + (n * 31 + i * 17) % 500).collect())
            .collect();
        let prompts: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
        let numbers: Vec<u64> = (0..prompts.len() as u64).collect();
        let greedy = GenerationConfig { max_new_tokens: 75, ..Default::default() };
        let drawn = GenerationConfig { do_sample: true, top_p: 0.9, seed: 4, ..greedy.clone() };
        let ruled = GenerationConfig {
            repetition_penalty: 1.2,
            no_repeat_ngram_size: 3,
            min_new_tokens: 5,
            further_eos: (100..140).collect(),
            ..greedy.clone()
        };
        for config in [greedy, drawn, ruled] {
            let write = |pace: Pace| {
                let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap() as i64;
                let writer = ContinuousWriter::new(generator, &config, pace, longest).unwrap();
                let mut writer = writer.unwrap();
                let mut rounds = Vec::new();
                // In the second, slots and recordings are there already.
                for _ in 0..2 {
                    let mut texts = vec![Vec::new(); prompts.len()];
                    writer
                        .write(&prompts, &numbers, &mut |written| {
                            if let Written::Text(text, ids) = written {
                                texts[text] = ids;
                            }
                            ControlFlow::Continue(())
                        })
                        .unwrap();
                    rounds.push(texts);
                }
                if kind == Kind::Float {
                    assert_eq!(rounds[0], rounds[1], "{config:?}, {pace:?}");
                }
                (rounds.swap_remove(0), writer.recordings())
            };
            let pace = Pace::of(gpu, 6);
            assert!(pace.record && pace.stride > 1);
            let (recorded, graphs) = write(pace);
            // Texts that one token in twelve ends do not come to three times 64 keys.
            let fewest = if config.further_eos.is_empty() { 3 } else { 2 };
            assert!(graphs >= fewest, "{kind:?}, {config:?}: {graphs} recordings");
            // Rows that are read or written together are one product: of another number of them, bf16
            // rounds otherwise.
            let (plain, none) = write(Pace { record: false, ..pace });
            assert_eq!(none, 0);
            if kind == Kind::Float {
                assert_eq!(recorded, plain, "{config:?}");
            }
            let lengths = |texts: &[Vec<i64>]| texts.iter().map(Vec::len).collect::<Vec<_>>();
            assert!(lengths(&recorded).iter().all(|&length| length <= 75));
            // Looks at every token and at every thirteenth, on the same recordings.
            let (often, _) = write(Pace { stride: 1, ..pace });
            let (seldom, _) = write(Pace { stride: 13, refill_from: 3, ..pace });
            if kind == Kind::Float {
                assert_eq!((&often, &seldom), (&recorded, &recorded), "{config:?}");
            }
        }
    }
}
