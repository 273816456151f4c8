//! Tables by class and confusion matrices.

use crate::support::*;
use aflora_record::by_class::ByClass;
use aflora_record::results::{Outcome, Results, View};
use aflora_record::summary::Test;
use aflora_report::report::html;

/// Every run answered 0, 1, 1, 1 where 0, 0, 1, 1 was right.
fn judged(labels: &[&str]) -> Results {
    let mut results = results();
    results.layout.show = vec![View::Classes];
    for cell in &mut results.cells {
        let Outcome::Done(finding) = &mut cell.outcome else { continue };
        finding.by_class = vec![ByClass::of_classes("dev", labels, &[0, 1, 1, 1], &[0, 0, 1, 1])];
    }
    results
}

#[test]
fn classes_have_a_row_and_mistakes_a_cell_over_all_seeds() {
    let results = judged(&["bad", "good"]);
    let markdown = md(&results);
    assert!(markdown.contains("## Classes"), "{markdown}");
    let caption = "**MRPC, Ours: dev, 5 runs together, by class, in points**";
    let table = markdown.split(caption).nth(1).unwrap_or_else(|| panic!("{markdown}"));
    // scikit-learn: precision 1, 2/3; recall 1/2, 1; F1 2/3, 4/5; five runs of two rows each.
    assert_eq!(entries(table, "bad")[1..], ["10", "5", "100.00", "50.00", "66.67"]);
    assert_eq!(entries(table, "good")[1..], ["10", "15", "66.67", "100.00", "80.00"]);
    assert!(markdown.contains("15 of 20 rows got their class."), "{markdown}");
    assert!(markdown.contains("The commonest mistake: good for bad, 5 rows."));
    let files: Vec<String> = of(&results).chart_files().map(|(name, _)| name.into()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files[0].ends_with("confusion-mrpc-ours-dev.svg"), "{files:?}");
    let page = html::render(&[of(&results)]);
    well_formed(&page);
    for cell in ["1 bad", "2 good", ">answered<"] {
        assert!(page.contains(cell), "{cell}");
    }
}

#[test]
fn the_test_split_has_its_own_table_and_confusion_matrix() {
    let mut results = judged(&["bad", "good"]);
    for cell in results.cells.iter_mut().filter(|c| c.task == "mrpc" && c.method == "ours") {
        let Outcome::Done(finding) = &mut cell.outcome else { continue };
        let by_class = ByClass::of_classes("test", &["bad", "good"], &[1, 1], &[0, 1]);
        let (split, evaluation) = ("test".into(), finding.best.clone());
        finding.test = Some(Test { split, evaluation, by_class: vec![by_class] });
    }
    let markdown = md(&results);
    let caption = "**MRPC, Ours: test, 5 runs together, by class, in points**";
    let table = markdown.split(caption).nth(1).unwrap_or_else(|| panic!("{markdown}"));
    assert_eq!(entries(table, "good")[1..], ["5", "10", "50.00", "100.00", "66.67"]);
    let report = of(&results);
    let mut files = report.chart_files().map(|(name, _)| name);
    assert!(files.any(|name| name.ends_with("confusion-mrpc-ours-test.svg")), "{markdown}");
}

#[test]
fn of_many_classes_the_commonest_mistakes_are_told() {
    let labels: Vec<String> = (0..2000).map(|class| format!("class {class}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let results = judged(&labels);
    let markdown = md(&results);
    assert!(markdown.contains("by class, in points, the first 1000 of 2000"), "no bound");
    let table = markdown.split("the commonest of 1 mistake").nth(1).unwrap();
    assert_eq!(entries(table, "class 0")[1..], ["class 1", "5"]);
    assert_eq!(of(&results).chart_files().count(), 0);
}

#[test]
fn runs_of_other_classes_are_not_added_and_cells_outside_are_not_drawn() {
    let mut results = judged(&["bad", "good"]);
    let Outcome::Done(finding) = outcome(&mut results, "mrpc", "ours", 3) else { panic!() };
    finding.by_class[0].classes[1].label = "better".into();
    assert!(md(&results).contains("MRPC, Ours: dev, 4 runs together"));
    let mut results = judged(&["bad", "good"]);
    for cell in &mut results.cells {
        let Outcome::Done(finding) = &mut cell.outcome else { continue };
        finding.by_class[0].confusion[0].answered = 7;
    }
    assert_eq!(of(&results).chart_files().count(), 0);
    well_formed(&html::render(&[of(&results)]));
}

#[test]
fn results_without_classes_say_so() {
    let mut results = results();
    results.layout.show = vec![View::Classes];
    assert!(md(&results).contains("## Classes\n\nNo finished run has anything to show here."));
}
