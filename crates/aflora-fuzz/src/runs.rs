//! What a run leaves, and what experiments make of it: folders that people pass on.

use crate::files;
use aflora_core::accounting::Accounting;
use aflora_core::state::Position;
use aflora_record::gradients::GradientReader;
use aflora_record::recorder::Lengths;
use aflora_record::results::Finding;
use aflora_record::{freezes, names, Evaluation, History, Results};
use aflora_report::list::list;
use aflora_report::report::{csv, html, markdown, NamedResults, Report};
use aflora_report::watch::snapshot::{Phase, Snapshot, Watched};
use aflora_report::watch::text::summary;
use aflora_run::config::Every;
use aflora_run::run::checkpoint::{Id, ResumePoint};
use aflora_run::run::eval_points::EvalPoints;
use aflora_run::run::loop_state::LoopState;
use serde_json::Value;
use std::fs;

/// A run's `events.jsonl`, and what `watch` says of it.
pub fn events(bytes: &[u8]) {
    let mut history = History::default();
    String::from_utf8_lossy(bytes).lines().for_each(|line| history.read_line(line));
    let steps = history.points.iter().map(|point| point.step);
    assert!(steps.clone().zip(steps.skip(1)).all(|(a, b)| a < b));
    let phase = history.failed.clone().map_or(Phase::Running, Phase::Failed);
    let (name, pace, silence) = ("run".into(), Some(4.0), None);
    harmless(&summary(&Snapshot { name, phase, history, pace, silence, seconds: None }));
}

fn harmless(words: &str) {
    assert!(!words.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')), "{words:?}");
}

pub fn events_seeds() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"event":"begin","total_steps":80,"steps_per_epoch":40,"selection":"f1"}"#,
        r#"{"event":"step","step":10,"loss":0.5,"lr":0.01,"grad_norm":1.5,"trainable":1234}"#,
        r#"{"event":"freeze","step":39,"ratio":0.3,"threshold":1e-6,"matrices":[{"frozen":true}]}"#,
        r#"{"event":"evaluation","step":40,"epoch":1.0,"metrics":{"f1":0.75},"loss":0.4,"seconds":1.0}"#,
        r#"{"event":"step","step":20,"loss":null,"lr":0.01,"grad_norm":null,"trainable":12}"#,
        r#"{"event":"failed","error":"no\u001b[2J"}"#,
    ];
    vec![lines.join("\n").into_bytes()]
}

/// The `state.json` of a checkpoint: what passes its checks is gone on from.
pub fn state(bytes: &[u8]) {
    let Ok(ResumePoint { position, mut loop_state, .. }) = serde_json::from_slice(bytes) else {
        return;
    };
    let points = EvalPoints::new(Every::Epochs(1), 6, 96);
    if position.check(96).is_err() || loop_state.check(&position, points).is_err() {
        return;
    }
    let mut accounting = position.accounting.clone();
    accounting.step(5);
    loop_state.clock.add(0.1);
    loop_state.curve.stands_still(0.5, 50);
    let _ =
        (accounting.time_average(), loop_state.clock.median(), Id::of(&loop_state, position.step));
}

/// Behind the seventh step, where an epoch has six.
pub fn state_seeds() -> Vec<Vec<u8>> {
    let mut accounting = Accounting::new(5);
    let evaluation = Evaluation {
        step: 6,
        epoch: 1.0,
        metrics: [("f1".to_string(), Some(0.5))].into(),
        loss: 0.5,
        seconds: 1.0,
    };
    let mut loop_state = LoopState {
        evaluations: vec![evaluation],
        best: Some(0),
        loss_sum: 0.5,
        steps_in_sum: 1,
        start: Some(0.7),
        ..LoopState::default()
    };
    for _ in 0..7 {
        accounting.step(5);
        loop_state.clock.add(0.1);
        loop_state.curve.stands_still(0.5, 50);
    }
    let counts = [("in_use".to_string(), 3)].into();
    let position = Position {
        step: 7,
        skipped: 1,
        skipped_in_a_row: 0,
        accounting,
        groups: Vec::new(),
        counts,
    };
    let scalars_file = "events.out.tfevents.1.aflora".into();
    let lengths = Lengths { events: 1, scalars_file, scalars: 1 };
    let resume_point = ResumePoint { position, loop_state, lengths, inputs: [].into() };
    vec![serde_json::to_vec(&resume_point).unwrap_or_default()]
}

/// A run's `gradients.bin`.
pub fn gradients(bytes: &[u8]) {
    let folder = files::folder("gradients", &[(names::GRADIENTS, bytes)]);
    let Ok(mut log) = GradientReader::open(&folder) else { return };
    assert!(log.header().step_bytes() <= bytes.len() as u64);
    while let Ok(Some(_)) = log.step() {}
}

pub fn gradients_seeds() -> Vec<Vec<u8>> {
    let header = br#"{"matrices":[["a",[2,3]],["b",[3,1]]],"steps_per_epoch":1,"total_steps":2}"#;
    vec![[&header[..], b"\n", &[0x3f; 144]].concat()]
}

/// A finished run's other files: its metrics, table of freezes, provenance and configuration, as
/// `ls`, `watch` and results read them.
pub fn run_folder(bytes: &[u8]) {
    let parts: [&[u8]; 4] = files::split(bytes);
    let others = [(names::EVENTS, &b""[..])];
    let all: Vec<(&str, &[u8])> = FILES.into_iter().zip(parts).chain(others).collect();
    let folder = files::folder("runs/run", &all);
    let _ = (freezes::read(&folder), Finding::read(&folder));
    harmless(&list(&files::scratch().join("runs")).unwrap_or_default());
    if let Ok(mut watched) = Watched::open(&folder) {
        let _ = watched.look();
        harmless(&summary(&watched.snapshot()));
    }
}

/// The files of a run, in the order of an input's parts.
const FILES: [&str; 4] = [names::METRICS, names::FREEZES, names::PROVENANCE, names::CONFIG];

/// Answers class by class.
const CLASSES: &str = r#"{"split":"dev","classes":[{"label":"a","right":2,"answered":1,"hits":1},
    {"label":"b","right":1,"answered":2,"hits":1}],"confusion":[[0,0,1],[0,1,1],[1,1,1]]}"#;

pub fn run_folder_seeds() -> Vec<Vec<u8>> {
    let evaluation = r#"{"step":6,"epoch":1.0,"metrics":{"f1":0.5},"loss":0.5,"seconds":1.0}"#;
    let flops = r#"{"forward":6,"backward":12}"#;
    let classes = CLASSES;
    let metrics = format!(
        r#"{{"task":"mrpc","model":"tiny","method":"lora","seed":1,"selection":"f1",
        "lower_is_better":["mae"],"by_class":[{classes}],"best":{evaluation},"last":{evaluation},"evaluations":[{evaluation}],
        "parameters":{{"at_start":9,"at_end":9,"time_average":9.0,"head":2}},"steps":6,
        "flops_per_token":{{"frozen_weights":{flops},"paths_at_start":{flops},
        "paths_at_end":{flops}}},"device":"cpu","seconds":{{"training":1.0,"evaluation":1.0,
        "median_step":0.1}},"tokens_per_second":100.0,"peak_memory":null}}"#
    );
    let table = "matrix,block,elements,frozen_at_step\nh.0.mlp.lora_A,ffn,6,3\n";
    let provenance = r#"{"environment":{"aflora":"0.1.0","command":["aflora"],"started_unix":1},
        "data":[{"split":"train","path":"/a/train.tsv","sha256":"00","rows":6,"skipped":0}],
        "weights":[{"path":"/a/model.safetensors","sha256":"00"}],"resumed":[]}"#;
    let config = "task: {task: mrpc}\nmodel: {model: tiny}\nmethod: {name: lora}\nseed: 1\n";
    vec![files::join(
        &[metrics, table.into(), provenance.into(), config.into()].map(String::into_bytes),
    )]
}

/// A file of results, in all forms of its report.
pub fn results(bytes: &[u8]) {
    let Ok(results) = serde_json::from_slice::<Results>(bytes) else { return };
    let named = NamedResults { name: "results".into(), results };
    let report = Report::of(&named);
    let _ = (markdown::render(&report), csv::render(&named.results), html::render(&[report]));
}

/// One cell of results that there are, with little in each list.
pub fn results_seeds() -> Vec<Vec<u8>> {
    let folder = files::project().join("experiments/results");
    let seed = |name: &str| {
        let text = fs::read(folder.join(name)).unwrap_or_default();
        let mut value: Value = serde_json::from_slice(&text).unwrap_or_default();
        shorten(&mut value["cells"]);
        value["layout"]["show"][0] = "classes".into();
        let classes = serde_json::from_str(CLASSES).unwrap_or_default();
        value["cells"][0]["by_class"] = Value::Array(vec![classes]);
        value.to_string().into_bytes()
    };
    ["figure2-small.json", "table4-small.json"].map(seed).to_vec()
}

fn shorten(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.truncate(2);
            items.iter_mut().for_each(shorten);
        }
        Value::Object(items) => items.values_mut().for_each(shorten),
        _ => {}
    }
}
