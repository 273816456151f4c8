//! Every method on every kind of backbone: what is trained is saved, opened, merged and exported,
//! and computes the same each time.

mod common;

use aflora_core::adapter::MethodConfig;
use aflora_models::adapter_folder::{self, AdapterFolder};
use aflora_models::merged::{self, OutputKind};
use aflora_models::{build, kinds, weights, Backbone, Batch, Head, Pattern};
use common::adapters::{describe, methods, trained};
use common::{cpu, fixture, head, relative, tensors, writers};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// The kinds of backbone, with a fixture for each head that they have.
const MODELS: [(&str, &str); 16] = [
    ("albert", "models/albert"),
    ("bert", "bert_classes"),
    ("deberta-v2", "models/deberta_v3"),
    ("distilbert", "models/distilbert"),
    ("electra", "models/electra"),
    ("roberta", "models/roberta"),
    ("bart", "writers/bart"),
    ("gpt2", "writers/gpt2"),
    ("gpt_neo", "writers/gpt_neo"),
    ("gptj", "writers/gptj"),
    ("llama", "writers/llama3"),
    ("bart", "models/bart"),
    ("gpt2", "models/gpt2"),
    ("gpt_neo", "models/gpt_neo"),
    ("gptj", "models/gptj"),
    ("llama", "models/llama"),
];

/// A kind of backbone with a tiny model of it.
struct Tiny {
    kind: &'static str,
    source: PathBuf,
    head: Head,
    batch: Batch,
}

impl Tiny {
    fn of((kind, folder): (&'static str, &str)) -> Self {
        let io = tensors(&format!("{folder}/io.safetensors"));
        let (head, batch) = match io.get("batch0.logits") {
            Some(logits) => (head(logits.size()[1]), common::batch(&io, 0)),
            None => (Head::Language, writers::batch(&io, "right")),
        };
        Tiny { kind, source: fixture(folder), head, batch }
    }

    /// The model with the weights in `folder`.
    fn backbone(&self, folder: &Path) -> Box<dyn Backbone> {
        let config = folder.join("config.json");
        let backbone = build(self.kind, &config, self.head, &cpu()).unwrap();
        let report = weights::load(backbone.as_ref(), folder).unwrap();
        assert_eq!((report.new.len(), report.unused.len()), (0, 0), "{}: {report:?}", self.kind);
        backbone
    }

    fn answers<'a>(&self, names: &'a [&'a str]) -> OutputKind<'a> {
        match self.head {
            Head::Scores(n) => OutputKind::Scores(n as usize),
            Head::Classes(n) => OutputKind::Classes(names[..n as usize].to_vec()),
            Head::Language => OutputKind::Text,
        }
    }

    fn goes_round(&self, method: &MethodConfig, place: &Path) {
        let what = format!("{method:?} on {}", self.kind);
        let model = trained(method, self.backbone(&self.source), Pattern::Regex(".*".into()));
        let expected = tch::no_grad(|| model.forward(&self.batch, false).unwrap().logits);
        let same = |found: Tensor, step: &str| {
            let error = relative(&found, &expected);
            assert!(error < 1e-4, "{step}: {what}: {error:e}");
        };
        let opened = |folder: &Path| {
            let adapter = AdapterFolder::open(folder).unwrap_or_else(|e| panic!("{what}: {e}"));
            let model = adapter.attach(self.backbone(&self.source), Kind::Float);
            let model = model.unwrap_or_else(|e| panic!("{what}: {e}"));
            tch::no_grad(|| model.forward(&self.batch, false).unwrap().logits)
        };
        let folder = place.join("adapter");
        adapter_folder::save(&model, &folder, &describe(method, &model)).unwrap();
        same(opened(&folder), "saved");

        let folder = place.join("merged");
        let answers = self.answers(&["a", "b", "c", "d"]);
        merged::save(&model, self.kind, &self.source, &folder, answers).unwrap();
        let plain = self.backbone(&folder);
        same(tch::no_grad(|| plain.forward(&self.batch, false).unwrap().logits), "merged");

        if method.build().unwrap().adapts() {
            let folder = place.join("exported");
            adapter_folder::export(&model, method, None, &self.source, &folder).unwrap();
            same(opened(&folder), "exported");
        }
    }
}

#[test]
fn every_method_on_every_backbone_is_opened_merged_and_exported() {
    for kind in kinds() {
        let heads = MODELS.iter().filter(|(other, _)| *other == kind).count();
        let writes = aflora_models::check_kind(kind, Head::Language).is_ok();
        assert_eq!(heads, 1 + usize::from(writes), "{kind}");
    }
    let place = tempfile::tempdir().unwrap();
    for model in MODELS {
        let tiny = Tiny::of(model);
        for method in methods() {
            tiny.goes_round(&method, place.path());
        }
    }
}
