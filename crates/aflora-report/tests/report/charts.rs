//! Heat maps, curves and bars.

use crate::support::*;
use aflora_record::results::Outcome;
use aflora_report::report::html;

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
