//! Modules that nearly every checkpoint has: where one has not, they are new, and go with the
//! adapter.

use crate::common::adapters::{describe, trained};
use crate::common::tiny::Tiny;
use crate::common::{cpu, relative, tensors};
use aflora_core::adapter::{LoraConfig, MethodConfig};
use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::{build, weights, Backbone, Batch, Head, Pattern};
use std::path::Path;
use tch::{Kind, Tensor};

/// A model without the module, and the names of its weights.
const CASES: [(&str, &str, &[&str]); 3] = [
    ("models/bert_eps", "bert.pooler", &["bert.pooler.dense.bias", "bert.pooler.dense.weight"]),
    ("models/albert", "albert.pooler", &["albert.pooler.bias", "albert.pooler.weight"]),
    ("models/modernbert", "head", &["head.dense.weight", "head.norm.weight"]),
];

/// The model's checkpoint without what `left_out` says, in `folder`.
fn without(tiny: &Tiny, left_out: impl Fn(&str) -> bool, folder: &Path) {
    std::fs::copy(tiny.path().join("config.json"), folder.join("config.json")).unwrap();
    let all = tensors(&format!("{}/model.safetensors", tiny.folder));
    let rest: Vec<(String, Tensor)> = all.into_iter().filter(|(name, _)| !left_out(name)).collect();
    Tensor::write_safetensors(&rest, folder.join("model.safetensors")).unwrap();
}

fn bare(tiny: &Tiny, head: Head) -> Box<dyn Backbone> {
    build(tiny.kind, &tiny.path().join("config.json"), head, &cpu()).unwrap()
}

fn logits(model: &dyn Backbone, batch: &Batch) -> Tensor {
    tch::no_grad(|| model.forward(batch, false)).unwrap().logits
}

#[test]
fn a_checkpoint_without_a_pooler_opens_with_a_new_one_that_goes_with_the_adapter() {
    for (folder, module, names) in CASES {
        let (tiny, place) = (Tiny::of(folder), tempfile::tempdir().unwrap());
        without(&tiny, |name| names.contains(&name), place.path());
        let load = |seed| {
            let model = bare(&tiny, tiny.head);
            let report = weights::load(model.as_ref(), place.path()).unwrap();
            assert_eq!(report.new, names, "{folder}");
            weights::initialise(model.as_ref(), &report.new, seed).unwrap();
            model
        };
        let batch = tiny.batch(0);
        // Another seed is another pooler, as long as no adapter brings its own.
        assert!(
            relative(&logits(load(1).as_ref(), &batch), &logits(load(2).as_ref(), &batch)) > 1e-3
        );
        let method = MethodConfig::Lora(LoraConfig::default());
        let model = trained(&method, load(1), Pattern::Regex(".*".into()));
        assert!(model.saved_modules().iter().any(|saved| saved == module), "{folder}");
        let expected = tch::no_grad(|| model.forward(&batch, false)).unwrap().logits;
        let saved = place.path().join("adapter");
        adapter_folder::save(&model, &saved, &describe(&method, &model)).unwrap();
        let opened = AdapterFolder::open(&saved).unwrap().attach(load(2), Kind::Float).unwrap();
        let found = tch::no_grad(|| opened.forward(&batch, false)).unwrap().logits;
        assert_eq!(found, expected, "{folder}");
    }
}

#[test]
fn a_pooler_that_the_checkpoint_has_stays_with_it() {
    for (folder, module, _) in CASES {
        let tiny = Tiny::of(folder);
        let method = MethodConfig::Lora(LoraConfig::default());
        let model = trained(&method, tiny.load(&cpu()), Pattern::Regex(".*".into()));
        assert!(!model.saved_modules().iter().any(|saved| saved == module), "{folder}");
    }
}

#[test]
fn half_a_pooler_is_refused() {
    for (folder, _, names) in CASES {
        let (tiny, place) = (Tiny::of(folder), tempfile::tempdir().unwrap());
        without(&tiny, |name| name == names[0], place.path());
        let error = weights::load(bare(&tiny, tiny.head).as_ref(), place.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("`{}` is missing", names[0])), "{error}");
    }
}

#[test]
fn classes_of_tokens_want_no_pooler_of_bert_and_the_head_of_modernbert() {
    for (folder, module, _) in CASES {
        let model = bare(&Tiny::of(folder), Head::Tokens(4));
        let variables = model.var_store().variables();
        let has = variables.keys().any(|name| name.starts_with(&format!("{module}.")));
        assert_eq!(has, module == "head", "{folder}");
        assert_eq!(model.about().may_lack.contains(&module), has, "{folder}");
    }
}
