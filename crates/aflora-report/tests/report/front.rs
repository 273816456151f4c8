//! Trained parameters against score.

use crate::support::*;
use aflora_record::results::{Outcome, Results, View};
use aflora_report::report::html;

/// LoRA trains four times as much as ours, and a third method, which scores what LoRA does in another
/// order of seeds, a tenth.
fn three() -> Results {
    let mut results = results();
    results.layout.show = vec![View::Front];
    results.layout.methods.push(row("cheap", "Cheap"));
    for (name, values) in [
        ("mrpc", [0.8995, 0.9020, 0.9118, 0.9069, 0.9167]),
        ("rte", [0.64, 0.60, 0.62, 0.61, 0.63]),
    ] {
        let cells = (1..).zip(values).map(|(s, v)| cell("tiny", name, "cheap", s, done(v)));
        results.cells.extend(cells);
    }
    for cell in &mut results.cells {
        if let Outcome::Done(f) = &mut cell.outcome {
            f.parameters.time_average = match cell.method.as_str() {
                "lora" => 1000.0,
                "cheap" => 100.0,
                _ => 250.0,
            };
        }
    }
    results
}

fn front(results: &Results, label: &str) -> Vec<String> {
    let markdown = md(results);
    let table = markdown.split("**Trained parameters, average over steps, against score").nth(1);
    entries(table.unwrap_or_else(|| panic!("no table: {markdown}")), label)
}

#[test]
fn a_method_is_on_the_front_where_none_trains_less_and_comes_as_high() {
    let results = three();
    // scipy: d = (100 (a - b) + [10, 9, 11, 10, 10]) / 2; ttest_1samp(d, 0).confidence_interval()
    let ours = front(&results, "Ours");
    assert_eq!(ours[1..5], ["250", "0.25", "+5.46", "+4.48 to +6.45"]);
    assert_eq!((ours[6].as_str(), ours[7].as_str()), ("5", "yes"));
    let cheap = front(&results, "Cheap");
    assert_eq!((cheap[1].as_str(), cheap[2].as_str(), cheap[7].as_str()), ("100", "0.10", "yes"));
    // What all are measured by trains four times what ours does, and comes lower.
    let lora = front(&results, "LoRA");
    assert_eq!((lora[2].as_str(), lora[3].as_str(), lora[7].as_str()), ("1.00", "0.00", "no"));
    let markdown = md(&results);
    assert!(markdown.contains("from few parameters to many: Cheap (100, "), "{markdown}");
    well_formed(&html::render(&[of(&results)]));
}

#[test]
fn with_more_methods_the_corrected_interval_is_wider_than_that_of_95_percent() {
    let two = {
        let mut results = three();
        results.layout.methods.pop();
        results.cells.retain(|cell| cell.method != "cheap");
        front(&results, "Ours")
    };
    let three = front(&three(), "Ours");
    assert_eq!(two[4], two[5], "one comparison needs no correction");
    assert_eq!(two[4], three[4]);
    // scipy: the same with confidence_interval(1 - 0.05 / 2)
    assert_eq!(three[5], "+4.23 to +6.70");
}

#[test]
fn a_method_without_a_task_has_no_place_and_without_a_reference_scores_are_their_own() {
    let mut results = three();
    for seed in 1..=5 {
        *outcome(&mut results, "rte", "cheap", seed) = Outcome::Missing;
    }
    assert!(!md(&results).contains("| Cheap |"));
    results.layout.reference = None;
    let ours = front(&results, "Ours");
    assert_eq!((ours[1].as_str(), ours[3].as_str()), ("250", "81.83"));
    assert!(!ours[4].contains('+'), "{ours:?}");
}
