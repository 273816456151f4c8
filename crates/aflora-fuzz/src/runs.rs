//! What a run leaves, and what experiments make of it: folders that people pass on.

use crate::files;
use aflora_core::accounting::Accounting;
use aflora_core::state::Position;
use aflora_run::experiment::results::Results;
use aflora_run::report::{csv, html, markdown, Named, Report};
use aflora_run::run::checkpoint::Moment;
use aflora_run::run::course::Course;
use aflora_run::run::gradient_log::{self, GradientReader};
use aflora_run::run::recorder::{Evaluation, Lengths};
use aflora_run::watch::state::State;
use aflora_run::watch::text::summary;
use aflora_run::watch::view::{Phase, View};
use serde_json::Value;
use std::fs;

/// A run's `events.jsonl`, and what `watch` says of it.
pub fn events(bytes: &[u8]) {
    let mut state = State::default();
    String::from_utf8_lossy(bytes).lines().for_each(|line| state.read(line));
    let steps = state.loss.points.iter().map(|(step, _)| *step);
    assert!(steps.clone().zip(steps.skip(1)).all(|(a, b)| a < b));
    let phase = state.failed.clone().map_or(Phase::Running, Phase::Failed);
    let (name, pace, silence) = ("run".into(), Some(4.0), None);
    let words = summary(&View { name, phase, state, pace, silence, seconds: None });
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
    let Ok(Moment { position, mut course, .. }) = serde_json::from_slice(bytes) else { return };
    if position.check(96).is_err() || course.check(&position, 6).is_err() {
        return;
    }
    let mut accounting = position.accounting.clone();
    accounting.step(5);
    course.clock.add(0.1);
    course.curve.stands_still(0.5, 50);
    let _ = (accounting.time_average(), course.clock.median(), course.id(position.step, 6));
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
    let mut course = Course {
        evaluations: vec![evaluation],
        best: Some(0),
        loss_sum: 0.5,
        steps_in_sum: 1,
        start: Some(0.7),
        ..Course::default()
    };
    for _ in 0..7 {
        accounting.step(5);
        course.clock.add(0.1);
        course.curve.stands_still(0.5, 50);
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
    let moment = Moment { position, course, lengths, inputs: [].into() };
    vec![serde_json::to_vec(&moment).unwrap_or_default()]
}

/// A run's `gradients.bin`.
pub fn gradients(bytes: &[u8]) {
    let folder = files::folder("gradients", &[(gradient_log::FILE, bytes)]);
    let Ok(mut log) = GradientReader::open(&folder) else { return };
    assert!(log.header().step_bytes() <= bytes.len() as u64);
    while let Ok(Some(_)) = log.step() {}
}

pub fn gradients_seeds() -> Vec<Vec<u8>> {
    let header = br#"{"matrices":[["a",[2,3]],["b",[3,1]]],"steps_per_epoch":1,"total_steps":2}"#;
    vec![[&header[..], b"\n", &[0x3f; 144]].concat()]
}

/// A file of results, in all forms of its report.
pub fn results(bytes: &[u8]) {
    let Ok(results) = serde_json::from_slice::<Results>(bytes) else { return };
    let named = Named { name: "results".into(), results };
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
