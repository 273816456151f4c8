//! What tables of scores, differences and claims say, against numpy and scipy.

use crate::support::*;
use aflora_record::provenance::DataFile;
use aflora_record::results::{Cell, MethodRow, Outcome, Results, View};
use aflora_record::summary::{EarlyStop, Test};
use aflora_record::Evaluation;
use aflora_report::report::{csv, html};
use std::collections::BTreeMap;

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
    let heat_maps = files.iter().filter(|name| name.contains("heatmap")).count();
    assert_eq!(heat_maps, 8, "two models, two tasks, two methods that freeze: {files:?}");
    let mut different = files.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), files.len(), "{files:?}");
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
fn a_limit_of_as_many_rows_as_there_are_leaves_none_out() {
    for (limit, is_part) in [(63, true), (64, false), (65, false)] {
        let mut results = results();
        if let Outcome::Done(f) = outcome(&mut results, "rte", "lora", 3) {
            f.settings["eval_limit"] = limit.into();
            let file = |split: &str, rows| DataFile {
                split: split.into(),
                path: "rows.tsv".into(),
                sha256: String::new(),
                rows,
                skipped: 0,
            };
            f.provenance.data = vec![file("train", 1000), file("dev", 64)];
        }
        assert_eq!(md(&results).contains("part of the rows"), is_part, "{limit}");
    }
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
fn the_best_of_a_sweep_is_told_with_its_lead_and_whether_more_should_be_tried() {
    let mut results = results();
    results.layout.show = vec![View::Best];
    let scores = [
        ("lora lr=1e-4", Some(0.70)),
        ("lora lr=1e-3", Some(0.80)),
        ("lora lr=1e-2", Some(0.75)),
        ("full lr=1e-5", Some(0.60)),
        ("full lr=1e-4", Some(0.65)),
        ("sora lr=1e-4", None),
        ("sora lr=1e-3", Some(0.5)),
    ];
    let row =
        |name: &str| MethodRow { name: name.into(), label: name.into(), ..MethodRow::default() };
    results.layout.methods = scores.map(|(name, _)| row(name)).to_vec();
    let tasks: Vec<String> = results.layout.tasks.iter().map(|task| task.name.clone()).collect();
    let model = results.cells[0].model.clone();
    results.cells = Vec::new();
    for (name, score) in scores {
        for task in &tasks {
            let outcome = score.map_or(Outcome::Missing, done);
            results.cells.push(cell(&model, task, name, 0, outcome));
        }
    }
    let markdown = md(&results);
    assert_eq!(entries(&markdown, "lora")[1..], ["lr=1e-3", "80.00", "3", "+5.00", "no"]);
    assert_eq!(entries(&markdown, "full")[1..], ["lr=1e-4", "65.00", "2", "+5.00", "yes"]);
    assert_eq!(entries(&markdown, "sora")[1..], ["lr=1e-3", "50.00", "1 of 2", "–", "yes"]);
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
