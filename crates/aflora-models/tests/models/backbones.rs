//! Every backbone's logits, losses and gradients equal to those of Hugging Face transformers.

use crate::common::tiny::Tiny;
use crate::common::{cpu, fixture, loss, relative};
use aflora_core::adapter::MethodConfig;
use aflora_core::weight::{FrozenWeight, WeightFormat};
use aflora_models::{
    build, shapes_only, weights, AdaptedModel, Backbone, Batch, Head, Options, Pattern, Targets,
};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

const LIMIT: f64 = 1e-5;

/// The largest relative errors of the logits and of the gradients.
fn compare(tiny: &Tiny) -> (f64, f64) {
    let (name, io, model) = (tiny.name(), &tiny.io, tiny.load(&cpu()));
    let mut of_logits: f64 = 0.0;
    for i in 0..3 {
        let logits = model.forward(&tiny.batch(i), false).unwrap().logits;
        of_logits = of_logits.max(relative(&logits, &io[&format!("batch{i}.logits")]));
        let loss = loss(&logits, &io[&format!("batch{i}.labels")]);
        of_logits = of_logits.max(relative(&loss, &io[&format!("batch{i}.loss")]));
    }
    let variables = model.var_store().variables();
    for variable in variables.values() {
        let _ = variable.set_requires_grad(true);
    }
    let logits = model.forward(&tiny.batch(2), false).unwrap().logits;
    loss(&logits, &io["batch2.labels"]).backward();
    let golden: Vec<(&str, &Tensor)> =
        io.iter().filter_map(|(key, t)| Some((key.strip_prefix("grad.")?, t))).collect();
    assert!(golden.len() + 1 >= variables.len(), "{name}: all but the word embeddings");
    let max = |t: &Tensor| t.abs().max().double_value(&[]);
    let largest = golden.iter().map(|(_, g)| max(g)).fold(0.0, f64::max);
    let mut of_gradients: f64 = 0.0;
    for (weight, expected) in golden {
        let found = variables[weight].grad();
        // A key's bias that softmax takes away has a gradient of nothing but rounding.
        if max(expected) < 1e-6 * largest {
            assert!(max(&found) < 1e-5 * largest, "{name}: {weight} {}", max(&found));
            continue;
        }
        let error = relative(&found, expected);
        assert!(error < 10.0 * LIMIT, "{name}: gradient of {weight} {error:e}");
        of_gradients = of_gradients.max(error);
    }
    (of_logits, of_gradients)
}

/// Each is there for what it has: DeBERTa lengths whose distances share buckets, and each of its
/// switches; RoBERTa an epsilon of its own and positions from another padding id; ALBERT its shared
/// blocks, in one group and in several. Decoders answer at the last token that is no padding, BART at its last end token.
#[test]
fn every_model_that_labels_agrees_with_transformers() {
    for tiny in Tiny::classifiers() {
        let name = tiny.name();
        let (logits, gradients) = compare(&tiny);
        println!("{name}: logits {logits:.1e}, gradients {gradients:.1e}");
        assert!(logits < LIMIT, "{name}: logits {logits:e}");
        assert!(gradients < LIMIT, "{name}: gradients {gradients:e}");
    }
}

#[test]
fn a_model_beside_a_loaded_one_computes_with_its_weights_where_they_lie() {
    let tinies = Tiny::classifiers().into_iter().chain(Tiny::writers());
    for tiny in tinies {
        let (name, loaded) = (tiny.name(), tiny.load(&cpu()));
        let config = tiny.path().join("config.json");
        let beside = shapes_only(|| build(tiny.kind, &config, tiny.head, &cpu()).unwrap());
        let report = weights::load_beside(beside.as_ref(), &tiny.path(), loaded.as_ref()).unwrap();
        assert_eq!((report.loaded, report.new.len()), (0, 0), "{name}");
        let lenders = loaded.var_store().variables();
        for (weight, own) in beside.var_store().variables() {
            assert_eq!(own.data_ptr(), lenders[&weight].data_ptr(), "{name}: {weight}");
        }
        let [found, expected] =
            [&beside, &loaded].map(|model| model.forward(&tiny.batch(0), false).unwrap().logits);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_head_for_other_classes_gets_a_place_of_its_own_beside_a_loaded_model() {
    let tiny = Tiny::of("models/distilbert");
    let loaded = tiny.load(&cpu());
    let config = tiny.path().join("config.json");
    let head = Head::Classes(tiny.io["batch0.logits"].size()[1] + 3);
    let beside = shapes_only(|| build(tiny.kind, &config, head, &cpu()).unwrap());
    let report = weights::load_beside(beside.as_ref(), &tiny.path(), loaded.as_ref()).unwrap();
    assert_eq!(report.new, ["classifier.bias", "classifier.weight"]);
    weights::initialise(beside.as_ref(), &report.new, 1).unwrap();
    let logits = beside.forward(&tiny.batch(0), false).unwrap().logits;
    assert_eq!(logits.size()[1], tiny.io["batch0.logits"].size()[1] + 3);
    // What the loaded one lacks comes from the file: a head for labels has none for words.
    let tiny = Tiny::of("writers/gpt_neox");
    let config = tiny.path().join("config.json");
    let labels = build(tiny.kind, &config, Head::Classes(2), &cpu()).unwrap();
    weights::load(labels.as_ref(), &tiny.path()).unwrap();
    let writes = shapes_only(|| build(tiny.kind, &config, tiny.head, &cpu()).unwrap());
    let report = weights::load_beside(writes.as_ref(), &tiny.path(), labels.as_ref()).unwrap();
    assert_eq!(report.loaded, 1, "{report:?}");
    let [found, expected] = [&writes, &tiny.load(&cpu())]
        .map(|model| model.forward(&tiny.batch(0), false).unwrap().logits);
    assert_eq!(found, expected);
}

#[test]
fn weights_in_few_bits_are_shared_as_codes_and_never_with_whole_ones() {
    let few = Options { format: Some(WeightFormat::Nf4), ..cpu() };
    for tiny in [Tiny::of("models/distilbert"), Tiny::of("writers/gpt2")] {
        let config = tiny.path().join("config.json");
        let logits = |model: &dyn Backbone| model.forward(&tiny.batch(0), false).unwrap().logits;
        for lender in [&few, &cpu()] {
            let loaded = tiny.load(lender);
            for own in [&few, &cpu()] {
                let beside = shapes_only(|| build(tiny.kind, &config, tiny.head, own).unwrap());
                let report =
                    weights::load_beside(beside.as_ref(), &tiny.path(), loaded.as_ref()).unwrap();
                let alike = lender.format == own.format;
                let count = if alike { 0 } else { beside.linears().len() };
                assert_eq!(report.loaded, count, "{}", tiny.name());
                assert_eq!(logits(beside.as_ref()), logits(tiny.load(own).as_ref()));
                for (one, other) in beside.linears().iter().zip(loaded.linears()) {
                    let place = |linear: &aflora_core::nn::NamedLinear| match linear.layer.weight()
                    {
                        FrozenWeight::Dense(weight) => weight.data_ptr(),
                        FrozenWeight::Quantised(weight) => weight.codes().data_ptr(),
                    };
                    assert_eq!(place(one) == place(other), alike, "{}", one.site.name);
                }
            }
        }
    }
}

#[test]
fn a_text_that_is_longer_than_an_encoder_reads_is_refused() {
    for (folder, most) in [("models/bert_eps", 64), ("models/roberta_pad", 65)] {
        let model = Tiny::of(folder).load(&cpu());
        let of = |length| {
            let ids = Tensor::full([1, length], 7, (Kind::Int64, tch::Device::Cpu));
            model.forward(&Batch::new(ids.shallow_clone(), ids.ones_like()), false)
        };
        of(most).unwrap();
        let error = of(most + 1).unwrap_err().to_string();
        assert!(error.contains(&format!("{} tokens are more than the model's", most + 1)));
    }
}

#[test]
fn a_text_within_one_window_is_the_same_alone_and_in_a_batch_of_longer_ones() {
    for tiny in Tiny::classifiers().into_iter().filter(|tiny| tiny.kind == "modernbert") {
        let model = tiny.load(&cpu());
        let ids = Tensor::from_slice(&[0i64, 7, 9, 2]).unsqueeze(0);
        let logits = |ids: Tensor, mask: Tensor| {
            model.forward(&Batch::new(ids, mask), false).unwrap().logits.get(0)
        };
        let alone = logits(ids.shallow_clone(), ids.ones_like());
        let longer = Tensor::full([1, 24], 5, (Kind::Int64, tch::Device::Cpu));
        let beside = |row: &Tensor, longer: &Tensor| {
            Tensor::cat(&[&row.constant_pad_nd([0, 20]), longer], 0)
        };
        let mask = beside(&ids.ones_like(), &longer.ones_like());
        let together = logits(beside(&ids, &longer), mask);
        assert!(relative(&together, &alone) < LIMIT, "{}", tiny.name());
    }
}

#[test]
fn decoders_classify_texts_that_are_padded_on_the_left() {
    let decoders = Tiny::classifiers().into_iter().filter(|t| t.io.contains_key("left.logits"));
    for tiny in decoders {
        let (name, model) = (tiny.name(), tiny.load(&cpu()));
        let get = |key: &str| tiny.io[&format!("left.{key}")].shallow_clone();
        let batch = Batch::new(get("input_ids"), get("attention_mask"));
        let logits = model.forward(&Batch { left_padded: true, ..batch }, false).unwrap().logits;
        let error = relative(&logits, &get("logits"));
        assert!(error < LIMIT, "{name}: {error:e}");
    }
}

#[test]
fn a_text_without_an_end_token_is_classified_by_its_last_token() {
    let tiny = Tiny::of("models/bart");
    let (model, given) = (tiny.load(&cpu()), tiny.batch(1));
    let plain = Tensor::full_like(&given.input_ids, 7);
    let without = given.input_ids.where_self(&given.input_ids.ne(2), &plain);
    let logits = |ids: &Tensor, mask: &Tensor| {
        let batch = Batch::new(ids.shallow_clone(), mask.shallow_clone());
        model.forward(&batch, false).unwrap().logits
    };
    let together = logits(&without, &given.attention_mask);
    for row in 0..3 {
        let length = given.attention_mask.get(row).sum(Kind::Int64).int64_value(&[]);
        let alone = without.get(row).narrow(0, 0, length).unsqueeze(0);
        let alone = logits(&alone, &alone.ones_like());
        assert!(relative(&together.get(row), &alone.get(0)) < LIMIT, "row {row}");
    }
    assert!(relative(&together, &logits(&given.input_ids, &given.attention_mask)) > 0.01);
}

#[test]
fn a_bf16_base_is_made_in_bf16_with_its_head_in_single_precision() {
    for tiny in Tiny::classifiers() {
        let name = tiny.name();
        let options =
            Options { base: Kind::BFloat16, train_modules: vec!["no_such_module".into()], ..cpu() };
        let model = tiny.load(&options);
        let heads = model.about().head_modules;
        assert!(!heads.is_empty(), "{name}");
        // The same as what was loaded whole, and cast.
        let whole = tiny.load(&cpu());
        let whole = whole.var_store().variables();
        for (weight, found) in model.var_store().variables() {
            let head = heads.iter().any(|module| aflora_core::nn::in_module(&weight, module));
            let kind = if head { Kind::Float } else { Kind::BFloat16 };
            assert_eq!(found, whole[&weight].to_kind(kind), "{name}: {weight}");
            assert_eq!(found.kind(), kind, "{name}: {weight}");
        }
        let logits = model.forward(&tiny.batch(0), false).unwrap().logits;
        assert_eq!(logits.kind(), Kind::Float, "{name}");
        let error = relative(&logits, &tiny.io["batch0.logits"]);
        assert!(error < 0.1, "{name}: {error}");
    }
}

#[test]
fn a_module_that_trains_is_made_in_single_precision() {
    let train_modules = vec!["bert.pooler".to_string()];
    let options = Options { base: Kind::BFloat16, train_modules, ..cpu() };
    let model = Tiny::of("models/bert_eps").load(&options);
    for (weight, found) in model.var_store().variables() {
        let trains = weight.starts_with("bert.pooler.") || weight.starts_with("classifier.");
        assert_eq!(found.kind() == Kind::Float, trains, "{weight}");
    }
}

#[test]
fn a_bf16_base_stays_near_single_precision() {
    for name in ["deberta_v3", "roberta", "electra"] {
        let tiny = Tiny::of(&format!("models/{name}"));
        let model = tiny.load(&cpu());
        let exact = model.forward(&tiny.batch(0), false).unwrap().logits;
        tch::no_grad(|| {
            for variable in model.var_store().variables().into_values() {
                let mut variable = variable;
                variable.set_data(&variable.to_kind(Kind::BFloat16));
            }
        });
        let rough = model.forward(&tiny.batch(0), false).unwrap().logits;
        assert_eq!(rough.kind(), Kind::Float);
        let error = relative(&rough, &exact);
        println!("{name}: bf16 {error:.1e}");
        // 2⁻⁹ a rounding, some hundred of them one after the other.
        assert!(error > 0.0 && error < 0.08, "{name}: {error}");
    }
}

#[test]
fn a_quantised_base_is_the_model_with_the_restored_weights() {
    for tiny in Tiny::classifiers() {
        let name = tiny.name();
        use WeightFormat::{Fp8, Int8, Int8Dynamic, Nf4Nested};
        for format in [Nf4Nested, Int8, Int8Dynamic, Fp8] {
            let model = tiny.load(&Options { format: Some(format), ..cpu() });
            let quantised = model.quantised();
            assert_eq!(quantised.len(), model.linears().len(), "{name}");
            let whole = tiny.load(&cpu());
            let mut errors: f64 = 0.0;
            for (weight, mut variable) in whole.var_store().variables() {
                match quantised.get(&weight) {
                    Some(layer) => tch::no_grad(|| {
                        let stored = layer.stored();
                        errors = errors.max(relative(&stored, &variable));
                        variable.copy_(&stored);
                        let place = &model.var_store().variables()[&weight];
                        assert!(place.isnan().all().int64_value(&[]) == 1, "{name}: {weight}");
                        assert!(place.stride().iter().all(|&step| step == 0), "{name}: {weight}");
                    }),
                    None => assert_eq!(variable, model.var_store().variables()[&weight], "{name}"),
                }
            }
            let most = match format {
                Int8 | Int8Dynamic => 0.01,
                // Half of the last of three bits of fraction, of the largest number.
                Fp8 => 0.07,
                _ => 0.4,
            };
            assert!(errors > 0.0 && errors < most, "{name}: {errors}");
            let logits =
                |model: &dyn Backbone| model.forward(&tiny.batch(0), false).unwrap().logits;
            let error = relative(&logits(model.as_ref()), &logits(whole.as_ref()));
            // There what products read is rounded, too: of these few logits by random weights fp8 loses 0.01 to 0.39.
            let within = match format {
                Fp8 | Int8Dynamic => LIMIT..0.5,
                _ => 0.0..LIMIT,
            };
            assert!(within.contains(&error), "{name} {format:?}: {error:e}");
        }
    }
}

#[test]
fn a_checkpoint_in_four_bits_is_loaded_whole_or_as_it_lies() {
    let (tiny, place) = (Tiny::of("writers/llama"), tempfile::tempdir().unwrap());
    let folder = place.path();
    std::fs::copy(fixture("writers/llama/config.json"), folder.join("config.json")).unwrap();
    let file = fixture("checkpoints/bitsandbytes_llama.safetensors");
    std::fs::copy(file, folder.join("model.safetensors")).unwrap();
    let load = |format| {
        let options = Options { format, ..cpu() };
        let model = build("llama", &folder.join("config.json"), Head::Language, &options).unwrap();
        let report = weights::load(model.as_ref(), folder).unwrap();
        assert_eq!((report.new.len(), report.unused.len()), (0, 0), "{report:?}");
        assert!(report.warnings.is_empty(), "{report:?}");
        model
    };
    let (whole, original) = (load(None), tiny.load(&cpu()));
    let (whole, original) = (whole.var_store().variables(), original.var_store().variables());
    for format in [WeightFormat::Nf4, WeightFormat::Int8] {
        let model = load(Some(format));
        let mut of_file = 0;
        for (name, layer) in model.quantised() {
            let (found, lies) = (layer.stored(), name.contains(".layers.0."));
            assert_eq!(found.equal(&whole[&name]), lies, "{name}");
            let error = relative(&whole[&name], &original[&name]);
            assert_eq!(error > 0.0 && error < 0.3, lies, "{name}: {error}");
            of_file += usize::from(lies);
        }
        assert_eq!(of_file, 7);
        let batch =
            Batch::new(tiny.io["right.input_ids"].copy(), tiny.io["right.attention_mask"].copy());
        let twin = load(None);
        for (name, layer) in model.quantised() {
            let mut weight = twin.var_store().variables()[&name].shallow_clone();
            tch::no_grad(|| weight.copy_(&layer.stored()));
        }
        let logits = |model: &dyn Backbone| model.forward(&batch, false).unwrap().logits;
        let error = relative(&logits(model.as_ref()), &logits(twin.as_ref()));
        assert!(error < LIMIT, "{error:e}");
    }
}

#[test]
fn a_module_that_trains_is_not_quantised_and_what_is_cannot_train() {
    let train_modules = vec!["bert.encoder.layer.0".to_string()];
    let tiny = Tiny::of("models/bert_eps");
    let format = Some(WeightFormat::Nf4);
    let model = tiny.load(&Options { format, train_modules: train_modules.clone(), ..cpu() });
    assert!(!model.quantised().is_empty());
    assert!(!model.quantised().keys().any(|name| name.starts_with("bert.encoder.layer.0.")));

    let method = MethodConfig::defaults("lora").unwrap().build().unwrap();
    let targets = Targets { target_modules: Pattern::Regex(".*".into()), ..Default::default() };
    let adapted = |options: &Options, modules: &[String]| {
        let model = tiny.load(options);
        AdaptedModel::new(model, method.as_ref(), &targets, modules, Kind::Float, 1)
    };
    let options = Options { format, ..cpu() };
    let error = adapted(&options, &train_modules).unwrap_err().to_string();
    assert!(error.contains("`bert.encoder.layer.0.") && error.contains("in few bits"), "{error}");
    adapted(&options, &[]).unwrap();
}

#[test]
fn a_model_of_shapes_alone_is_the_model_and_its_large_weights_take_no_memory() {
    let of = |kind: &str, folder: &str| -> BTreeMap<String, Tensor> {
        let config = fixture(folder).join("config.json");
        let head = match folder.starts_with("writers") {
            true => Head::Language,
            false => Head::Classes(2),
        };
        let model = build(kind, &config, head, &cpu());
        model.unwrap().var_store().variables().into_iter().collect()
    };
    for (kind, folder) in [
        ("bert", "bert_classes"),
        ("deberta-v2", "models/deberta_v3"),
        ("llama", "writers/llama"),
        ("gpt2", "writers/gpt2"),
        ("bart", "writers/bart"),
        ("llama", "models/llama"),
    ] {
        let (whole, shapes) = (of(kind, folder), shapes_only(|| of(kind, folder)));
        let sizes = |model: &BTreeMap<String, Tensor>| -> Vec<(String, Vec<i64>)> {
            model.iter().map(|(name, t)| (name.clone(), t.size())).collect()
        };
        assert_eq!(sizes(&shapes), sizes(&whole), "{kind}");
        // One row stands for all of them.
        let large = shapes.iter().filter(|(_, t)| t.dim() == 2 && t.size()[0] > 1);
        for (name, weight) in large {
            assert_eq!(weight.stride()[0], 0, "{kind}: {name}");
        }
    }
}
