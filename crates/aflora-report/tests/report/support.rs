//! Results with known numbers, and questions to reports on them.

use aflora_record::freezes::Matrix;
use aflora_record::history::{FreezePoint, StepPoint};
use aflora_record::provenance::{Environment, Provenance};
use aflora_record::results::{
    Cell, Claim, Finding, Layout, MethodRow, Outcome, Results, TaskColumn, View,
};
use aflora_record::summary::{FlopsPerToken, Operations, Parameters, Times};
use aflora_record::{Evaluation, Selection};
use aflora_report::report::files::Written;
use aflora_report::report::{markdown, report, NamedResults, Report};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub const METRIC: &str = "accuracy";

pub const ALL: [View; 9] = [
    View::Table,
    View::Differences,
    View::Classes,
    View::Curves,
    View::Trainable,
    View::Heatmap,
    View::Threshold,
    View::Bars,
    View::Best,
];

/// Of a program built from `commit`, on the last of February 2000.
pub fn provenance(commit: &str) -> Provenance {
    let (commit, started_unix) = (Some(commit.into()), 951_782_400);
    let environment = Environment { commit, started_unix, ..Environment::default() };
    Provenance { environment, ..Provenance::default() }
}

/// A finished run that scored `value` (a fraction), with matrices in two layers that freeze at
/// steps 10, 20, 30, … or never.
pub fn finding(value: Option<f64>) -> Finding {
    let evaluation = |epoch: u64, value: Option<f64>| Evaluation {
        step: 40 * epoch,
        epoch: epoch as f64,
        metrics: [(METRIC.to_string(), value)].into(),
        loss: 0.5,
        seconds: 1.0,
    };
    let flops = |n| Operations { forward: n, backward: n };
    let names = ["intermediate.dense.lora_A", "output.dense.lora_B"];
    let places = (0..2).flat_map(|layer| names.map(|name| (layer, name)));
    let matrices = places.enumerate().map(|(i, (layer, name))| Matrix {
        name: format!("bert.encoder.layer.{layer}.{name}"),
        block: "ffn".into(),
        elements: 100,
        frozen_at: (i < 3).then_some(10 * (i as u64 + 1)),
    });
    Finding {
        selection: Selection::highest(METRIC),
        by_class: Vec::new(),
        best: evaluation(2, value),
        evaluations: vec![evaluation(1, value.map(|v| v - 0.1)), evaluation(2, value)],
        parameters: Parameters { at_start: 400, at_end: 100, time_average: 250.0, head: 12 },
        steps: 80,
        test: None,
        early_stop: None,
        flops_per_token: FlopsPerToken {
            frozen_weights: flops(1_000_000),
            paths_at_start: flops(500_000),
            paths_at_end: flops(100_000),
        },
        seconds: Times { training: 8.5, evaluation: 2.0, median_step: 0.1 },
        tokens_per_second: 1000.0,
        peak_memory: Some(2_000_000_000),
        device: "cpu (2 threads)".into(),
        curve: (1..=8)
            .map(|i| StepPoint {
                step: 10 * i,
                loss: 1.0 / i as f64,
                trainable: 400 - 30 * i as i64,
            })
            .collect(),
        checks: (1..=3)
            .map(|i| FreezePoint {
                step: 10 * i,
                ratio: 0.3 * i as f64,
                threshold: Some(1e-6 * i as f64),
                trained: 5 - i as usize,
                frozen: 1,
                scores: [1e-8, 1.5e-6, 1e-4],
            })
            .collect(),
        matrices: matrices.collect(),
        settings: json!({ "lr": 0.01, "method": { "name": "m", "rank": 4 } }),
        provenance: provenance("0123abc"),
    }
}

pub fn report_on(source: &Path, out: Option<&Path>) -> aflora_report::Result<Written> {
    report(&[source.to_path_buf()], out)
}

pub fn cell(model: &str, task: &str, method: &str, seed: u64, outcome: Outcome) -> Cell {
    let (model, task, method) = (model.into(), task.into(), method.into());
    Cell { model, task, method, seed, digest: "d1".into(), outcome }
}

pub fn done(value: f64) -> Outcome {
    Outcome::Done(Box::new(finding(Some(value))))
}

pub fn row(name: &str, label: &str) -> MethodRow {
    MethodRow { name: name.into(), label: label.into(), paper: BTreeMap::new() }
}

pub fn task(name: &str) -> TaskColumn {
    TaskColumn { name: name.into(), label: name.to_uppercase(), metric: None }
}

/// Two methods on two tasks with five seeds: `a` and `b` of the statistics' own golden values.
pub fn results() -> Results {
    let scores = |method: &str, task: &str| -> [f64; 5] {
        match (method, task) {
            ("ours", "mrpc") => [0.9191, 0.9142, 0.9240, 0.9093, 0.9167],
            ("lora", "mrpc") => [0.9020, 0.9118, 0.9069, 0.9167, 0.8995],
            ("ours", _) => [0.70, 0.71, 0.72, 0.73, 0.74],
            _ => [0.60, 0.62, 0.61, 0.63, 0.64],
        }
    };
    let mut cells = Vec::new();
    for name in ["mrpc", "rte"] {
        for method in ["ours", "lora"] {
            let values = scores(method, name).into_iter();
            cells.extend((1..).zip(values).map(|(s, v)| cell("tiny", name, method, s, done(v))));
        }
    }
    let mut methods = vec![row("ours", "Ours"), row("lora", "LoRA")];
    methods[0].paper =
        [("mrpc", 91.91), ("parameters", 0.14)].map(|(key, value)| (key.to_string(), value)).into();
    Results {
        experiment: "table4".into(),
        profile: "small".into(),
        layout: Layout {
            title: "Does freezing pay?".into(),
            about: String::new(),
            show: ALL.to_vec(),
            methods,
            tasks: vec![task("mrpc"), task("rte")],
            reference: Some("lora".into()),
            claims: vec![Claim {
                says: "Ours is above LoRA.".into(),
                order: vec!["lora".into(), "ours".into()],
            }],
            paper_models: Some(vec!["tiny".into()]),
        },
        cells,
    }
}

pub fn of(results: &Results) -> Report {
    Report::of(&NamedResults { name: "table4-small".into(), results: results.clone() })
}

pub fn md(results: &Results) -> String {
    markdown::render(&of(results))
}

/// The first Markdown row that begins with `label`, as its entries.
pub fn entries(markdown: &str, label: &str) -> Vec<String> {
    let start = format!("| {label} |");
    let line = markdown.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("no row {label}: {markdown}"));
    line.trim_matches('|').split(" | ").map(|entry| entry.trim().to_string()).collect()
}

pub fn outcome<'a>(
    results: &'a mut Results,
    task: &str,
    method: &str,
    seed: u64,
) -> &'a mut Outcome {
    let of = |c: &&mut Cell| c.task == task && c.method == method && c.seed == seed;
    &mut results.cells.iter_mut().find(of).unwrap().outcome
}

/// Every element that is opened is closed, in order, and attributes are quoted.
pub fn well_formed(page: &str) {
    let void = ["meta", "!doctype", "br", "img"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("an element without an end");
        let tag = &rest[..end];
        assert!(tag.matches('"').count().is_multiple_of(2), "<{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') || void.contains(&name) => {}
            None => open.push(name),
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

pub fn write(folder: &Path, name: &str, results: &Results) {
    fs::write(folder.join(name), serde_json::to_vec(results).unwrap()).unwrap();
}
