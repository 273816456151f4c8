//! The tiny models of `fixtures/models`, which give labels, and of `fixtures/writers`, which write:
//! a folder each, found by looking. A new one is tested wherever it can be.

use super::{fixture, head, tensors, writers};
use aflora_models::{build, kind_of, weights, Backbone, Batch, Head, Options};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::Tensor;

/// A tiny model, and what transformers makes of it.
#[derive(Debug)]
pub struct Tiny {
    /// Its folder below `fixtures`.
    pub folder: String,
    /// The kind of backbone.
    pub kind: &'static str,
    pub head: Head,
    /// What transformers is given, and gives.
    pub io: BTreeMap<String, Tensor>,
}

impl Tiny {
    /// The model of a folder below `fixtures`.
    pub fn of(folder: &str) -> Tiny {
        let io = tensors(&format!("{folder}/io.safetensors"));
        let head = io.get("batch0.logits").map_or(Head::Language, |t| head(t.size()[1]));
        let kind = kind_of(&fixture(folder).join("config.json")).unwrap().kind;
        Tiny { folder: folder.into(), kind, head, io }
    }

    /// All models that give labels.
    pub fn classifiers() -> Vec<Tiny> {
        every("models")
    }

    /// All models that write.
    pub fn writers() -> Vec<Tiny> {
        every("writers")
    }

    /// Where it lies.
    pub fn path(&self) -> PathBuf {
        fixture(&self.folder)
    }

    /// The folder's own name.
    pub fn name(&self) -> &str {
        self.folder.rsplit('/').next().unwrap()
    }

    /// The model with its weights, all of which the file has.
    pub fn load(&self, options: &Options) -> Box<dyn Backbone> {
        let folder = self.path();
        let model = build(self.kind, &folder.join("config.json"), self.head, options).unwrap();
        let report = weights::load(model.as_ref(), &folder).unwrap();
        assert_eq!((report.new.len(), report.unused.len()), (0, 0), "{}: {report:?}", self.folder);
        model
    }

    /// Its config.json with every dropout off.
    pub fn without_dropout(&self) -> String {
        let text = std::fs::read(self.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        for (key, value) in config.as_object_mut().unwrap() {
            if key.contains("dropout") || key.ends_with("_pdrop") {
                *value = 0.0.into();
            }
        }
        for key in ["hidden_dropout_prob", "embd_pdrop", "attn_pdrop", "resid_pdrop"] {
            config[key] = 0.0.into();
        }
        config.to_string()
    }

    /// What it is given: of a model for labels the batch `i`.
    pub fn batch(&self, i: usize) -> Batch {
        match self.head {
            Head::Language => writers::batch(&self.io, "right"),
            _ => super::batch(&self.io, i),
        }
    }
}

fn every(below: &str) -> Vec<Tiny> {
    let folders = std::fs::read_dir(fixture(below)).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path());
    let folders = folders.filter(|folder| folder.join("io.safetensors").is_file());
    let mut names: Vec<String> =
        folders.map(|folder| folder.file_name().unwrap().to_str().unwrap().into()).collect();
    names.sort();
    assert!(!names.is_empty());
    names.iter().map(|name| Tiny::of(&format!("{below}/{name}"))).collect()
}
