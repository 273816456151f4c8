//! Reports: what they say about results with known numbers, and about everything that can be wrong.

use aflora_record::freezes::Matrix;
use aflora_record::history::{FreezePoint, StepPoint};
use aflora_record::provenance::{Environment, Provenance};
use aflora_record::results::*;
use aflora_record::summary::{EarlyStop, FlopsPerToken, Operations, Parameters, Test, Times};
use aflora_record::{Evaluation, Selection};
use aflora_report::report::{csv, html, markdown, report, NamedResults, Report};
use aflora_report::words::causes;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const METRIC: &str = "accuracy";
const ALL: [View; 7] = [
    View::Table,
    View::Differences,
    View::Curves,
    View::Trainable,
    View::Heatmap,
    View::Threshold,
    View::Bars,
];

/// Of a program built from `commit`, on the last of February 2000.
fn provenance(commit: &str) -> Provenance {
    let (commit, started_unix) = (Some(commit.into()), 951_782_400);
    let environment = Environment { commit, started_unix, ..Environment::default() };
    Provenance { environment, ..Provenance::default() }
}

/// A finished run that scored `value` (a fraction), with matrices in two layers that freeze at
/// steps 10, 20, 30, … or never.
fn finding(value: Option<f64>) -> Finding {
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

fn cell(model: &str, task: &str, method: &str, seed: u64, outcome: Outcome) -> Cell {
    let (model, task, method) = (model.into(), task.into(), method.into());
    Cell { model, task, method, seed, digest: "d1".into(), outcome }
}

fn done(value: f64) -> Outcome {
    Outcome::Done(Box::new(finding(Some(value))))
}

fn row(name: &str, label: &str) -> MethodRow {
    MethodRow { name: name.into(), label: label.into(), paper: BTreeMap::new() }
}

fn task(name: &str) -> TaskColumn {
    TaskColumn { name: name.into(), label: name.to_uppercase(), metric: None }
}

/// Two methods on two tasks with five seeds: `a` and `b` of the statistics' own golden values.
fn results() -> Results {
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

fn of(results: &Results) -> Report {
    Report::of(&NamedResults { name: "table4-small".into(), results: results.clone() })
}

fn md(results: &Results) -> String {
    markdown::render(&of(results))
}

/// The first Markdown row that begins with `label`, as its entries.
fn entries(markdown: &str, label: &str) -> Vec<String> {
    let start = format!("| {label} |");
    let line = markdown.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("no row {label}: {markdown}"));
    line.trim_matches('|').split(" | ").map(|entry| entry.trim().to_string()).collect()
}

fn outcome<'a>(results: &'a mut Results, task: &str, method: &str, seed: u64) -> &'a mut Outcome {
    let of = |c: &&mut Cell| c.task == task && c.method == method && c.seed == seed;
    &mut results.cells.iter_mut().find(of).unwrap().outcome
}

#[test]
fn the_table_has_means_deviations_and_the_paper_s_values() {
    let row = entries(&md(&results()), "Ours");
    // numpy: a.mean(), a.std(ddof=1) of 100 a = 91.666, 0.54784; of the other task 72, 1.58114.
    assert_eq!(row[1], "**91.67 ± 0.55**<br>paper 91.91 (−0.24)");
    assert_eq!(row[2], "**72.00 ± 1.58**");
    // The mean of task means; the deviation of the seeds' own averages:
    // numpy: ((100*a + [70, 71, 72, 73, 74]) / 2).std(ddof=1) = 0.7607776
    assert_eq!(row[3], "**81.83 ± 0.76**");
    assert_eq!(row[4..], ["250<br>paper 140,000", "12"]);
}

#[test]
fn a_difference_from_the_paper_stands_only_where_the_two_compare() {
    let said = |results: &Results| {
        let markdown = md(results);
        (entries(&markdown, "Ours")[1].clone(), markdown.contains("compare them with each other"))
    };
    let with = "**91.67 ± 0.55**<br>paper 91.91 (−0.24)".to_string();
    let without = "**91.67 ± 0.55**<br>paper 91.91".to_string();
    let mut results = results();
    assert_eq!(said(&results), (with.clone(), false));
    // Another model stands in for the paper's; and files from before models were kept.
    results.layout.paper_models = Some(vec!["big".into()]);
    assert_eq!(said(&results), (without.clone(), true));
    results.layout.paper_models = None;
    assert_eq!(said(&results), (without.clone(), true));
    results.profile = "paper".into();
    assert_eq!(said(&results), (with, false));
    if let Outcome::Done(f) = outcome(&mut results, "rte", "lora", 3) {
        f.settings["eval_limit"] = 64.into();
    }
    assert_eq!(said(&results), (without, true));
}

#[test]
fn the_time_of_a_report_grows_with_its_cells_and_not_with_their_square() {
    let grid = |seeds: u64| {
        let mut results = results();
        results.layout.show = vec![View::Table, View::Differences];
        results.layout.methods = (0..10).map(|m| row(&format!("m{m}"), "Method")).collect();
        results.layout.tasks = (0..8).map(|t| task(&format!("t{t}"))).collect();
        results.layout.reference = Some("m0".into());
        results.layout.claims = Vec::new();
        let seeds = 0..seeds;
        results.cells = seeds
            .flat_map(|s| (0..10).flat_map(move |m| (0..8).map(move |t| (s, m, t))))
            .map(|(s, m, t)| cell("tiny", &format!("t{t}"), &format!("m{m}"), s, done(0.5)))
            .collect();
        results
    };
    let seconds = |results: &Results| {
        let named = NamedResults { name: "big".into(), results: results.clone() };
        let time = || {
            let began = std::time::Instant::now();
            assert!(markdown::render(&Report::of(&named)).contains("runs are done"));
            csv::render(&named.results).unwrap();
            began.elapsed().as_secs_f64()
        };
        time().min(time()).min(time())
    };
    // Sixteen times the cells: 256 times the time, if it grew with their square.
    let (few, many) = (seconds(&grid(6)), seconds(&grid(96)));
    assert!(many < 64.0 * few, "{few} s for 480 cells, {many} s for 7,680");
}

#[test]
fn a_page_of_several_experiments_answers_them_first() {
    let mut other = results();
    other.layout.title = "Where do they freeze?".into();
    other.layout.about = "A question in a sentence. And more of it.".into();
    other.layout.claims = Vec::new();
    other.layout.reference = None;
    other.layout.show = vec![View::Heatmap, View::Table];
    let page = html::render(&[of(&results()), of(&other)]);
    well_formed(&page);
    let first = page.split("<article").next().unwrap();
    for words in [
        "<a href=\"#r1\">Does freezing pay?</a>",
        "<span>The paper: Ours is above LoRA</span>",
        "<span>agrees</span><small>Ours above LoRA: +5.46 points (+4.48 to +6.45)\non tiny</small>",
        "<a href=\"#r2\">Where do they freeze?</a>",
        "A question in a sentence.",
        "MRPC: when matrices froze (Ours): First inter.A of layer 0",
    ] {
        assert!(first.contains(words), "{words}: {first}");
    }
    assert!(!first.contains("And more of it"));
    other.layout.show = vec![View::Table];
    let page = html::render(&[of(&results()), of(&other)]);
    assert!(page.split("<article").next().unwrap().contains("Highest average: Ours, 81.83 points"));
    other.cells.iter_mut().for_each(|cell| cell.outcome = Outcome::Missing);
    let page = html::render(&[of(&results()), of(&other)]);
    assert!(page.split("<article").next().unwrap().contains("no run is done"));
    // Of one alone the page begins with itself.
    assert!(!html::render(&[of(&results())]).contains("What was asked"));
}

#[test]
fn the_differences_are_scipy_s() {
    let markdown = md(&results());
    let differences = markdown.split("**Differences from LoRA").nth(1).unwrap();
    let row = entries(differences, "Ours");
    // scipy: stats.ttest_rel(a, b).confidence_interval(0.95) × 100 = −0.47484, 2.33084
    assert_eq!(row[1], "+0.93<br>−0.47 to +2.33<br>within the noise");
    // scipy: ttest_rel([70,71,72,73,74], [60,62,61,63,64]).confidence_interval() = 9.12201, 10.87799
    assert_eq!(row[2], "+10.00<br>+9.12 to +10.88<br>higher");
    let claim = entries(&markdown, "Ours is above LoRA.");
    assert_eq!(claim[1], "agrees");
    assert!(markdown.contains("The paper says: Ours is above LoRA. Our result agrees."));
}

#[test]
fn a_claim_is_held_against_averages_and_their_noise() {
    let mut results = results();
    let standing = |results: &Results| entries(&md(results), "Ours is above LoRA.")[1].clone();
    results.layout.claims[0].order.reverse();
    assert_eq!(standing(&results), "disagrees");
    results.layout.tasks.truncate(1);
    assert_eq!(standing(&results), "disagrees, within the noise");
    results.layout.claims[0].order.reverse();
    assert_eq!(standing(&results), "agrees, within the noise");
    results.layout.claims[0].order[0] = "never-run".into();
    assert!(standing(&results).starts_with("cannot be told"));
}

#[test]
fn what_is_missing_failed_or_undefined_says_so() {
    let mut results = results();
    for seed in 1..=5 {
        *outcome(&mut results, "mrpc", "lora", seed) = Outcome::Missing;
        let error = format!("the loss is NaN ({seed})");
        *outcome(&mut results, "rte", "lora", seed) = Outcome::Failed { error };
        let nothing = Outcome::Done(Box::new(finding(None)));
        *outcome(&mut results, "rte", "ours", seed) = nothing;
    }
    *outcome(&mut results, "mrpc", "ours", 1) = Outcome::Failed { error: "out of memory".into() };
    let markdown = md(&results);
    let lora = entries(&markdown, "LoRA");
    assert_eq!(lora[1..4], ["–", "failed", "–"]);
    let ours = entries(&markdown, "Ours");
    assert!(ours[1].starts_with("**91.61 ± 0.61 (n = 4)**"), "{}", ours[1]);
    assert_eq!(ours[2], "undefined");
    assert!(markdown.contains("9 of 20 runs are done, 6 failed, 5 missing"));
    assert!(markdown.contains("the loss is NaN (3)") && markdown.contains("out of memory"));
    let page = html::render(&[of(&results)]);
    assert!(page.contains("title=\"seed 1: out of memory\""));
    let lines: Vec<String> = csv::render(&results).unwrap().lines().map(str::to_string).collect();
    assert_eq!(lines.len(), 21);
    assert!(lines.iter().any(|l| l.starts_with("tiny,mrpc,lora,1,missing,,")));
    assert!(lines.iter().any(|l| l.starts_with("tiny,rte,lora,1,failed,the loss is NaN (1),")));
    // An undefined metric is an empty field, the run is done all the same.
    assert!(lines.iter().any(|l| l.starts_with("tiny,rte,ours,1,done,,accuracy,,2,80,")));
}

#[test]
fn one_seed_has_neither_deviation_nor_interval() {
    let mut results = results();
    results.cells.retain(|c| c.seed == 1);
    let markdown = md(&results);
    assert_eq!(entries(&markdown, "Ours")[2], "**70.00**");
    let differences = markdown.split("**Differences from LoRA").nth(1).unwrap();
    assert_eq!(entries(differences, "Ours")[2], "+10.00<br>one seed: no interval");
    assert_eq!(entries(&markdown, "Ours is above LoRA.")[1], "agrees; one seed: no interval");
    // The legend alone names the sign.
    assert_eq!(markdown.matches('±').count(), 1);
}

#[test]
fn several_models_have_a_table_and_heat_maps_of_their_own() {
    let mut results = results();
    let more: Vec<Cell> =
        results.cells.iter().cloned().map(|c| Cell { model: "big".into(), ..c }).collect();
    results.cells.extend(more);
    let markdown = md(&results);
    assert!(markdown.contains("## Results: tiny") && markdown.contains("## Results: big"));
    let report = of(&results);
    let files: Vec<&str> = report.chart_files().map(|(name, _)| name).collect();
    assert_eq!(files.len(), 8, "two models, two tasks, two methods that freeze: {files:?}");
    let mut different = files.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 8, "{files:?}");
}

#[test]
fn heat_maps_print_every_step_and_say_never() {
    let mut results = results();
    results.layout.tasks.truncate(1);
    results.cells.retain(|c| c.task == "mrpc");
    // In one of five runs the matrix of step 30 goes on to the end.
    if let Outcome::Done(f) = outcome(&mut results, "mrpc", "ours", 2) {
        f.matrices[2].frozen_at = None;
        f.matrices[0].frozen_at = Some(35);
    }
    let report = of(&results);
    let (name, chart) = report.chart_files().next().unwrap();
    assert_eq!(name, "table4-small-heatmap-mrpc-ours.svg");
    let rows: Vec<Vec<&str>> =
        chart.data.rows.iter().map(|r| r.iter().map(|e| e.text.as_str()).collect()).collect();
    assert_eq!(rows, [["out.B", "20", "never"], ["inter.A", "15", "30*"]]);
    let svg = html::chart_file(chart);
    for text in [">never<", ">30*<", ">15<", "First inter.A of layer 0 (step 15)"] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    assert!(!svg.contains("var(--page)") && svg.contains("fill=\"#fff\""), "no ground of its own");
}

#[test]
fn numbers_that_are_not_finite_never_reach_a_file() {
    let mut results = results();
    for cell in &mut results.cells {
        let Outcome::Done(f) = &mut cell.outcome else { continue };
        f.seconds.median_step = f64::NAN;
        f.parameters.time_average = f64::INFINITY;
        f.tokens_per_second = f64::NEG_INFINITY;
        f.curve[2].loss = f64::NAN;
        f.checks[1].scores = [f64::NAN, 0.0, f64::INFINITY];
        f.checks[0].threshold = None;
        f.best.metrics.insert(METRIC.into(), Some(f64::NAN));
        f.evaluations[0].metrics.insert(METRIC.into(), Some(f64::INFINITY));
    }
    let page = html::render(&[of(&results)]);
    let texts = [page, md(&results), csv::render(&results).unwrap()];
    for text in &texts {
        for word in ["NaN", "inf,", ">inf", "-inf", "inf\"", "| inf"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
    assert_eq!(entries(&texts[1], "LoRA")[1], "undefined");
}

#[test]
fn the_test_split_is_told_where_there_is_one() {
    let mut results = results();
    assert!(!md(&results).contains("judged once"));
    for cell in results.cells.iter_mut().filter(|c| c.task == "mrpc" && c.method == "ours") {
        let Outcome::Done(finding) = &mut cell.outcome else { continue };
        let metrics = [(METRIC.to_string(), Some(0.8125))].into_iter().collect();
        let evaluation = Evaluation { metrics, ..finding.best.clone() };
        finding.test = Some(Test { split: "test".into(), evaluation, by_class: Vec::new() });
    }
    let told = md(&results);
    assert!(
        told.contains("judged once with each run's best adapter: ") && told.contains(" 81.25.")
    );
}

#[test]
fn runs_that_ended_early_are_counted() {
    let mut results = results();
    assert!(!md(&results).contains("ended early"));
    let mut early = finding(Some(0.5));
    early.early_stop = Some(EarlyStop { patience: 3, total_steps: 400 });
    results.cells.push(cell("m", "t", "x", 99, Outcome::Done(Box::new(early))));
    assert!(md(&results).contains("1 ended early, since evaluations became no better"));
}

#[test]
fn empty_results_still_make_a_report() {
    let mut results = results();
    results.cells.clear();
    assert!(html::render(&[of(&results)]).contains("Does freezing pay?"));
    results.layout = Layout { methods: vec![], tasks: vec![], claims: vec![], ..results.layout };
    results.cells.push(cell("m", "t", "x", 1, Outcome::Missing));
    assert!(md(&results).contains("0 of 1 runs are done"));
}

/// What could end an element, an attribute, a table or a field, or name another file.
const NASTY: &str = "<img src=x>&\"|'`*_/../ü\n";

/// Results with `part` in each of their texts.
fn with_everywhere(part: &str) -> Results {
    let mut results = results();
    let nasty = |name: &str| format!("{name}{part}");
    for cell in &mut results.cells {
        cell.model = nasty("m");
        cell.task = nasty(&cell.task);
        cell.method = nasty(&cell.method);
        if let Outcome::Done(f) = &mut cell.outcome {
            f.device = nasty("cpu");
            f.settings = json!({ (part): cell.method });
            f.provenance = provenance(part);
        }
    }
    *outcome(&mut results, &nasty("rte"), &nasty("lora"), 1) = Outcome::Failed { error: nasty("") };
    let layout = &mut results.layout;
    layout.title = nasty("title");
    layout.about = format!("About {part}");
    for task in &mut layout.tasks {
        task.name = nasty(&task.name);
        task.label = nasty("task");
    }
    for method in &mut layout.methods {
        method.name = nasty(&method.name);
        method.label = nasty(&method.label);
    }
    layout.reference = Some(nasty("lora"));
    layout.claims[0] = Claim { says: part.into(), order: vec![nasty("lora"), nasty("ours")] };
    results
}

#[test]
fn what_acts_on_a_terminal_or_a_reader_reaches_no_file_of_a_report() {
    let results = with_everywhere("\u{1b}[2J\r\u{202e}\u{feff}\u{ffff}");
    let name = "a\u{1b}[2J\u{202e}%".to_string();
    let report = Report::of(&NamedResults { name, results: results.clone() });
    let markdown = markdown::render(&report);
    assert!(markdown.contains("](<a%1B%5B2J%E2%80%AE%25-heatmap-"), "{markdown}");
    let mut files =
        vec![csv::render(&results).unwrap(), html::render(std::slice::from_ref(&report))];
    files.extend(report.chart_files().map(|(_, chart)| html::chart_file(chart)));
    assert!(files[1..].iter().all(|file| !file.contains('\u{ffff}')), "XML has no such character");
    files.push(markdown);
    for file in files {
        assert!(!file.contains(['\u{1b}', '\r', '\u{202e}', '\u{feff}']), "{file:?}");
        assert!(file.contains("u{202e}"), "{file:?}");
    }
}

#[test]
fn a_description_of_lines_with_carriage_returns_keeps_its_paragraphs() {
    let mut results = results();
    results.layout.about = "one\r\ntwo\r\n\r\nthree\r\n".into();
    let report = of(&results);
    assert!(markdown::render(&report).contains("\n\none\ntwo\n\nthree\n\n"));
    assert!(html::render(&[report]).contains("<p>one\ntwo</p>\n<p>three</p>"));
}

#[test]
fn names_are_text_wherever_they_stand() {
    let results = with_everywhere(NASTY);
    let nasty = |name: &str| format!("{name}{NASTY}");
    let report = of(&results);
    let page = html::render(std::slice::from_ref(&report));
    assert!(page.contains("&lt;img src=x&gt;&amp;&quot;|&#39;"));
    let mut pages = vec![page, html::render(&[report.clone(), report.clone()])];
    for (name, chart) in report.chart_files() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!(name.chars().all(plain), "{name}");
        pages.push(html::chart_file(chart));
    }
    assert!(pages.len() > 2);
    for page in &pages {
        assert!(!page.contains("<img"), "{page}");
        well_formed(page);
    }
    let markdown = markdown::render(&report);
    let results_only = markdown.split("## In short").nth(1).unwrap();
    assert!(!results_only.contains("<img") && results_only.contains("&lt;img"));
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let table: Vec<&str> = results_only.lines().skip_while(|l| !l.starts_with('|')).collect();
    let table: Vec<&str> = table.into_iter().take_while(|l| l.starts_with('|')).collect();
    assert_eq!(table.len(), 4, "{table:?}");
    assert!(table.iter().all(|line| columns(line) == columns(table[0])), "{table:?}");
    let text = csv::render(&results).unwrap();
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let first = reader.records().next().unwrap().unwrap();
    assert_eq!((&first[0], &first[2]), (nasty("m").as_str(), nasty("ours").as_str()));
}

/// Every element that is opened is closed, in order, and attributes are quoted.
fn well_formed(page: &str) {
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

#[test]
fn a_long_name_makes_a_report_all_the_same() {
    let place = tempfile::tempdir().unwrap();
    for letter in ["a", "b"] {
        // As long as a file's name can be.
        let name = format!("{}{letter}.json", "n".repeat(249));
        let method = "m".repeat(300);
        let text = serde_json::to_string(&results()).unwrap();
        let text = text.replace("\"lora\"", &format!("\"{method}\""));
        fs::write(place.path().join(name), text).unwrap();
    }
    let paths = report(place.path(), None).unwrap().paths;
    let mut each = paths.clone();
    each.sort();
    each.dedup();
    assert_eq!(each.len(), paths.len(), "two files of one name: {paths:?}");
    let svg = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "svg");
    assert!(paths.iter().filter(svg).count() >= 2, "{paths:?}");
    assert!(paths.iter().all(|path| path.is_file()), "{paths:?}");
}

#[test]
fn every_chart_has_a_title_a_description_and_its_data() {
    let page = html::render(&[of(&results())]);
    let charts = page.matches("<svg class=\"chart\"").count();
    assert!(charts >= 15, "{charts}");
    for part in ["<title id=\"c", "<desc id=\"c", "<figure role=\"group\"", "<summary>Data<"] {
        assert_eq!(page.matches(part).count(), charts, "{part}");
    }
    well_formed(&page);
    assert!(!page.contains("<script") && !page.contains("<link") && !page.contains("@import"));
    assert!(!page.contains("src="), "nothing is loaded");
}

#[test]
fn the_layout_decides_what_is_shown_and_in_which_order() {
    let mut results = results();
    results.layout.show = vec![View::Bars, View::Table];
    let markdown = md(&results);
    let headings: Vec<&str> = markdown.lines().filter(|l| l.starts_with("## ")).collect();
    assert_eq!(headings, ["## In short", "## Cost", "## Results", "## Where it comes from"]);
    assert!(markdown.contains("2000-02-29"), "the day of the runs");
}

#[test]
fn the_papers_average_is_over_the_tasks_that_are_shown() {
    let mut results = results();
    let ours = results.layout.methods.iter_mut().find(|m| m.name == "ours").unwrap();
    ours.paper = BTreeMap::from(
        [("mrpc", 90.0), ("rte", 80.0), ("average", 86.5)].map(|(k, v)| (k.to_string(), v)),
    );
    assert!(md(&results).contains("paper 86.50"), "its own, over the same tasks");
    let ours = results.layout.methods.iter_mut().find(|m| m.name == "ours").unwrap();
    ours.paper.insert("mnli".into(), 89.5);
    let markdown = md(&results);
    assert!(markdown.contains("paper 85.00") && !markdown.contains("paper 86.50"), "{markdown}");
}

#[test]
fn evaluations_on_a_part_of_the_rows_are_told_first() {
    let mut results = results();
    assert!(!md(&results).contains("part of the rows"));
    if let Outcome::Done(f) = outcome(&mut results, "rte", "lora", 3) {
        f.settings["eval_limit"] = 64.into();
        f.settings["epochs"] = 4.into();
    }
    let markdown = md(&results);
    assert!(markdown.contains("Evaluated on a part of the rows"), "{markdown}");
    assert!(markdown.contains("64"), "the settings say how many");
}

#[test]
fn of_equal_averages_none_is_the_highest() {
    let mut results = results();
    for cell in &mut results.cells {
        cell.outcome = done(0.75);
    }
    let markdown = md(&results);
    assert!(markdown.contains("share the highest average, 75.00"), "{markdown}");
}

#[test]
fn cost_is_a_share_of_the_largest() {
    let mut results = results();
    for cell in results.cells.iter_mut().filter(|c| c.method == "ours") {
        let Outcome::Done(f) = &mut cell.outcome else { continue };
        f.seconds.training = 8.5 / 4.0;
        f.parameters.time_average = 1000.0;
    }
    let markdown = md(&results);
    assert!(markdown.contains("LoRA has the most, Ours the least: 0.25. Over 2 of 2 tasks."));
    assert!(markdown.contains("Ours has the most, LoRA the least: 0.25."));
    let warning = "of several devices";
    assert!(!markdown.contains(warning));
    if let Outcome::Done(f) = outcome(&mut results, "rte", "lora", 3) {
        f.device = "cuda".into();
    }
    assert!(md(&results).contains(warning));
}

fn write(folder: &Path, name: &str, results: &Results) {
    fs::write(folder.join(name), serde_json::to_vec(results).unwrap()).unwrap();
}

#[test]
fn the_same_results_make_the_same_bytes() {
    let place = tempfile::tempdir().unwrap();
    for name in ["f", "b", "e", "a", "d", "c"] {
        write(place.path(), &format!("{name}.json"), &results());
    }
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    let first = report(place.path(), Some(&one)).unwrap();
    let second = report(place.path(), Some(&two)).unwrap();
    let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
        paths.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    };
    let all = names(&first.paths);
    assert_eq!(all, names(&second.paths));
    let tables: Vec<&String> = all.iter().filter(|name| name.ends_with(".md")).collect();
    assert_eq!(tables, ["a.md", "b.md", "c.md", "d.md", "e.md", "f.md"]);
    assert_eq!(all.last().unwrap(), html::PAGE);
    for name in &all {
        assert_eq!(fs::read(one.join(name)).unwrap(), fs::read(two.join(name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(&one).unwrap().count(), all.len(), "no temporary file stays");
}

#[test]
fn a_damaged_file_is_named_and_the_others_are_rendered() {
    let place = tempfile::tempdir().unwrap();
    write(place.path(), "good.json", &results());
    fs::write(place.path().join("bad.json"), "{\"experiment\": ").unwrap();
    let written = report(place.path(), None).unwrap();
    assert_eq!(written.damaged.len(), 1);
    let words = causes(&written.damaged[0]);
    assert!(words.contains("bad.json is no file of results"), "{words}");
    for name in ["good.md", "good.csv", "report.html", "good-heatmap-mrpc-ours.svg"] {
        assert!(written.paths.contains(&place.path().join(name)), "{name}");
        assert!(place.path().join(name).is_file(), "{name}");
    }
    assert!(!place.path().join("bad.md").exists());

    fs::remove_file(place.path().join("good.json")).unwrap();
    let out = place.path().join("out");
    assert_eq!(report(place.path(), Some(&out)).unwrap().damaged.len(), 1);
    assert!(!out.exists());
}

#[test]
fn results_of_another_version_s_form_are_refused_by_what_wrote_them() {
    let place = tempfile::tempdir().unwrap();
    let mut newer = serde_json::to_value(results()).unwrap();
    let environment = json!({ "aflora": "9.1.0", "commit": "abc1234", "later": [] });
    newer["cells"][0]["provenance"]["environment"] = environment;
    let path = place.path().join("newer.json");
    let read = |results: &serde_json::Value| {
        fs::write(&path, results.to_string()).unwrap();
        Results::read(&path)
    };
    read(&newer).unwrap();
    newer["cells"][0]["steps"] = "many".into();
    let words = causes(&read(&newer).unwrap_err());
    let expected =
        "newer.json is no file of results of this version; aflora 9.1.0 (abc1234) wrote it";
    assert!(words.contains(expected) && words.contains("invalid type"), "{words}");
}

#[test]
fn results_that_hold_a_cell_twice_are_refused_by_its_name() {
    let place = tempfile::tempdir().unwrap();
    let mut doubled = results();
    let again = doubled.cells[0].clone();
    doubled.cells.push(again);
    write(place.path(), "doubled.json", &doubled);
    let said = |words: &str| {
        let written = report(&place.path().join("doubled.json"), None).unwrap();
        let said = written.damaged[0].to_string();
        assert!(said.contains(words), "{said}");
        assert!(!place.path().join("doubled.md").exists());
    };
    said("doubled.json: the cell mrpc-tiny-ours-seed1 stands twice");
    // Of other settings, too: two scores of one seed are no pair to anything.
    doubled.cells.last_mut().unwrap().digest = "d2".into();
    write(place.path(), "doubled.json", &doubled);
    said("doubled.json: the cell mrpc-tiny-ours-seed1 stands twice");
}

#[test]
fn a_single_file_is_a_source_too_and_nothing_is_an_error_with_a_remedy() {
    let place = tempfile::tempdir().unwrap();
    let refused = |source: &Path| {
        let error = report(source, None).unwrap_err();
        assert!(matches!(error, aflora_report::Error::Usage(_)), "{error:?}");
        error.to_string()
    };
    let words = refused(place.path());
    for part in ["looked for *.json", "aflora experiment experiments/table4.yaml"] {
        assert!(words.contains(part), "{words}");
    }
    assert!(refused(&place.path().join("nowhere")).contains("no such file or folder"));
    write(place.path(), "one.json", &results());
    report(&place.path().join("one.json"), None).unwrap();
    assert!(place.path().join("one.md").is_file() && place.path().join("report.html").is_file());
}

/// The results that lie in the project, of whatever version wrote them.
#[test]
fn committed_results_open_and_make_the_reports_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments/results");
    let out = tempfile::tempdir().unwrap();
    let written = report(&folder, Some(out.path())).unwrap();
    assert!(written.damaged.is_empty(), "{:?}", written.damaged);
    assert!(written.paths.len() > 20, "{:?}", written.paths);
    for path in &written.paths {
        let committed = folder.join(path.file_name().unwrap());
        assert!(committed.is_file(), "{} is not committed", committed.display());
        assert_eq!(fs::read(path).unwrap(), fs::read(&committed).unwrap(), "{}", path.display());
    }
}

#[test]
fn of_errors_the_lowest_is_the_best_and_nothing_is_made_points() {
    let mut results = results();
    for cell in &mut results.cells {
        if let Outcome::Done(finding) = &mut cell.outcome {
            finding.selection.lower_is_better = vec![METRIC.into()];
        }
    }
    let markdown = md(&results);
    assert!(markdown.contains("MRPC (accuracy, lower is better)"), "{markdown}");
    let (ours, lora) = (entries(&markdown, "Ours"), entries(&markdown, "LoRA"));
    assert!(ours[1].starts_with("0.92 ± 0.01"), "{ours:?}");
    assert!(lora[1].starts_with("**0.91 ± 0.01**") && lora[2].starts_with("**0.62"), "{lora:?}");
    assert!(markdown.contains("Lowest average: LoRA, 0.76, with"), "{markdown}");
    assert!(csv::render(&results).unwrap().contains(",accuracy,0.9191,"));
    let page = html::render(&[of(&results)]);
    let higher = page.split("class=\"bad\"").nth(1).unwrap();
    assert!(higher.contains("higher"), "a higher error is worse");
    // Of points and errors together there is no average.
    for cell in results.cells.iter_mut().filter(|cell| cell.task == "rte") {
        let Outcome::Done(finding) = &mut cell.outcome else { continue };
        finding.selection.lower_is_better = Vec::new();
    }
    let markdown = md(&results);
    assert!(!markdown.contains("Average") && !markdown.contains("average:"), "{markdown}");
    assert!(markdown.contains("or the metric's own unit where lower is better"));
}
