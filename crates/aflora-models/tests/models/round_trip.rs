//! Every method on every kind of backbone: what is trained is saved, opened, merged and exported,
//! and computes the same each time.

use crate::common::adapters::{describe, methods, trained};
use crate::common::tiny::Tiny;
use crate::common::{cpu, relative};
use aflora_core::adapter::{Init, LoraConfig, MethodConfig};
use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::generate::GenerationSettings;
use aflora_models::merged::{self, OutputKind, StoredKind};
use aflora_models::{build, kinds, weights, Backbone, Head, Pattern};
use std::path::Path;
use tch::{Kind, Tensor};

/// The model with the weights in `folder`.
fn backbone(tiny: &Tiny, folder: &Path) -> Box<dyn Backbone> {
    let config = folder.join("config.json");
    let backbone = build(tiny.kind, &config, tiny.head, &cpu()).unwrap();
    let report = weights::load(backbone.as_ref(), folder).unwrap();
    assert_eq!((report.new.len(), report.unused.len()), (0, 0), "{}: {report:?}", tiny.folder);
    backbone
}

fn answers<'a>(head: Head, names: &'a [&'a str]) -> OutputKind<'a> {
    match head {
        Head::Scores(n) => OutputKind::Scores(names[..n as usize].to_vec()),
        Head::Classes(n) => OutputKind::Classes(names[..n as usize].to_vec()),
        Head::Tokens(n) => OutputKind::Tokens(names[..n as usize].to_vec()),
        Head::Language => OutputKind::Text(GenerationSettings::default()),
    }
}

fn goes_round(tiny: &Tiny, method: &MethodConfig, place: &Path) {
    let what = format!("{method:?} on {}", tiny.folder);
    let batch = tiny.batch(0);
    let model = trained(method, tiny.load(&cpu()), Pattern::Regex(".*".into()));
    let expected = tch::no_grad(|| model.forward(&batch, false).unwrap().logits);
    let same = |found: Tensor, step: &str| {
        let error = relative(&found, &expected);
        // Where an adapter starts as a part of the weight, its path is the difference of two
        // products as large as that, and rounding counts for more.
        let limit = match method {
            MethodConfig::Lora(LoraConfig { init: Init::Pissa | Init::Olora, .. }) => 2e-3,
            _ => 1e-4,
        };
        assert!(error < limit, "{step}: {what}: {error:e}");
    };
    let opened = |folder: &Path| {
        let adapter = AdapterFolder::open(folder).unwrap_or_else(|e| panic!("{what}: {e}"));
        let model = adapter.attach(tiny.load(&cpu()), Kind::Float);
        let model = model.unwrap_or_else(|e| panic!("{what}: {e}"));
        tch::no_grad(|| model.forward(&batch, false).unwrap().logits)
    };
    let folder = place.join("adapter");
    adapter_folder::save(&model, &folder, &describe(method, &model)).unwrap();
    same(opened(&folder), "saved");

    let folder = place.join("merged");
    let answers = answers(tiny.head, &["a", "b", "c", "d"]);
    merged::save(&model, tiny.kind, &tiny.path(), &folder, answers, StoredKind::F32).unwrap();
    let plain = backbone(tiny, &folder);
    same(tch::no_grad(|| plain.forward(&batch, false).unwrap().logits), "merged");

    if method.build().unwrap().adapts() {
        let folder = place.join("exported");
        adapter_folder::export(
            &model,
            method,
            None,
            &tiny.path(),
            &GenerationSettings::default(),
            &aflora_models::chat::ChatFormat::default(),
            &folder,
        )
        .unwrap();
        same(opened(&folder), "exported");
    }
}

fn all_go_round(models: &[Tiny]) {
    let place = tempfile::tempdir().unwrap();
    for tiny in models {
        for method in methods() {
            goes_round(tiny, &method, place.path());
        }
    }
}

#[test]
fn every_backbone_is_there() {
    let (labelling, writing) = (Tiny::classifiers(), Tiny::writers());
    for kind in kinds() {
        let is_there = |models: &[Tiny]| models.iter().any(|tiny| tiny.kind == kind);
        assert!(is_there(&labelling), "{kind}");
        let writes = aflora_models::check_kind(kind, Head::Language).is_ok();
        assert_eq!(is_there(&writing), writes, "{kind}");
    }
}

// Two tests, for two cores.

#[test]
fn every_method_on_every_backbone_that_labels_is_opened_merged_and_exported() {
    all_go_round(&Tiny::classifiers());
}

#[test]
fn every_method_on_every_backbone_that_writes_is_opened_merged_and_exported() {
    all_go_round(&Tiny::writers());
}
